// First messages to a full group: 500 members, 5,000 devices, one frame. All of it or nothing, and memory stays bounded. [C-9.4] I8 I10
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes } from '../../proto/ids.ts'
import { FRAME_HTTP_MAX_BYTES, FRAME_MAX_BYTES } from '../../proto/limits.ts'
import { Client, idOf, type Socket } from '../support/client.ts'
import { heldBytes, heldNow } from '../support/held.ts'
import { messageTo, post, postBytes } from '../support/http-frames.ts'
import { queueFaults } from '../support/node.ts'
import { type Person, populate } from '../support/population.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ClientFrame, ErrorCode } = sealpost.v1
const MiB = 1024 * 1024
/** A first message by Kyber: what it weighs for one device. */
const FIRST_BYTES = 2_300

let relay: TestRelay
let alice: Client
let bob: Client
let people: Person[]
let group: string
beforeAll(async () => {
  relay = await testRelay()
  ;[alice, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
  const { sql } = relay.db.database
  people = await populate(sql, 498, 10)
  group = await alice.group([bob, people[0]!])
  const others = people.slice(1).map((each) => each.userId)
  await sql`insert into conversation_members (conversation_id, user_id) select ${group}, u from unnest(${others}::uuid[]) u`
})
afterAll(() => relay?.close())

/** A message to all 4,981 other devices, each with content of its own. */
function whole(): sealpost.v1.ClientFrame.$Properties {
  const recipients = people.flatMap(({ devices }) =>
    devices.map(({ userId, deviceId, registrationId }) => ({
      ...{ userId: uuidToBytes(userId), deviceId, registrationId },
      ...{ ciphertextType: 3, content: randomBytes(FIRST_BYTES) },
    })),
  )
  return messageTo(group, [...recipients, bob.to(randomBytes(FIRST_BYTES))])
}
const stored = async (messageId: Uint8Array | null | undefined) =>
  relay.db.database.sql<{ device_key: number; content: Buffer }[]>`
    select device_key, content from message_deliveries_waiting where message_id = ${idOf(messageId)} order by device_key`

it('every device gets its own ciphertext, in one commit; who is connected gets it at once', async () => {
  const socket: Socket = await bob.live()
  const frame = whole()
  const bytes = ClientFrame.encode({ requestId: 1, ...frame }).finish()
  expect(bytes.length).toBeGreaterThan(11 * MiB)
  expect(bytes.length).toBeLessThan(FRAME_HTTP_MAX_BYTES)
  const answer = await postBytes(alice, bytes)
  const { messageId, skipped } = answer.frame!.messageAccepted!
  expect([answer.status, skipped]).toEqual([200, []])

  const envelope = await socket.next('envelope')
  expect(envelope.messageId).toEqual(messageId)
  expect(envelope.ciphertext!.content).toEqual(Buffer.from(frame.signalMessage!.recipients!.at(-1)!.content!))
  const rows = await stored(messageId)
  expect(rows).toHaveLength(4_981)
  const contentOf = new Map(rows.map((row) => [row.device_key, row.content]))
  const sent = frame.signalMessage!.recipients!
  people
    .flatMap((each) => each.devices)
    .forEach(({ deviceKey }, i) => {
      if (!contentOf.get(deviceKey)!.equals(sent[i]!.content!)) expect.unreachable(`device ${deviceKey}`)
    })
  expect(await queueFaults(relay.db.database.sql)).toEqual([])

  // The same again is the same message, however large.
  const again = await postBytes(alice, bytes)
  expect(again.frame!.messageAccepted).toMatchObject({ messageId, duplicate: true })
  await socket.close()
})

it('one device missing: DEVICE_MISMATCH names it, and nothing is stored', async () => {
  const frame = whole()
  const [left] = frame.signalMessage!.recipients!.splice(2_000, 1)
  const { status, frame: answer } = await post(alice, frame)
  expect([status, answer!.error!.code]).toEqual([409, ErrorCode.ERROR_CODE_DEVICE_MISMATCH])
  const missing = answer!.error!.deviceMismatch!.missing!
  expect(missing.map((each) => [idOf(each.userId), each.deviceId])).toEqual([[idOf(left!.userId), left!.deviceId]])
  const { sql } = relay.db.database
  const [row] =
    await sql`select count(*) as n from messages where client_message_id = ${idOf(frame.signalMessage!.clientMessageId)}`
  expect(row!.n).toBe(0)
})

it('on a socket it is TOO_LARGE, as before [C-7.2]', async () => {
  const socket = await alice.live()
  const large = messageTo(group, [bob.to(randomBytes(FRAME_MAX_BYTES))])
  expect((await socket.ask(large)).error!.code).toBe(ErrorCode.ERROR_CODE_TOO_LARGE)
  await socket.close()
})

it('several users at once: each is answered, and of all that nothing is held afterwards', async () => {
  const senders = await Promise.all(Array.from({ length: 4 }, () => Client.register(relay)))
  const { sql } = relay.db.database
  // In the group instead of four of its members.
  await sql`delete from conversation_members where conversation_id = ${group}
    and user_id = any(${people.splice(0, 4).map((each) => each.userId)}::uuid[])`
  await sql`insert into conversation_members (conversation_id, user_id)
    select ${group}, u from unnest(${senders.map((each) => each.userId)}::uuid[]) u`
  const round = () =>
    senders.map((sender) => {
      const frame = whole()
      const others = [alice, ...senders].filter((each) => each !== sender)
      frame.signalMessage!.recipients!.push(...others.map((each) => each.to(randomBytes(FIRST_BYTES))))
      return ClientFrame.encode({ requestId: 2, ...frame }).finish()
    })
  // Made before memory is looked at.
  const [first, second] = [round(), round()]
  const send = (bodies: Uint8Array[]) => Promise.all(senders.map((sender, i) => postBytes(sender, bodies[i]!)))
  // What a first round leaves for good, the buffers of connections to the database for one, is not held of a second.
  await send(first)
  const before = await heldBytes()
  let most = 0
  let done = false
  const watching = (async () => {
    while (!done) {
      most = Math.max(most, heldNow())
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  })()
  const answers = await send(second)
  done = true
  await watching
  expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200])
  // 46 MiB of bodies, of which two are worked on at a time; what the clients in this process hold is counted too, and what is freed late.
  expect(most - before).toBeLessThan(256 * MiB)
  const after = await heldBytes()
  expect(after - before).toBeLessThan(16 * MiB)
}, 60_000)
