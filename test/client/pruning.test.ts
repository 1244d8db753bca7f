// Private halves of one-time keys: kept for as long as a message made with them may come, and no longer.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Device, MemoryStorage } from '../../client/index.ts'
import { GONE_FOR_MS, noteStock } from '../../client/stock.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, live, quiet, say, shown } from '../support/sdk.ts'

const DAY_MS = 24 * 3_600_000
const DAYS = GONE_FOR_MS / DAY_MS

let relay: TestRelay
let laterMs = 0
beforeAll(async () => {
  relay = await testRelay({ clock: () => Date.now() + laterMs })
})
afterAll(() => relay.close())

describe('what is gone', () => {
  const day = (n: number) => 1_780_000_000_000 + n * DAY_MS
  const stock = (oldest: number | null, highest: number | null) => ({
    one_time: { oldest_id: oldest, highest_id: highest },
    kyber_one_time: { oldest_id: oldest === null ? null : oldest + 1, highest_id: highest },
  })
  /** Notes on the given days, in order; what the last of them lets go. */
  function notes(...all: [atMs: number, counts: ReturnType<typeof stock>, registrationId?: number][]) {
    const storage = new MemoryStorage()
    return all.map(([atMs, counts, id = 7]) => storage.transaction((tx) => noteStock(tx, counts, id, atMs))).at(-1)
  }

  it('is forgotten 90 days after it was seen to be gone, and what is in stock never', () => {
    const first = [day(0), stock(11, 100)] as [number, ReturnType<typeof stock>]
    expect(notes(first, [day(DAYS), stock(90, 100)])).toBe(null)
    expect(notes(first, [day(DAYS + 1), stock(90, 100)])).toEqual({ oneTime: 11, kyberOneTime: 12 })
  })

  it('is all of it when the stock is empty, and nothing when nothing was ever there', () => {
    expect(notes([day(0), stock(null, 100)], [day(DAYS + 1), stock(101, 200)])).toEqual({
      oneTime: 101,
      kyberOneTime: 101,
    })
    expect(notes([day(0), stock(null, null)], [day(DAYS + 1), stock(1, 100)])).toEqual({ oneTime: 0, kyberOneTime: 0 })
  })

  it('is noted once a week, so that the newest note that is old enough counts', () => {
    const days = Array.from(
      { length: DAYS + 20 },
      (_, n) => [day(n), stock(n + 1, 500)] as [number, ReturnType<typeof stock>],
    )
    // Noted on days 0, 7, 14, …; on day 109 those up to day 18 are old enough.
    expect(notes(...days)).toBe(null)
    expect(notes(...days.slice(0, 15), [day(DAYS + 15), stock(200, 500)])).toEqual({ oneTime: 15, kyberOneTime: 16 })
  })

  it('counts for the device it was noted for, and not when a clock from the future noted it', () => {
    expect(notes([day(0), stock(11, 100), 7], [day(DAYS + 1), stock(1, 100), 8])).toBe(null)
    expect(notes([day(400), stock(11, 100)], [day(0), stock(12, 100)], [day(401), stock(1, 100)])).toEqual({
      oneTime: 12,
      kyberOneTime: 13,
    })
  })
})

it('halves of keys that left are kept for messages that come late, and deleted when none can come any more', async () => {
  const storage = new MemoryStorage()
  const halves = () =>
    storage.transaction((tx) =>
      ['crypto.prekeys', 'crypto.kyber'].map((table) =>
        tx
          .scan(table)
          // The last-resort key is not a one-time key.
          .filter(({ value }) => table === 'crypto.prekeys' || value[0] === 0)
          .map(({ key }) => Number(key))
          .sort((a, b) => a - b),
      ),
    ) as [number[], number[]]
  const { sql } = relay.db.database
  let bob = await joined(relay, { storage, time: new FakeTime() })
  const later = async (days: number): Promise<Device> => {
    laterMs += days * DAY_MS
    bob = await live(device(relay, { storage, time: new FakeTime(Date.now() + laterMs) }))
    await quiet(bob)
    return bob
  }
  await quiet(bob)
  bob.disconnect()
  // Alice takes the first keys and writes; nearly all others go to people who never write.
  const alice = await joined(relay)
  const conversation = await alice.conversations.direct(bob.userId)
  await say(alice, conversation, 'with your first keys')
  const bobs = sql`select device_key from devices where user_id = ${bob.userId}`
  await sql`delete from keys.one_time_prekeys where key_id <= 95 and device_key in (${bobs})`
  await sql`delete from keys.kyber_prekeys where key_id between 2 and 90 and not last_resort and device_key in (${bobs})`

  await later(29)
  await shown(bob, conversation, 'with your first keys')
  bob.disconnect()
  // Alice's are used up; the rest is kept, and new ones were made.
  let [ec, kyber] = halves()
  expect([ec[0], ec.length, kyber[0], kyber.length]).toEqual([2, 199, 3, 199])

  await later(DAYS - 1)
  bob.disconnect()
  expect(halves()[0]![0]).toBe(2)
  await later(2)
  ;[ec, kyber] = halves()
  expect([ec[0], kyber[0]]).toEqual([96, 91])
  // What is in stock can be used as ever.
  const carol = await joined(relay, { time: new FakeTime(Date.now() + laterMs) })
  const other = await carol.conversations.direct(bob.userId)
  await say(carol, other, 'with your oldest keys')
  await shown(bob, other, 'with your oldest keys')
  expect(halves()[0]![0]).toBe(97)
  bob.disconnect()
  for (const each of [alice, carol]) each.disconnect()
})

it('halves of replaced signed keys stay while only the relay says that they are old', async () => {
  const storage = new MemoryStorage()
  const time = new FakeTime(Date.now() + laterMs)
  const signed = () => storage.transaction((tx) => tx.scan('crypto.signed').length)
  const bob = await joined(relay, { storage, time })
  await quiet(bob)
  bob.disconnect()
  for (const kept of [2, 3]) {
    laterMs += 2 * GONE_FOR_MS
    const again = await live(device(relay, { storage, time }))
    await quiet(again)
    expect(signed()).toBe(kept)
    again.disconnect()
  }
  // Its own clock says so, too.
  laterMs += 2 * GONE_FOR_MS
  const late = await live(device(relay, { storage, time: new FakeTime(Date.now() + laterMs) }))
  await quiet(late)
  expect(signed()).toBeLessThan(4)
  late.disconnect()
})
