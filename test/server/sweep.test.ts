// What the sweep takes and what it leaves, by the clock it is given. I2 I3
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { uuidV7 } from '../../proto/ids.ts'
import { openObserve } from '../../server/observe.ts'
import { makePartitions } from '../../server/partitions.ts'
import type { RosterDevice } from '../../server/rosters.ts'
import { Statuses } from '../../server/statuses.ts'
import { idAt, keepSweeping, sweep } from '../../server/sweep.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { type Node, openNode, queueFaults, sendTo, waitingRows } from '../support/node.ts'
import { converse, populate } from '../support/population.ts'
import { holdLocks } from './barrier.ts'

const DAY = 24 * 3600 * 1000
const TTL = 30 * DAY
const START = Date.now()

let db: TestDatabase
let node: Node
let nowMs = START
const observe = openObserve({ level: 'silent', format: 'json', write: () => {} })
beforeAll(async () => {
  db = await testDatabase({ lockMs: 60_000 })
  node = openNode(db.url, { clock: () => nowMs })
})
afterAll(async () => {
  await node?.close()
  await db?.close()
})
// Rounds far ahead drop the day partition that acks of today need.
beforeEach(() => makePartitions(db.database.sql, Date.now()))
afterEach(async () => {
  nowMs = START
  expect(await queueFaults(db.database.sql, false)).toEqual([])
})

const sweepAt = (ms: number, ttlMs = TTL) => sweep({ sql: db.database.sql, observe, clock: () => ms, ttlMs })
async function pair() {
  const people = await populate(db.database.sql, 2)
  const conversation = await converse(db.database.sql, people)
  const [from, to] = people.map((each) => each.devices[0]!)
  const sendAt = (ms: number) => {
    nowMs = ms
    return node.send(from!, sendTo(conversation, [to!]))
  }
  return { conversation, from: from!, to: to!, sendAt }
}
const gapOf = async (to: RosterDevice) => (await node.queue.page(to.deviceKey, 0, 10, 1e6)).gap
const messageExists = async (id: string) =>
  (await db.database.sql`select 1 from messages where message_id = ${id}`).length === 1

describe('waiting envelopes', () => {
  it('older than the ttl go and are counted in the gap; younger ones stay where they are', async () => {
    const { to, sendAt } = await pair()
    for (const days of [0, 0, 1, 2]) await sendAt(START + days * DAY)
    await sweepAt(START + TTL - 1000)
    expect(await waitingRows(db.database.sql, to.deviceKey)).toHaveLength(4)
    expect(await gapOf(to)).toBe(null)
    await sweepAt(START + TTL + 1000)
    expect((await waitingRows(db.database.sql, to.deviceKey)).map((row) => row.sequence)).toEqual([3, 4])
    const first = (await gapOf(to))!
    expect(first).toMatchObject({ expired: 2, overflowed: 0 })
    await sweepAt(START + TTL + DAY + 1000)
    const second = (await gapOf(to))!
    expect(second.expired).toBe(3)
    expect(second.gapId).not.toBe(first.gapId)
    // New mail takes the next number: the numbers of what expired are not given again.
    expect((await sendAt(START + 3 * DAY)).committed[0]!.delivery.sequence).toBe(5)
  })

  it('are left to the next round when the relay goes: it waits for the slice under way, not for the rest', async () => {
    const [one, two] = [await pair(), await pair()]
    await one.sendAt(START)
    await two.sendAt(START)
    const { sql } = db.database
    const held = await holdLocks(
      sql,
      (tx) => tx`select 1 from device_locks where device_key = ${one.to.deviceKey} for update`,
    )
    // The clocks have to agree, or nothing is swept: instead, what waits lives no time at all.
    const sweeping = keepSweeping({ sql, observe, clock: () => Date.now() + 60_000, ttlMs: 0 })
    await sweeping.ready
    await held.waiting(1)
    const stopped = sweeping.stop()
    await held.release()
    await stopped
    expect(await waitingRows(sql, one.to.deviceKey)).toHaveLength(0)
    expect(await waitingRows(sql, two.to.deviceKey)).toHaveLength(1)
    await sweepAt(Date.now() + 60_000, 0)
  })

  it('of thousands of devices, in slices', async () => {
    const people = await populate(db.database.sql, 1100)
    const { sql } = db.database
    const old = uuidV7(START - 31 * DAY)
    await sql`insert into messages (message_id, sender_type, sent_at) values (${old}, 2, now())`
    const keys = people.flatMap((each) => each.devices.map((device) => device.deviceKey))
    await sql`insert into message_deliveries_waiting (device_key, sequence, message_id) select k, 1, ${old} from unnest(${keys}::bigint[]) k`
    await sql`update device_sequences set last = 1 where device_key = any(${keys}::bigint[])`
    expect((await sweepAt(START)).expired).toBe(1100)
  })

  it('of one device beyond a slice go in the same round', async () => {
    const { to, from, conversation } = await pair()
    const { sql } = db.database
    const ids = Array.from({ length: 2500 }, () => uuidV7(START - 40 * DAY)).sort()
    await sql`insert into messages (message_id, conversation_id, sender_type, sender_user_id, sender_device_key, client_message_id, sent_at)
      select i, ${conversation}, 1, ${from.userId}, ${from.deviceKey}, gen_random_uuid(), now() from unnest(${ids}::uuid[]) i`
    await sql`insert into message_deliveries_waiting (device_key, sequence, message_id)
      select ${to.deviceKey}, n, i from unnest(${ids}::uuid[]) with ordinality x(i, n)`
    await sql`update device_sequences set last = 2500 where device_key = ${to.deviceKey}`
    expect((await sweepAt(START)).expired).toBe(2500)
    expect((await gapOf(to))!.expired).toBe(2500)
  })

  it('are ended once when they are acked at the same moment, and nothing deadlocks', async () => {
    const { to, sendAt } = await pair()
    for (let i = 0; i < 40; i++) await sendAt(START)
    // Acks of every second one wait for the first row; the sweep runs into what they hold.
    const held = await holdLocks(
      db.database.sql,
      (tx) => tx`select 1 from message_deliveries_waiting
      where device_key = ${to.deviceKey} and sequence = 1 for update`,
    )
    const odd = Array.from({ length: 20 }, (_, i) => ({ deviceKey: to.deviceKey, sequence: 2 * i + 1 }))
    const acking = node.acks.end(odd)
    await held.waiting(1)
    const sweeping = sweepAt(START + TTL + 1000)
    await held.waiting(2)
    await held.release()
    await acking
    expect((await sweeping).expired).toBe(20)
    expect((await gapOf(to))!.expired).toBe(20)
    expect(await waitingRows(db.database.sql, to.deviceKey)).toEqual([])
  })

  it('that come while it sweeps are left alone', async () => {
    const { to, sendAt } = await pair()
    await sendAt(START)
    const held = await holdLocks(
      db.database.sql,
      (tx) => tx`select 1 from device_locks where device_key = ${to.deviceKey} for update`,
    )
    const sending = sendAt(START + TTL)
    await held.waiting(1)
    const sweeping = sweepAt(START + TTL + 1000)
    await held.waiting(2)
    await held.release()
    await Promise.all([sending, sweeping])
    expect((await waitingRows(db.database.sql, to.deviceKey)).map((row) => row.sequence)).toEqual([2])
  })
})

describe('the memory of sent messages', () => {
  it('is kept for as long as a copy may wait and a day, at least: a retry within it is still the first answer (I2)', async () => {
    const { conversation, from, to } = await pair()
    const send = sendTo(conversation, [to])
    const first = await node.send(from, send)
    await node.acks.end([{ deviceKey: to.deviceKey, sequence: 1 }])
    await sweepAt(START + TTL + DAY - 60_000)
    expect(await node.send(from, send)).toMatchObject({ messageId: first.messageId, duplicate: true })
    await sweepAt(START + TTL + DAY + 60_000)
    expect(await messageExists(first.messageId)).toBe(false)
  })

  it('is at least seven days with a short ttl', async () => {
    const { conversation, from, to } = await pair()
    const send = sendTo(conversation, [to])
    const first = await node.send(from, send)
    await sweepAt(START + 7 * DAY, DAY)
    expect(await waitingRows(db.database.sql, to.deviceKey)).toEqual([])
    expect(await node.send(from, send)).toMatchObject({ messageId: first.messageId, duplicate: true })
    await sweepAt(START + 8 * DAY + 60_000, DAY)
    expect(await messageExists(first.messageId)).toBe(false)
  })

  it('is never forgotten while a copy waits: what waits behind a younger head is found too', async () => {
    const { to, sendAt } = await pair()
    // Ids are made when a send is taken, sequences when it commits: a queue's head may be a little younger than what follows.
    await sendAt(START + 30_000)
    const older = await sendAt(START)
    await sweepAt(START + TTL + 15_000)
    expect(await messageExists(older.messageId)).toBe(true)
    await sweepAt(START + TTL + 45_000)
    expect(await waitingRows(db.database.sql, to.deviceKey)).toEqual([])
    expect((await gapOf(to))!.expired).toBe(2)
  })
})

it('makes the coming days and drops those past, by its clock', async () => {
  const { sql } = db.database
  await sweepAt(START)
  await sweepAt(START + 50 * DAY)
  const rows = await sql<
    { name: string }[]
  >`select relname as name from pg_class where relname ~ '^message_deliveries_\\d{8}$' order by 1`
  const day = (ms: number) => `message_deliveries_${new Date(ms).toISOString().slice(0, 10).replaceAll('-', '')}`
  const names = rows.map((row) => row.name)
  expect(names.filter((name) => name >= day(START + 50 * DAY))).toEqual(
    Array.from({ length: 8 }, (_, i) => day(START + (50 + i) * DAY)),
  )
  expect(names.filter((name) => name < day(START + 19 * DAY))).toEqual([])
})

it('who has a message is counted for as long as the message is remembered, also with a short ttl [G-3.3]', async () => {
  const { conversation, from, to } = await pair()
  const { messageId } = await node.send(from, sendTo(conversation, [to]))
  await node.acks.end([{ deviceKey: to.deviceKey, sequence: 1 }])
  const statuses = new Statuses(db.database.reader)
  const delivered = async () =>
    (await statuses.count([{ messageId, userId: from.userId }])).map((each) => each.delivered)
  expect(await delivered()).toEqual([1])
  await sweepAt(START + 7 * DAY, DAY)
  expect(await delivered()).toEqual([1])
  await sweepAt(START + 9 * DAY, DAY)
  expect(await delivered()).toEqual([])
})

it('idAt is the least id of its millisecond', () => {
  const at = idAt(START)
  for (let i = 0; i < 100; i++) expect(uuidV7(START) >= at && uuidV7(START - 1) < at).toBe(true)
})
