// POST /v1/frames: one frame, one answer, by the rules of the socket. [C-9.1] to [C-9.5]
import { randomBytes } from 'node:crypto'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { CONTENT_MAX_BYTES, FRAME_HTTP_MAX_BYTES, FRAME_MAX_BYTES } from '../../proto/limits.ts'
import { Uploads } from '../../server/uploads.ts'
import { idOf } from '../support/client.ts'
import { type Exchanged, framesOf, messageTo, post, postAck, postBytes, postMessage } from '../support/http-frames.ts'
import { type Pair, pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { request } from '../support/request.ts'
import { receipt, typing } from '../support/signals.ts'

const { ClientFrame, ErrorCode } = sealpost.v1
let relay: TestRelay
let users: Pair
beforeAll(async () => {
  relay = await testRelay()
  users = await pair(relay)
})
afterAll(() => relay?.close())

const codeOf = ({ frame }: Exchanged): string => ErrorCode[frame?.error?.code ?? 0]!.replace('ERROR_CODE_', '')
const refused = (answer: Exchanged): [number, string] => [answer.status, codeOf(answer)]

describe('what is answered, and with what [C-9.1]', () => {
  it('a message: MessageAccepted with the request id, after its commit', async () => {
    const { alice, bob, conversation, bobKey } = users
    const { status, headers, frame } = await post(alice, messageTo(conversation, [bob.to()]), 4711)
    expect([status, headers.get('content-type'), headers.get('cache-control')]).toEqual([
      200,
      'application/x-protobuf',
      'no-store',
    ])
    expect(frame!.requestId).toBe(4711)
    const id = idOf(frame!.messageAccepted!.messageId)
    const [row] = await relay.db.database.sql`
      select count(*) as n from message_deliveries_waiting where device_key = ${bobKey} and message_id = ${id}`
    expect(row!.n).toBe(1)
  })

  it('the same message again: the same answer, duplicate; two copies at once are one message [S-2] I2', async () => {
    const { alice, bob, conversation } = users
    const message = messageTo(conversation, [bob.to()])
    const [first, twin] = await Promise.all([post(alice, message), post(alice, message)])
    const again = await post(alice, message)
    const ids = [first, twin, again].map(({ frame }) => idOf(frame!.messageAccepted!.messageId))
    expect(new Set(ids).size).toBe(1)
    expect([first, twin].filter(({ frame }) => frame!.messageAccepted!.duplicate)).toHaveLength(1)
    expect(again.frame!.messageAccepted!.duplicate).toBe(true)
  })

  it('an Ack: AckCommitted after its commit; what is unknown, foreign or repeated is no error [Q-6.2]', async () => {
    const { alice, bob, conversation, bobKey } = users
    const id = await postMessage(alice, conversation, [bob.to()])
    await postAck(alice, id)
    const waits = async () =>
      (
        await relay.db.database.sql`select 1 from message_deliveries_waiting
        where device_key = ${bobKey} and message_id = ${idOf(id)}`
      ).length
    expect(await waits()).toBe(1)
    await postAck(bob, id, randomBytes(16))
    expect(await waits()).toBe(0)
    await postAck(bob, id)
  })

  it('a ReadReceipt, a StatusRequest, and Typing, which has no answer: 204', async () => {
    const { alice, bob, conversation } = users
    const id = await postMessage(alice, conversation, [bob.to()])
    await postAck(bob, id)
    expect((await post(bob, receipt(conversation, id))).frame!.readReceiptCommitted).toBeTruthy()
    const { frame } = await post(alice, { statusRequest: { messageIds: [id] } })
    expect(frame!.statusUpdate!.messages!.map((each) => [each.delivered, each.read])).toEqual([[1, 1]])
    const socket = await bob.live()
    const { status, frame: none } = await post(alice, typing(conversation))
    expect([status, none]).toEqual([204, null])
    expect(idOf((await socket.next('typing')).userId)).toBe(alice.userId)
    await socket.close()
  })
})

describe('what is refused: the Error frame with its status [C-9.2]', () => {
  it('DEVICE_MISMATCH comes whole', async () => {
    const { alice, bob, conversation } = users
    const answer = await post(alice, messageTo(conversation, []), 12)
    expect(refused(answer)).toEqual([409, 'DEVICE_MISMATCH'])
    expect(answer.frame!.requestId).toBe(12)
    expect(answer.frame!.error!.deviceMismatch!.missing!.map((each) => idOf(each.userId))).toEqual([bob.userId])
  })

  it('kinds that are about a connection', async () => {
    const bodies = [
      { syncRequest: {} },
      { reauthenticate: { token: users.alice.token } },
      { presenceSubscription: { userIds: [] } },
    ]
    for (const body of bodies) expect(refused(await post(users.alice, body))).toEqual([400, 'INVALID_REQUEST'])
  })

  it('what is no frame, or none with a body', async () => {
    for (const bytes of [Buffer.alloc(0), Buffer.from('not a frame'), Buffer.from([0x08, 0x01])])
      expect(refused(await postBytes(users.alice, bytes))).toEqual([400, 'INVALID_REQUEST'])
  })

  it('other content types; octet-stream and parameters are fine', async () => {
    const frame = ClientFrame.encode({ ack: {} }).finish()
    const send = (type: string) => postBytes(users.alice, frame, { 'Content-Type': type })
    expect(refused(await send('application/json'))).toEqual([400, 'INVALID_REQUEST'])
    for (const type of ['application/octet-stream', 'Application/X-Protobuf; messageType="sealpost.v1.ClientFrame"'])
      expect((await send(type)).frame!.ackCommitted).toBeTruthy()
  })

  it('a token that is missing, wrong, or of an unlinked device', async () => {
    const gone = await users.alice.link()
    await users.alice.delete(`/v1/devices/${gone.deviceId}`)
    for (const token of ['', 'nonsense', gone.token]) {
      const answer = await post({ url: relay.url, token }, { ack: {} })
      expect(refused(answer)).toEqual([401, 'UNAUTHENTICATED'])
      expect(answer.headers.get('www-authenticate')).toBe('Bearer')
    }
  })

  it('a conversation of others, and a content that is too large', async () => {
    const { alice, bob, conversation } = users
    const other = await pair(relay)
    expect(refused(await post(alice, messageTo(other.conversation, [bob.to()])))).toEqual([400, 'INVALID_REQUEST'])
    const large = messageTo(conversation, [bob.to(randomBytes(CONTENT_MAX_BYTES + 1))])
    expect(refused(await post(alice, large))).toEqual([413, 'TOO_LARGE'])
  })

  it('frames above 16 MiB, and above 1 MiB what is no message [C-9.4]', async () => {
    const { alice } = users
    const padded = (bytes: number) =>
      // Field 15 is none that the relay knows; unknown fields are ignored. [C-2.5]
      Buffer.concat([ClientFrame.encode({ requestId: 5, ack: {} }).finish(), field15(bytes)])
    expect((await postBytes(alice, padded(FRAME_MAX_BYTES - 100))).frame!.ackCommitted).toBeTruthy()
    expect(refused(await postBytes(alice, padded(FRAME_MAX_BYTES + 1)))).toEqual([413, 'TOO_LARGE'])
    expect(refused(await postBytes(alice, padded(FRAME_HTTP_MAX_BYTES + 1)))).toEqual([413, 'TOO_LARGE'])
  })
})

function field15(bytes: number): Buffer {
  const length: number[] = []
  for (let rest = bytes; ; rest >>>= 7) {
    length.push(rest > 127 ? (rest & 127) | 128 : rest)
    if (rest <= 127) break
  }
  return Buffer.concat([Buffer.from([(15 << 3) | 2, ...length]), Buffer.alloc(bytes)])
}

it('it is nobody’s connection: a socket stays, and its acks free that socket’s slots [C-9.3]', async () => {
  const { alice, bob, conversation } = users
  const socket = await bob.live()
  const from = await alice.live()
  const content = randomBytes(40)
  for (let i = 0; i < 300; i++) from.write(messageTo(conversation, [bob.to(content)]))
  const first: Uint8Array[] = []
  for (let i = 0; i < 256; i++) first.push((await socket.next('envelope')).messageId!)
  await from.fence()
  await socket.fence()
  expect(socket.envelopes()).toHaveLength(0)
  await postAck(bob, ...first)
  const rest: Uint8Array[] = []
  for (let i = 0; i < 44; i++) rest.push((await socket.next('envelope')).messageId!)
  await postAck(bob, ...rest)
  expect(socket.closed).toBe(null)
  await Promise.all([socket.close(), from.close()])
})

it('counted and logged like frames of a socket', async () => {
  const { alice, bob, conversation } = users
  await postMessage(alice, conversation, [bob.to()])
  relay.logged.length = 0
  const before = await count('sealpost_frames_in_total{kind="send"}')
  const id = await postMessage(alice, conversation, [bob.to()])
  await post(alice, messageTo(conversation, []))
  expect((await count('sealpost_frames_in_total{kind="send"}')) - before).toBe(2)
  const events = relay.logged.map((line) => JSON.parse(line)).filter((each) => each.userId === alice.userId)
  expect(events.find((each) => each.event === 'send')).toMatchObject({ messageId: idOf(id), devices: 1 })
  expect(events.find((each) => each.event === 'refuse')).toMatchObject({ code: 'DEVICE_MISMATCH' })
})
const count = async (name: string): Promise<number> => {
  const { body } = await request(relay.url, 'GET', '/metrics')
  return Number(
    (body as string)
      .split('\n')
      .find((line) => line.startsWith(name))!
      .split(' ')[1],
  )
}

it('/openapi.json describes both', async () => {
  const { paths } = (await request(relay.url, 'GET', '/openapi.json')).body
  expect(paths['/v1/frames'].post.requestBody.content).toEqual({
    'application/x-protobuf': { schema: { type: 'string', format: 'binary' } },
  })
  expect(paths['/v1/deliveries'].get.security).toEqual([{ device: [] }])
})

describe('how much at once [C-9.4]', () => {
  it('a second large send of a user is RATE_LIMITED while the first is under way; small ones go on', async () => {
    const { alice, bob, conversation } = users
    // The first announces its body and is slow with it.
    const { hostname, port } = new URL(relay.url)
    const slow = connect(Number(port), hostname)
    const body = ClientFrame.encode({ requestId: 1, ...large() }).finish()
    slow.write(
      `POST /v1/frames HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${alice.token}\r\nContent-Type: application/x-protobuf\r\nContent-Length: ${body.length}\r\n\r\n`,
    )
    await new Promise((resolve) => slow.write(body.subarray(0, 1000), resolve))
    // Behind these it was let in.
    for (let i = 0; i < 3; i++) await postAck(alice, randomBytes(16))
    const second = await post(alice, large())
    expect(refused(second)).toEqual([429, 'RATE_LIMITED'])
    expect(second.frame!.error!.retryAfterMs).toBeGreaterThan(0)
    expect(second.headers.get('retry-after')).toBe('1')
    await postMessage(alice, conversation, [bob.to()])
    const answered = new Promise<string>((resolve) => slow.once('data', (data: Buffer) => resolve(data.toString())))
    slow.write(body.subarray(1000))
    expect(await answered).toMatch(/^HTTP\/1.1 400 /)
    slow.destroy()
    // It was let go with its answer.
    expect(refused(await post(alice, large()))).toEqual([400, 'INVALID_REQUEST'])
  })
  const large = (): sealpost.v1.ClientFrame.$Properties => ({
    signalMessage: {
      clientMessageId: uuidToBytes(uuidV7(Date.now())),
      conversationId: randomBytes(16),
      scope: 1,
      recipients: Array.from({ length: 20 }, () => ({ content: randomBytes(64 * 1024) })),
    },
  })

  it('shares: bytes and frames of a user, given back; large ones apart, two worked on at once', async () => {
    const uploads = new Uploads()
    const [MiB, codeAt] = [
      1024 * 1024,
      (enter: () => unknown) => {
        try {
          enter()
          return 'entered'
        } catch (error) {
          return (error as { code: string }).code
        }
      },
    ]
    const leave = Array.from({ length: 8 }, () => uploads.enter('ann', MiB))
    expect(codeAt(() => uploads.enter('ann', 1))).toBe('OVERLOADED')
    const leaveLarge = uploads.enter('ann', MiB + 1)
    expect(codeAt(() => uploads.enter('ann', null))).toBe('RATE_LIMITED')
    expect(codeAt(() => uploads.enter('bob', null))).toBe('entered')
    for (const each of leave) each()
    leaveLarge()
    const frames = Array.from({ length: 100 }, () => uploads.enter('ann', 0))
    expect(codeAt(() => uploads.enter('ann', 0))).toBe('OVERLOADED')
    for (const each of frames) each()
    expect(codeAt(() => uploads.enter('ann', MiB + 1))).toBe('entered')

    const order: number[] = []
    const [one, two] = [await uploads.turn(), await uploads.turn()]
    const nth = async (n: number): Promise<() => void> => {
      const next = await uploads.turn()
      order.push(n)
      return next
    }
    const [third, fourth] = [nth(3), nth(4)]
    await Promise.resolve()
    expect(order).toEqual([])
    one()
    ;(await third)()
    two()
    ;(await fourth)()
    expect(order).toEqual([3, 4])
    await Promise.all([uploads.turn(), uploads.turn()])
  })
})

it('nothing is in the answer but the one frame', async () => {
  const answer = await fetch(`${relay.url}/v1/frames`, { method: 'POST', body: 'x' })
  const bytes = new Uint8Array(await answer.arrayBuffer())
  expect(() => framesOf(bytes)).toThrow()
  expect(sealpost.v1.ServerFrame.decode(bytes).error!.code).toBe(ErrorCode.ERROR_CODE_UNAUTHENTICATED)
})
