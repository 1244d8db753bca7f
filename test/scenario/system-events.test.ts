// What the relay itself says lies in the queue like any message; nobody else can say it. [V-1] [V-2] [V-4]
import { afterAll, beforeAll, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { waitingFor } from '../support/backlog.ts'
import { Client, idOf } from '../support/client.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ClientFrame, ConversationChange, DeviceChange, ErrorCode, SystemEvent } = sealpost.v1

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

const trio = () => Promise.all([Client.register(relay), Client.register(relay), Client.register(relay)])

it('a group is announced to each member, with a sequence, between the messages around it; it is acked like one', async () => {
  const [alice, bob, carol] = await trio()
  const direct = await alice.direct(bob)
  const [from, to] = [await alice.live(), await bob.live()]
  await from.send(direct, [bob.to()])
  const group = await alice.group([bob, carol])
  await from.send(direct, [bob.to()])
  const [first, event, last] = [await to.next('envelope'), await to.next('envelope'), await to.next('envelope')]
  expect([event.sequence! - first.sequence!, last.sequence! - event.sequence!]).toEqual([1, 1])
  expect(event.ciphertext ?? null).toBe(null)
  expect(idOf(event.conversationId)).toBe(group)
  expect(event.systemEvent?.conversationChanged).toMatchObject({
    change: ConversationChange.CONVERSATION_CHANGE_CREATED,
    revision: 1,
  })
  expect(idOf(event.systemEvent?.conversationChanged?.actorUserId)).toBe(alice.userId)

  // Missing ack: again in the next sync, as it was; then acked, then gone.
  await to.ack(first.messageId, last.messageId)
  expect((await to.sync()).messages).toEqual([event])
  await to.ack(event.messageId)
  expect((await to.sync()).messages).toEqual([])
  await Promise.all([from.close(), to.close()])
})

it('it waits for an offline device, and pages bring it in order with messages', async () => {
  const [alice, bob, carol] = await trio()
  await (await bob.live()).close()
  const from = await alice.live()
  const group = await alice.group([bob, carol])
  await from.send(group, [bob.to(), carol.to()])
  expect((await alice.patch(`/v1/conversations/${group}`, { name: 'other' })).status).toBe(200)
  await from.send(group, [bob.to(), carol.to()])
  const to = await bob.connect()
  const got: string[] = []
  const sequences: number[] = []
  let last: Uint8Array | null = null
  for (let more = true; more; ) {
    const page = await to.sync(last, 1)
    const [each] = page.messages!
    got.push(each!.ciphertext ? 'message' : ConversationChange[each!.systemEvent!.conversationChanged!.change!]!)
    sequences.push(each!.sequence!)
    last = each!.messageId!
    more = page.hasMore!
  }
  expect(got).toEqual(['CONVERSATION_CHANGE_CREATED', 'message', 'CONVERSATION_CHANGE_UPDATED', 'message'])
  expect(sequences).toEqual(sequences.map((_, i) => sequences[0]! + i))
  await Promise.all([from.close(), to.close()])
})

it('a device linked and unlinked is told to the other devices of its user, live, without a conversation', async () => {
  const alice = await Client.register(relay)
  const socket = await alice.live()
  const second = await alice.link()
  const linked = await socket.next('envelope')
  expect(linked.conversationId?.length).toBe(0)
  expect(linked.systemEvent?.devicesChanged).toMatchObject({
    change: DeviceChange.DEVICE_CHANGE_LINKED,
    deviceId: second.deviceId,
    registrationId: second.device.registrationId,
  })
  const gone = await second.live()
  await alice.delete(`/v1/devices/${second.deviceId}`)
  expect(await gone.end()).toBe(4401)
  const unlinked = await socket.next('envelope')
  expect(unlinked.systemEvent?.devicesChanged?.change).toBe(DeviceChange.DEVICE_CHANGE_UNLINKED)
  expect(unlinked.sequence).toBe(linked.sequence! + 1)
  await socket.ack(linked.messageId, unlinked.messageId)
  expect(await waitingFor(relay.db.database.sql, alice)).toEqual([])
  await socket.close()
})

it('no client frame can express one: no number of ClientFrame holds it, and a content that looks like one stays content', async () => {
  const [alice, bob] = await trio()
  const conversation = await alice.direct(bob)
  const [from, to] = [await alice.live(), await bob.live()]
  const event = SystemEvent.encode({
    conversationChanged: { change: ConversationChange.CONVERSATION_CHANGE_ARCHIVED, revision: 99 },
  }).finish()

  // As the whole content, under the number the queue stores events under, and with every field the message has.
  await from.send(conversation, [bob.to(event)])
  const { ciphertext, systemEvent } = await to.next('envelope')
  expect(systemEvent ?? null).toBe(null)
  expect(ciphertext?.content).toEqual(Buffer.from(event))
  const zero = await from.send(conversation, [bob.to(event, 0)])
  expect(zero.error?.code).toBe(ErrorCode.ERROR_CODE_INVALID_REQUEST)

  // As a field of the frame, whatever its number.
  for (let field = 1; field <= 63; field++) {
    if ([1, 2, 3, 4, 8].includes(field)) continue
    const head = field > 15 ? [((field << 3) & 127) | 0x82, field >> 4] : [(field << 3) | 2]
    from.ws.send(Buffer.concat([Buffer.from([...head, event.length]), event]))
    expect((await from.next('error', 0)).code).toBe(ErrorCode.ERROR_CODE_INVALID_REQUEST)
    await from.fence()
  }
  // Beside a real body it is ignored.
  const field15 = Buffer.concat([Buffer.from([0x7a, event.length]), event])
  from.ws.send(Buffer.concat([ClientFrame.encode({ requestId: 77, ack: {} }).finish(), field15]))
  await from.next('ackCommitted', 77)
  await to.fence()
  expect(to.envelopes()).toEqual([])
  await Promise.all([from.close(), to.close()])
})
