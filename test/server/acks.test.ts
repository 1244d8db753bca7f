// Acks on the real database: what they end, what they leave, and that they never stand in each other's way. I3
import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { openDatabase } from '../../server/database.ts'
import { makePartitions } from '../../server/partitions.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { type Node, openNode, queueFaults, sendTo, waitingRows } from '../support/node.ts'
import { converse, populate } from '../support/population.ts'
import { holdLocks } from './barrier.ts'
import { openWorld } from './relay-world.ts'

let db: TestDatabase
let node: Node
let other: Node
beforeAll(async () => {
  db = await testDatabase({ lockMs: 60_000 })
  await makePartitions(db.database.sql, Date.now())
  node = openNode(db.url)
  other = openNode(db.url)
})
afterAll(async () => {
  await Promise.all([node?.close(), other?.close()])
  await db?.close()
})
afterEach(async () => {
  expect(await queueFaults(db.database.sql)).toEqual([])
})

/** A device with messages waiting, as rows ascending. */
async function queueOf(messages: number) {
  const people = await populate(db.database.sql, 2)
  const conversation = await converse(db.database.sql, people)
  const [from, to] = people.map((each) => each.devices[0]!)
  await Promise.all(Array.from({ length: messages }, () => node.send(from!, sendTo(conversation, [to!]))))
  return { conversation, from: from!, to: to!, rows: await waitingRows(db.database.sql, to!.deviceKey) }
}
const acked = (deviceKey: number, ...sequences: number[]) => sequences.map((sequence) => ({ deviceKey, sequence }))
const delivered = (deviceKey: number) => db.database.sql`
  select sequence, message_id, content, iv, delivered_on = (now() at time zone 'utc')::date as today
  from message_deliveries where device_key = ${deviceKey} and delivered_on is not null order by sequence`

describe('ending deliveries', () => {
  it.each(['by sequence', 'by id'])(
    '%s: the row moves to the day’s partition, its ciphertext is gone, the rest waits',
    async (how) => {
      const { to, rows } = await queueOf(3)
      const middle = rows[1]!
      if (how === 'by id') await node.acks.endByIds(to.deviceKey, [middle.message_id])
      else await node.acks.end(acked(to.deviceKey, middle.sequence))
      expect((await waitingRows(db.database.sql, to.deviceKey)).map((row) => row.sequence)).toEqual([1, 3])
      expect(await delivered(to.deviceKey)).toEqual([
        { sequence: 2, message_id: middle.message_id, content: null, iv: null, today: true },
      ])
    },
  )

  it('again, of unknown and of foreign ids changes nothing and is no error', async () => {
    const [mine, theirs] = [await queueOf(2), await queueOf(2)]
    const { deviceKey } = mine.to
    const before = await waitingRows(db.database.sql, theirs.to.deviceKey)
    await node.acks.endByIds(deviceKey, [theirs.rows[0]!.message_id, randomUUID(), mine.rows[0]!.message_id])
    await node.acks.endByIds(deviceKey, [mine.rows[0]!.message_id, mine.rows[0]!.message_id])
    await node.acks.end(acked(deviceKey, 1, 1, 77))
    await Promise.all([node.acks.end([]), node.acks.endByIds(deviceKey, [])])
    expect(await waitingRows(db.database.sql, theirs.to.deviceKey)).toEqual(before)
    expect(await waitingRows(db.database.sql, deviceKey)).toHaveLength(1)
    expect(await delivered(deviceKey)).toHaveLength(1)
  })

  it('of one row from four connections at once ends it once', async () => {
    const { to, rows } = await queueOf(50)
    const sequences = rows.map((row) => row.sequence)
    const ids = rows.map((row) => row.message_id)
    await Promise.all([
      node.acks.end(acked(to.deviceKey, ...sequences)),
      other.acks.end(acked(to.deviceKey, ...[...sequences].reverse())),
      node.acks.endByIds(to.deviceKey, ids),
      other.acks.endByIds(to.deviceKey, [...ids].reverse()),
    ])
    expect(await waitingRows(db.database.sql, to.deviceKey)).toEqual([])
    expect((await delivered(to.deviceKey)).map((row) => row.sequence)).toEqual(sequences)
  })

  /** The first of the queue comes second in the table, as after a vacuum; each row is held by somebody else. */
  async function crossed(deviceKey: number) {
    const { sql } = db.database
    await sql`delete from message_deliveries_waiting where device_key = ${deviceKey}`
    await sql`update device_sequences set last = 2 where device_key = ${deviceKey}`
    const ids = [randomUUID(), randomUUID()]
    await sql`insert into messages (message_id, sender_type, sent_at) select i, 2, now() from unnest(${ids}::uuid[]) i`
    for (const sequence of [2, 1])
      await sql`insert into message_deliveries_waiting (device_key, sequence, message_id) values (${deviceKey}, ${sequence}, ${ids[sequence - 1]!})`
    const lock = (sequence: number) =>
      holdLocks(
        sql,
        (tx) => tx`select 1 from message_deliveries_waiting
          where device_key = ${deviceKey} and sequence = ${sequence} for update`,
      )
    return { ids, first: await lock(1), second: await lock(2) }
  }

  it.each(['an ack by id', 'an ack that finds a row gone'])(
    'never deadlock with %s, however the rows lie in the table',
    async (what) => {
      const { to } = await queueOf(0)
      const { ids, first, second } = await crossed(to.deviceKey)
      const one =
        what === 'an ack by id' ? node.acks.endByIds(to.deviceKey, ids) : node.acks.end(acked(to.deviceKey, 1, 2))
      await first.waiting(1)
      const two = other.acks.end(acked(to.deviceKey, 1, 2))
      await first.waiting(2)
      await first.release()
      await second.release()
      await Promise.all([one, two])
      expect(await waitingRows(db.database.sql, to.deviceKey)).toEqual([])
    },
  )

  it('never deadlock with the unlinking of the device', async () => {
    // As the planner does it with a large table: along the queue, not along the table.
    const { sql } = db.database
    await sql.unsafe(`alter database ${new URL(db.url).pathname.slice(1)} set enable_bitmapscan = off`)
    const database = openDatabase(db.url)
    const world = await openWorld(database)
    const primary = await world.register()
    const linked = await world.link(primary)
    const { first, second } = await crossed(linked.caller.deviceKey)
    const unlinking = world.devices.unlink(primary.caller, linked.enrolled.deviceId, Date.now())
    await first.waiting(1)
    const ack = node.acks.end(acked(linked.caller.deviceKey, 1, 2))
    await first.waiting(2)
    await first.release()
    await second.release()
    await Promise.all([unlinking, ack])
    expect(await waitingRows(sql, linked.caller.deviceKey)).toEqual([])
    await database.close()
  })

  it('erases the ciphertext in the very commit that ends the delivery [Q-6.1]', async () => {
    const { sql } = db.database
    const { to, rows } = await queueOf(1)
    // While the ack is on its way nothing has changed for anybody.
    const held = await holdLocks(
      sql,
      (tx) => tx`select 1 from message_deliveries_waiting where device_key = ${to.deviceKey} for update`,
    )
    const ack = node.acks.end(acked(to.deviceKey, 1))
    await held.waiting(1)
    expect(await waitingRows(sql, to.deviceKey)).toEqual(rows)
    expect(await delivered(to.deviceKey)).toEqual([])
    await held.release()
    await ack
    expect(
      await sql`select 1 from message_deliveries where device_key = ${to.deviceKey} and content is not null`,
    ).toEqual([])
  })

  it('goes on while the queue’s lock is held by a send: acks take no part in it', async () => {
    const { to } = await queueOf(2)
    const held = await holdLocks(
      db.database.sql,
      (tx) => tx`select 1 from device_locks where device_key = ${to.deviceKey} for update`,
    )
    await node.acks.end(acked(to.deviceKey, 1))
    await held.release()
    expect(await waitingRows(db.database.sql, to.deviceKey)).toHaveLength(1)
  })

  it('tens of thousands of rows in one call', async () => {
    const { sql } = db.database
    const { from, to, conversation } = await queueOf(0)
    await sql`insert into messages (message_id, conversation_id, sender_type, sender_user_id, sender_device_key, sender_device_id, client_message_id, sent_at)
      select gen_random_uuid(), ${conversation}, 1, ${from.userId}, ${from.deviceKey}, 1, gen_random_uuid(), now() from generate_series(1, 12000)`
    await sql`insert into message_deliveries_waiting (device_key, sequence, message_id)
      select ${to.deviceKey}, row_number() over (), message_id from messages where conversation_id = ${conversation}`
    await sql`update device_sequences set last = 12000 where device_key = ${to.deviceKey}`
    await node.acks.end(acked(to.deviceKey, ...Array.from({ length: 12_000 }, (_, i) => i + 1)))
    expect(await waitingRows(sql, to.deviceKey)).toEqual([])
  })
})

describe('a gap', () => {
  it('ends by its id only, and only for its device', async () => {
    const { sql } = db.database
    const [mine, theirs] = [await queueOf(1), await queueOf(1)]
    const gapId = randomUUID()
    await sql`insert into gaps (device_key, gap_id, overflowed) values (${mine.to.deviceKey}, ${gapId}, 3)`
    await node.acks.endByIds(theirs.to.deviceKey, [gapId])
    await node.acks.endByIds(mine.to.deviceKey, [randomUUID()])
    expect((await node.queue.page(mine.to.deviceKey, 0, 10, 1e6)).gap).toMatchObject({ gapId, overflowed: 3 })
    await node.acks.endByIds(mine.to.deviceKey, [gapId])
    expect((await node.queue.page(mine.to.deviceKey, 0, 10, 1e6)).gap).toBe(null)
    expect(await waitingRows(sql, mine.to.deviceKey)).toHaveLength(1)
  })
})

it('when the database fails, every waiting ack is told, and the next ones work', async () => {
  const { sql } = db.database
  const { to } = await queueOf(3)
  const held = await holdLocks(
    sql,
    (tx) => tx`select 1 from message_deliveries_waiting where device_key = ${to.deviceKey} for update`,
  )
  const first = Promise.allSettled([node.acks.end(acked(to.deviceKey, 1))])
  const [pid] = await held.waiting(1)
  const second = Promise.allSettled([node.acks.end(acked(to.deviceKey, 2))])
  await sql`select pg_terminate_backend(${pid!})`
  await held.release()
  expect(await first).toMatchObject([{ status: 'rejected' }])
  await second
  await node.acks.end(acked(to.deviceKey, 1, 2, 3))
  expect(await waitingRows(sql, to.deviceKey)).toEqual([])
})
