// Two users and every signal between them, once. [G-1] [G-2] [G-3] [G-4] [H-10]
import { afterAll, beforeAll, expect, it } from 'vitest'
import { uuidToBytes } from '../../proto/ids.ts'
import { openLocalHub } from '../../server/bus/local.ts'
import { openLocalPresence } from '../../server/bus/presence.ts'
import { Client, idOf } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { pass } from '../support/signals.ts'

let relay: TestRelay
const time = new FakeTime()
const shared = openLocalPresence()
/** Asks the store as another node would. */
const outside = shared()
beforeAll(async () => {
  const bus = openLocalHub((error) => {
    throw error
  })
  relay = await testRelay({ time, nodes: { bus, presence: shared } })
})
afterAll(() => relay.close())

it('a conversation of two, from typing to read', async () => {
  const [alice, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
  const conversation = await alice.direct(bob)
  const conversationId = uuidToBytes(conversation)
  const [a, b] = [await alice.live(), await bob.live()]
  // He is there when his settings were read, whoever asks before.
  while (!(await outside.online([bob.userId])).size) await b.fence()

  const seen = await a.ask({ presenceSubscription: { userIds: [uuidToBytes(bob.userId)] } })
  expect(seen.presence?.users).toMatchObject([{ isOnline: true }])

  b.write({ typing: { conversationId, isTyping: true } })
  const typing = await a.next('typing')
  expect([idOf(typing.userId), typing.deviceId, typing.isTyping]).toEqual([bob.userId, 1, true])

  const { messageAccepted } = await a.send(conversation, [bob.to()])
  const messageId = messageAccepted!.messageId!
  await b.next('envelope')
  await b.ack(messageId)
  await b.fence()
  await pass(time, 1_000)
  expect((await a.next('statusUpdate')).messages).toMatchObject([{ messageId, delivered: 1 }])

  expect((await b.ask({ readReceipt: { conversationId, messageId } })).readReceiptCommitted).toBeTruthy()
  await pass(time, 1_000)
  expect((await a.next('statusUpdate')).messages).toMatchObject([{ messageId, delivered: 1, read: 1 }])
  expect((await a.ask({ statusRequest: { messageIds: [messageId] } })).statusUpdate?.messages).toMatchObject([
    { messageId, delivered: 1, read: 1 },
  ])

  await b.close()
  await a.fence()
  await pass(time, 4_000)
  const gone = await a.next('presence')
  expect(gone.users!.map((each) => [idOf(each.userId), each.isOnline])).toEqual([[bob.userId, false]])
  expect((await alice.get('/v1/settings')).body).toEqual({ read_receipts: true, presence: true })
  expect((await alice.patch('/v1/settings', { presence: false })).body).toEqual({
    read_receipts: true,
    presence: false,
  })
  await a.close()
})
