// Expiry as a device meets it: what is too old is gone, the gap says how much, the rest is there. D5
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { openObserve } from '../../server/observe.ts'
import { sweep } from '../../server/sweep.ts'
import { Client, idOf } from '../support/client.ts'
import { pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const DAY = 24 * 3600 * 1000
const TTL = 30 * DAY
const MINUTE = 60_000

let relay: TestRelay
let nowMs = Date.now()
beforeAll(async () => {
  relay = await testRelay({ clock: () => nowMs })
})
afterAll(() => relay?.close())
beforeEach(() => {
  nowMs = Date.now()
})

const observe = openObserve({ level: 'silent', format: 'json', write: () => {} })
/** What a relay does every hour, at another hour. */
const sweepAt = (ms: number) => sweep({ sql: relay.db.database.sql, observe, clock: () => ms, ttlMs: TTL })

it('messages older than 30 days vanish, younger ones stay, and the gap tells how many, until it is acked', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const from = await alice.live()
  const began = nowMs
  const send = async (at: number) => {
    nowMs = at
    return idOf((await from.send(conversation, [bob.to()])).messageAccepted!.messageId)
  }
  await send(began)
  await send(began + 1)
  const young = await send(began + 10 * MINUTE)
  await sweepAt(began + TTL + MINUTE)

  nowMs = began
  const to = await bob.connect()
  expect(to.hello.queueWaiting).toBe(true)
  const page = await to.sync()
  expect(page.messages!.map((each) => idOf(each.messageId))).toEqual([young])
  expect(page.gap).toMatchObject({ expired: 2, overflowed: 0 })
  await to.next('queueEmpty')
  await to.ack(page.gap!.gapId)
  expect((await to.sync()).gap).toBeFalsy()
  await Promise.all([from.close(), to.close()])
})

it('everything expired: the device is still told to sync, finds an empty page with the gap, and goes live', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const from = await alice.live()
  for (let i = 0; i < 3; i++) await from.send(conversation, [bob.to()])
  await sweepAt(nowMs + TTL + MINUTE)
  const to = await bob.connect()
  expect(to.hello.queueWaiting).toBe(true)
  expect(await to.sync()).toMatchObject({ messages: [], hasMore: false, gap: { expired: 3 } })
  await to.next('queueEmpty')
  const next = await from.send(conversation, [bob.to()])
  const envelope = await to.next('envelope')
  expect(envelope.messageId).toEqual(next.messageAccepted!.messageId)
  await Promise.all([from.close(), to.close()])
})

it('an envelope that expires on a live connection can still be acked: no error, nothing twice', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const [from, to] = [await alice.live(), await bob.live()]
  await from.send(conversation, [bob.to()])
  const first = await to.next('envelope')
  await sweepAt(nowMs + TTL + MINUTE)
  await to.ack(first.messageId)
  await from.send(conversation, [bob.to()])
  expect((await to.next('envelope')).sequence).toBe((first.sequence as number) + 1)
  await to.fence()
  expect(to.envelopes()).toEqual([])
  await Promise.all([from.close(), to.close()])
})

it('a page whose cursor expired meanwhile: nothing that waits is skipped', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const from = await alice.live()
  const began = nowMs
  const ids: string[] = []
  for (let i = 0; i < 6; i++) {
    nowMs = began + i * 10 * MINUTE
    ids.push(idOf((await from.send(conversation, [bob.to()])).messageAccepted!.messageId))
  }
  nowMs = began
  const to = await bob.connect()
  const first = await to.sync(null, 2)
  expect(first.hasMore).toBe(true)
  await sweepAt(began + TTL + 15 * MINUTE)
  const rest = await to.sync(first.messages!.at(-1)!.messageId)
  expect(rest.messages!.map((each) => idOf(each.messageId))).toEqual(ids.slice(2))
  // Another connection has never seen the cursor: unknown means from the start.
  const again = await bob.connect()
  const all = await again.sync(first.messages![0]!.messageId)
  expect(all.messages!.map((each) => idOf(each.messageId))).toEqual(ids.slice(2))
  expect(all.gap).toMatchObject({ expired: 2 })
  await Promise.all([from.close(), again.close()])
})

it('system events expire like everything else', async () => {
  const [alice, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
  await alice.direct(bob)
  await sweepAt(nowMs + TTL + MINUTE)
  const to = await bob.connect()
  expect(await to.sync()).toMatchObject({ messages: [], gap: { expired: 1 } })
  await to.close()
})
