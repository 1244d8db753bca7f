// How much may be un-acked on a connection, and that one who never acks harms only himself. I10
import { afterAll, beforeAll, expect, it } from 'vitest'
import { uuidToBytes } from '../../proto/ids.ts'
import { WINDOW_MAX_MESSAGES } from '../../proto/limits.ts'
import { bytesOfAll, commitUnannounced, numberOf, waitingFor } from '../support/backlog.ts'
import { Client, idOf, type Socket } from '../support/client.ts'
import { type Pair, pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

const commit = ({ alice, bob, conversation }: Pair, count: number) =>
  commitUnannounced(relay.db.database.sql, { from: alice, to: bob, conversation, count })

/** So many envelopes, taken. */
async function take(socket: Socket, count: number) {
  const got = []
  while (got.length < count) got.push(await socket.next('envelope'))
  return got
}

it('256 un-acked, then silence; one ack brings one more, ten bring ten', async () => {
  const users = await pair(relay)
  const [from, to] = [await users.alice.live(), await users.bob.live()]
  const ids = await commit(users, WINDOW_MAX_MESSAGES + 20)
  const got = await take(to, WINDOW_MAX_MESSAGES)
  // Announced, and still not sent.
  await from.send(users.conversation, [users.bob.to()])
  await to.fence()
  expect(to.envelopes()).toEqual([])

  await to.ack(got[100]!.messageId)
  got.push(...(await take(to, 1)))
  await from.send(users.conversation, [users.bob.to()])
  await to.fence()
  expect(to.envelopes()).toEqual([])

  await to.ack(...got.slice(0, 10).map((each) => each.messageId))
  got.push(...(await take(to, 10)))
  await to.fence()
  expect(to.envelopes()).toEqual([])
  expect(got.map((each) => idOf(each.messageId))).toEqual(ids.slice(0, WINDOW_MAX_MESSAGES + 11))
  await Promise.all([from.close(), to.close()])
})

it('pages bypass the window and count into it', async () => {
  const users = await pair(relay)
  const ids = await commit(users, 300)
  const [from, to] = [await users.alice.live(), await users.bob.connect()]
  let last: Uint8Array | null = null
  for (let more = true; more; ) {
    const page = await to.sync(last)
    last = page.messages!.at(-1)!.messageId!
    more = page.hasMore!
  }
  await to.next('queueEmpty')
  // 300 are un-acked: nothing live until 45 of them are acked.
  const sent = await from.send(users.conversation, [users.bob.to()])
  await to.ack(...bytesOfAll(ids.slice(0, 44)))
  await to.fence()
  expect(to.envelopes()).toEqual([])
  await to.ack(uuidToBytes(ids[44]!))
  expect(idOf((await to.next('envelope')).messageId)).toBe(idOf(sent.messageAccepted!.messageId))
  await Promise.all([from.close(), to.close()])
})

it('maxOutstandingAllowsGaps: one missing ack among 512 does not block the other 255', async () => {
  const users = await pair(relay)
  const to = await users.bob.live()
  const ids = await commit(users, 2 * WINDOW_MAX_MESSAGES)
  const got: number[] = []
  const acks: Promise<void>[] = []
  for (let i = 0; i < ids.length; i++) {
    const envelope = await to.next('envelope')
    got.push(numberOf(envelope.ciphertext?.content))
    if (i > 0) acks.push(to.ack(envelope.messageId))
  }
  expect(got).toEqual(ids.map((_, i) => i))
  await Promise.all(acks)
  expect(await waitingFor(relay.db.database.sql, users.bob)).toEqual([ids[0]])
  await to.close()
})

it('a client that never acks: 256 and no more, others get theirs, and nothing is lost for it', async () => {
  const users = await pair(relay)
  const { alice, bob, conversation } = users
  const carol = await Client.register(relay)
  const beside = await alice.direct(carol)
  const [from, never, well] = [await alice.live(), await bob.live(), await carol.live()]
  for (let i = 0; i < 400; i += 50) {
    await Promise.all(Array.from({ length: 50 }, () => from.send(conversation, [bob.to()])))
    const { messageAccepted } = await from.send(beside, [carol.to()])
    const envelope = await well.next('envelope')
    expect(envelope.messageId).toEqual(messageAccepted?.messageId)
    await well.ack(envelope.messageId)
  }
  await take(never, WINDOW_MAX_MESSAGES)
  await never.fence()
  expect(never.envelopes()).toEqual([])
  await never.close()
  const again = await bob.connect()
  expect((await again.drain()).length).toBe(400)
  await Promise.all([from.close(), again.close(), well.close()])
})

it('acks of what was never sent here open nothing', async () => {
  const users = await pair(relay)
  const to = await users.bob.live()
  const ids = await commit(users, WINDOW_MAX_MESSAGES + 5)
  await take(to, WINDOW_MAX_MESSAGES)
  await to.ack(...Array.from({ length: 50 }, () => crypto.getRandomValues(new Uint8Array(16))))
  await to.fence()
  expect(to.envelopes()).toEqual([])
  // The second ack of an id frees no second slot.
  const twice = uuidToBytes(ids[3]!)
  await to.ack(twice, twice)
  await to.ack(twice)
  await take(to, 1)
  await to.fence()
  expect(to.envelopes()).toEqual([])
  await to.close()
})
