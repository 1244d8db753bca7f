// The day partitions: made ahead, dropped when old, never in the way of the waiting one.
import { afterEach, beforeEach, expect, it } from 'vitest'
import { dropPartitions, makePartitions } from '../../server/partitions.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { openNode, sendTo, waitingRows } from '../support/node.ts'
import { converse, populate } from '../support/population.ts'
import { holdLocks } from './barrier.ts'

const DAY = 24 * 3600 * 1000

let db: TestDatabase
beforeEach(async () => {
  db = await testDatabase({ lockMs: 60_000 })
})
afterEach(() => db?.close())

const partitions = async () =>
  (
    await db.database.sql<
      { name: string }[]
    >`select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'message_deliveries'::regclass order by 1`
  ).map((row) => row.name.replace('message_deliveries_', ''))

it('are made for today and seven days ahead, in UTC, again and again without harm', async () => {
  const { sql } = db.database
  // Those of the database's own days are there from now on.
  await makePartitions(sql, Date.now())
  const own = (await partitions()).filter((each) => each !== 'waiting')
  const justBefore = Date.UTC(2026, 11, 31, 23, 59, 59, 999)
  await makePartitions(sql, justBefore)
  const days = ['20261231', '20270101', '20270102', '20270103', '20270104', '20270105', '20270106', '20270107']
  expect(await partitions()).toEqual([...new Set([...own, ...days]), 'waiting'].sort())
  await makePartitions(sql, justBefore)
  await makePartitions(sql, justBefore + 1)
  expect(await partitions()).toEqual([...new Set([...own, ...days, '20270108']), 'waiting'].sort())
})

it('are made once by nodes that start together', async () => {
  const other = openNode(db.url)
  await Promise.all(
    Array.from({ length: 6 }, (_, i) => makePartitions(i % 2 ? other.database.sql : db.database.sql, Date.now())),
  )
  expect(await partitions()).toHaveLength(9)
  await other.close()
})

it('are there right after midnight: a relay that swept for the last time a week ago still acks', async () => {
  const { sql } = db.database
  await makePartitions(sql, Date.now() - 7 * DAY)
  const node = openNode(db.url)
  const people = await populate(sql, 2)
  const conversation = await converse(sql, people)
  const [from, to] = people.map((each) => each.devices[0]!)
  await node.send(from!, sendTo(conversation, [to!]))
  await node.acks.end([{ deviceKey: to!.deviceKey, sequence: 1 }])
  expect(await waitingRows(sql, to!.deviceKey)).toEqual([])
  await node.close()
})

it('are dropped with what is older than asked, the waiting one never', async () => {
  const { sql } = db.database
  const now = Date.UTC(2026, 5, 30, 12)
  for (const days of [40, 31, 0]) await makePartitions(sql, now - days * DAY)
  const dropped = await dropPartitions(sql, now, 31 * DAY)
  expect(dropped[0]).toBe('message_deliveries_20260521')
  expect(dropped.at(-1)).toBe('message_deliveries_20260528')
  const left = await partitions()
  expect(left[0]).toBe('20260530')
  expect(left.at(-1)).toBe('waiting')
  expect(await dropPartitions(sql, now, 31 * DAY)).toEqual([])
  const [gone] = await sql`select to_regclass('message_deliveries_20260528') as name`
  expect(gone!.name).toBe(null)
})

it('a drop that waits for an old transaction stops neither sends nor acks, and one cut off in the middle is finished later', async () => {
  const { sql } = db.database
  const now = Date.now()
  await makePartitions(sql, now - 40 * DAY)
  await makePartitions(sql, now)
  const node = openNode(db.url)
  const people = await populate(sql, 2)
  const conversation = await converse(sql, people)
  const [from, to] = people.map((each) => each.devices[0]!)
  await node.send(from!, sendTo(conversation, [to!]))
  // Somebody reads all partitions in a transaction that stays open, as a backup does.
  const held = await holdLocks(sql, (tx) => tx`select count(*) from message_deliveries`)
  const dropping = dropPartitions(sql, now, 31 * DAY).catch((error) => error)
  const [pid] = await held.waiting(1)
  await node.send(from!, sendTo(conversation, [to!]))
  await node.acks.end([{ deviceKey: to!.deviceKey, sequence: 1 }])
  await sql`select pg_terminate_backend(${pid!})`
  await dropping
  await held.release()
  const before = await partitions()
  const dropped = await dropPartitions(sql, now, 31 * DAY)
  expect(dropped.length).toBeGreaterThan(0)
  expect(await partitions()).toEqual(before.filter((name) => !dropped.includes(`message_deliveries_${name}`)))
  expect(await waitingRows(sql, to!.deviceKey)).toHaveLength(1)
  await node.close()
})
