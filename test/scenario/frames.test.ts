// Frames that are too large, malformed, or not frames at all: answered, and what it takes to be thrown out. [C-2] [C-7]
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { FRAME_HARD_MAX_BYTES, FRAME_MAX_BYTES } from '../../proto/limits.ts'
import { Client, Socket } from '../support/client.ts'
import { pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ClientFrame, ErrorCode } = sealpost.v1

let relay: TestRelay
let alice: Client
let socket: Socket
beforeAll(async () => {
  relay = await testRelay()
  alice = await Client.register(relay)
})
afterAll(() => relay.close())
beforeEach(async () => {
  socket = await alice.live()
  return () => socket.close()
})

const MALFORMED = Buffer.from([0x08, 0x07, 0x22, 0x10])
const INVALID = ErrorCode.ERROR_CODE_INVALID_REQUEST
/** A well-formed Ack of nothing with an unknown field that makes it so long. */
function frameOf(bytes: number, requestId = 9): Uint8Array {
  const body = ClientFrame.encode({ requestId, ack: {} }).finish()
  const frame = Buffer.alloc(bytes)
  frame.set(body)
  const length = bytes - body.length - 4
  frame.set([0x7a, (length & 127) | 128, ((length >> 7) & 127) | 128, length >> 14], body.length)
  return frame
}

describe('size [C-7.2]', () => {
  it('exactly 1 MiB is taken', async () => {
    socket.ws.send(frameOf(FRAME_MAX_BYTES))
    await socket.next('ackCommitted', 9)
  })

  it.each([FRAME_MAX_BYTES + 1, FRAME_HARD_MAX_BYTES])('%i bytes: TOO_LARGE with its request_id', async (bytes) => {
    socket.ws.send(frameOf(bytes, 12345))
    expect((await socket.next('error', 12345)).code).toBe(ErrorCode.ERROR_CODE_TOO_LARGE)
    await socket.fence()
  })

  it('a message too large is answered, and the connection sends the next one', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const [from, to] = [await alice.live(), await bob.live()]
    // Eleven devices with the most a content may hold exceed a frame.
    const recipients = Array.from({ length: 11 }, () => bob.to(Buffer.alloc(96 * 1024)))
    expect((await from.send(conversation, recipients)).error?.code).toBe(ErrorCode.ERROR_CODE_TOO_LARGE)
    const { messageAccepted } = await from.send(conversation, [bob.to()])
    expect((await to.next('envelope')).messageId).toEqual(messageAccepted?.messageId)
    await Promise.all([from.close(), to.close()])
  })

  it('any number of them in a row is no reason to close', async () => {
    for (let i = 0; i < 10; i++) socket.ws.send(frameOf(FRAME_MAX_BYTES + 1, i + 100))
    for (let i = 0; i < 10; i++) await socket.next('error', i + 100)
    await socket.fence()
  })

  it('beyond 1.25 MiB it closes with 1009; a client that connects again is served: no loop', async () => {
    socket.ws.send(Buffer.alloc(FRAME_HARD_MAX_BYTES + 1))
    expect(await socket.end()).toBe(1009)
    const again = await alice.connect()
    expect(again.hello.limits?.frameBytes).toBe(FRAME_MAX_BYTES)
    await again.drain()
    await again.fence()
    expect(again.closed).toBe(null)
    await again.close()
  })

  it('far beyond it the connection ends, and the relay is there for the next', async () => {
    socket.ws.send(Buffer.alloc(8 * FRAME_HARD_MAX_BYTES))
    await socket.end()
    await (await alice.live()).close()
  })
})

describe('malformed frames [C-7.1]', () => {
  it('each is answered INVALID_REQUEST; the fifth in a row closes with 4400', async () => {
    for (let i = 0; i < 4; i++) {
      socket.ws.send(MALFORMED)
      expect((await socket.next('error', 7)).code).toBe(INVALID)
    }
    await socket.fence()
    for (let i = 0; i < 5; i++) socket.ws.send(MALFORMED)
    expect(await socket.end()).toBe(4400)
    expect(socket.frames.filter((each) => each.error?.code === INVALID).length).toBe(5)
  })

  it('a text frame counts', async () => {
    socket.ws.send('{"ack":{}}')
    expect((await socket.next('error', 0)).code).toBe(INVALID)
    for (let i = 0; i < 4; i++) socket.ws.send('')
    expect(await socket.end()).toBe(4400)
  })

  it.each<[string, Buffer]>([
    ['an empty frame', Buffer.alloc(0)],
    ['a frame without a body', Buffer.from([0x08, 0x07])],
    ['an unknown body', Buffer.from([0x08, 0x07, 0x7a, 0x00])],
    ['a body only the relay sends', Buffer.from([0x08, 0x07, 0x52, 0x00])],
  ])('%s counts', async (_what, frame) => {
    for (let i = 0; i < 5; i++) socket.ws.send(frame)
    expect(await socket.end()).toBe(4400)
  })

  it('a well-formed frame starts the count again, also one that is refused', async () => {
    const refused = { ack: { messageIds: [new Uint8Array(3)] } }
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < 4; i++) socket.ws.send(MALFORMED)
      if (round % 2) await socket.fence()
      else expect((await socket.ask(refused)).error?.code).toBe(INVALID)
    }
    expect(socket.closed).toBe(null)
  })

  it('what follows in the same packet as the fifth is not done', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const from = await alice.live()
    for (let i = 0; i < 5; i++) from.ws.send(MALFORMED)
    from.send(conversation, [bob.to()]).catch(() => {})
    expect(await from.end()).toBe(4400)
    const to = await bob.connect()
    expect(await to.drain()).toEqual([])
    await to.close()
  })

  it('the device may connect again', async () => {
    for (let i = 0; i < 5; i++) socket.ws.send(MALFORMED)
    await socket.end()
    const again = await alice.live()
    await again.fence()
    await again.close()
  })
})

describe('request_id [C-2.2]', () => {
  it('0 is answered as 0; the largest is echoed; the same one twice is answered twice', async () => {
    for (const requestId of [0, 1, Number.MAX_SAFE_INTEGER]) {
      socket.ws.send(ClientFrame.encode({ requestId, ack: {} }).finish())
      await socket.next('ackCommitted', requestId)
    }
    for (let i = 0; i < 2; i++) socket.ws.send(ClientFrame.encode({ requestId: 5, ack: {} }).finish())
    for (let i = 0; i < 2; i++) await socket.next('ackCommitted', 5)
  })

  it('each of many requests at once is answered exactly once', async () => {
    const answers = await Promise.all(
      Array.from({ length: 900 }, (_, i) =>
        socket.ask(
          i % 3 ? { ack: { messageIds: [crypto.getRandomValues(new Uint8Array(16))] } } : { reauthenticate: {} },
        ),
      ),
    )
    expect(answers.filter((each) => each.ackCommitted).length).toBe(600)
    expect(answers.filter((each) => each.error?.code === ErrorCode.ERROR_CODE_UNAUTHENTICATED).length).toBe(300)
    await socket.fence()
    expect(socket.frames.filter((each) => each.requestId !== 0)).toEqual([])
  })
})

it('Hello says what is in force', async () => {
  const first = await Socket.open(relay.url, alice.token)
  const hello = await first.next('hello')
  await first.fence()
  expect(hello).toMatchObject({ realm: relay.realm, queueWaiting: false, deviceId: alice.deviceId })
  expect(hello.epoch?.length).toBe(16)
  expect(hello.prekeyCounts).toMatchObject({ ecOneTime: 2, kyberOneTime: 2, lastResortUsed: false })
  expect(hello.limits).toMatchObject({ contentBytes: 98_304, ackIds: 1000, pageMessages: 100, windowMessages: 256 })
  await first.close()
})
