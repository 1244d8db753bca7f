// The plans of the hot statements when the queue tables look empty to the planner and hold a million dead rows: index paths only,
// and few pages read. The statements are the relay's own, run with the settings of its pools; auto_explain reports their plans.
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { uuidV7 } from '../../proto/ids.ts'
import { Acks } from '../../server/acks.ts'
import { append } from '../../server/append.ts'
import { route } from '../../server/authorize.ts'
import { type Database, openDatabase, type Sql } from '../../server/database.ts'
import { enqueueEvent } from '../../server/events.ts'
import { makePartitions } from '../../server/partitions.ts'
import { Queue } from '../../server/queue.ts'
import { ReadMarks } from '../../server/read-marks.ts'
import { type Roster, Rosters } from '../../server/rosters.ts'
import { Statuses } from '../../server/statuses.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { sendTo } from '../support/node.ts'
import { conversations, type Person, populate } from '../support/population.ts'

/** Devices the dead rows are spread over, 500 each: as after a busy hour without vacuum. */
const DEVICES = 2000
const DEAD = 1_000_000
const QUEUE_TABLES = [
  'message_deliveries_waiting',
  'device_sequences',
  'device_locks',
  'messages',
  'gaps',
  'keys.devices',
  'devices',
]
const DAY = /^message_deliveries_\d{8}$/

type Plan = {
  'Node Type': string
  'Relation Name'?: string
  Plans?: Plan[]
  'Shared Hit Blocks'?: number
  'Shared Read Blocks'?: number
}
type Explained = { query: string; plan: Plan }

const PINNED = 'with a snapshot from before the deletes open: every dead row is walked over whenever it is met'
const RELEASED = 'with nobody looking'

let db: TestDatabase
let release = async () => {}
let database: Database
let people: Person[]
let pairs: string[]
const plans: Explained[] = []
const opened: Sql[] = []

/** One connection with exactly what the given pool of the relay sets, whose plans are reported. */
async function explaining(pool: Sql): Promise<Sql> {
  const settings = await pool<{ name: string; setting: string; unit: string | null }[]>`
    select name, setting, unit from pg_settings where source = 'client' and context = 'user'`
  const sql = postgres<{ bigint: postgres.PostgresType<number> }>(db.url, {
    max: 1,
    types: { bigint: { to: 20, from: [20], serialize: String, parse: Number } },
    connection: Object.fromEntries(
      settings.map(({ name, setting, unit }) => [name, unit ? `${setting}${unit}` : setting]),
    ),
    onnotice: (notice) => {
      const text = notice.message?.match(/plan:\n([\s\S]*)/)?.[1]
      if (!text) return
      const explained = JSON.parse(text) as { 'Query Text': string; Plan: Plan }
      plans.push({ query: explained['Query Text'], plan: explained.Plan })
    },
  })
  await sql.unsafe(`load 'auto_explain'; set auto_explain.log_level = notice; set auto_explain.log_format = json;
    set auto_explain.log_nested_statements = on; set auto_explain.log_analyze = on; set auto_explain.log_buffers = on;
    set auto_explain.log_timing = off; set client_min_messages = notice; set auto_explain.log_min_duration = 0`)
  opened.push(sql)
  return sql
}

beforeAll(async () => {
  db = await testDatabase()
  database = openDatabase(db.url)
  const { sql } = db.database
  await makePartitions(sql, Date.now())
  people = await populate(sql, DEVICES)
  pairs = await conversations(
    sql,
    Array.from({ length: DEVICES / 2 }, (_, i) => [people[2 * i]!, people[2 * i + 1]!]),
    'direct',
  )
  const first = people[0]!.devices[0]!.deviceKey
  for (const table of ['message_deliveries_waiting', 'device_sequences'])
    await sql.unsafe(`alter table ${table} set (autovacuum_enabled = off)`)
  await sql.unsafe(`insert into message_deliveries_waiting (device_key, sequence, message_id)
    select ${first} + n % ${DEVICES}, n / ${DEVICES}, '00000000-0000-7000-8000-000000000000' from generate_series(0, ${DEAD - 1}) n`)
  await sql.unsafe(`insert into device_sequences (device_key, last)
    select ${first} + n % ${DEVICES}, 1 + n / ${DEVICES} from generate_series(0, ${DEAD - 1}) n`)
  release = await pin(sql)
  await sql`delete from message_deliveries_waiting`
  await sql`delete from device_sequences where last < 500`
  await sql`delete from device_sequences q using device_sequences n where n.device_key = q.device_key and n.last > q.last`
  // What autoanalyze believes once everything was acked.
  await sql`analyze`
  // Two million rows come and go: a quarter of a minute on a machine that does little else.
}, 180_000)
afterAll(async () => {
  await release()
  await Promise.all(opened.map((each) => each.end({ timeout: 5 })))
  await database?.close()
  await db?.close()
})

/** Holds a snapshot of now until released. */
async function pin(sql: Sql): Promise<() => Promise<void>> {
  let end!: () => void
  const ended = new Promise<void>((resolve) => {
    end = resolve
  })
  let begun!: () => void
  const began = new Promise<void>((resolve) => {
    begun = resolve
  })
  const transaction = sql.begin('isolation level repeatable read', async (tx) => {
    await tx`set local idle_in_transaction_session_timeout = 0`
    await tx`select count(*) from message_deliveries_waiting where false`
    begun()
    await ended
  })
  await began
  return async () => {
    end()
    await transaction
  }
}

const nodesOf = (plan: Plan): Plan[] => [plan, ...(plan.Plans ?? []).flatMap(nodesOf)]
/** Plans of the statements run since the last call. */
const explained = () => plans.splice(0)
const pages = (each: Explained) => (each.plan['Shared Hit Blocks'] ?? 0) + (each.plan['Shared Read Blocks'] ?? 0)

function expectIndexPaths(run: Explained[], touched: string[]) {
  const scans = run.flatMap(({ query, plan }) =>
    nodesOf(plan)
      .filter(({ 'Relation Name': name = '' }) => QUEUE_TABLES.includes(name) || DAY.test(name))
      .filter((node) => /Scan/.test(node['Node Type']))
      .map((node) => ({ table: node['Relation Name']!, how: node['Node Type'], query })),
  )
  for (const table of touched) expect(scans.map((scan) => scan.table)).toContain(table)
  expect(scans.filter(({ how }) => !/^(Index|Index Only|Tid|Tid Range) Scan$/.test(how))).toEqual([])
  const joins = run
    .flatMap(({ plan }) => nodesOf(plan).map((node) => node['Node Type']))
    .filter((type) => /^(Hash|Merge) Join$/.test(type))
  expect(joins).toEqual([])
}

describe.each([PINNED, RELEASED])('%s', (how) => {
  if (how === RELEASED) beforeAll(() => release())

  it('there are a million dead rows in both tables, and the planner thinks of them as empty or nearly so', async () => {
    const { sql } = db.database
    for (const table of ['message_deliveries_waiting', 'device_sequences']) {
      const [row] =
        await sql`select reltuples, pg_relation_size(${table}::regclass) as size from pg_class where oid = ${table}::regclass`
      expect(row!.reltuples).toBeLessThanOrEqual(DEVICES + 200)
      expect(row!.size).toBeGreaterThan(40e6)
    }
  })

  it('append_batch: every statement inside goes by index', async () => {
    const sql = await explaining(database.writer)
    const rosters = new Rosters(db.database.sql)
    const offset = how === PINNED ? 0 : 300
    const entries = await Promise.all(
      pairs.slice(offset, offset + 250).map(async (id, i) => {
        const roster = (await rosters.load(id)) as Roster
        const [from, to] = [people[2 * (i + offset)]!.devices[0]!, people[2 * (i + offset) + 1]!.devices[0]!]
        const send = sendTo(id, [to])
        return {
          sender: from,
          send,
          roster,
          ...route(from, send, roster),
          overflow: [],
          messageId: uuidV7(Date.now()),
        }
      }),
    )
    const batches = [entries.slice(0, 1), entries.slice(1)]
    for (const batch of batches) {
      explained()
      expect(await append(sql, batch, Date.now(), 10_000)).toMatchObject({ written: true })
      const run = explained()
      expectIndexPaths(run, ['device_sequences', 'device_locks', 'messages'])
      // Finding the last sequence of one device is a few pages, not its 500 dead predecessors.
      for (const each of run.filter(({ query }) => /from device_sequences q where/.test(query)))
        expect(pages(each) / batch.length).toBeLessThan(40)
    }
    // The rare ways too: a duplicate, and a queue that must be counted.
    explained()
    expect(await append(sql, entries.slice(0, 3), Date.now(), 10_000)).toMatchObject({ written: false })
    const again = entries.slice(3, 6).map((each) => ({
      ...each,
      messageId: uuidV7(Date.now()),
      send: { ...each.send, clientMessageId: uuidV7(Date.now()) },
    }))
    expect(await append(sql, again, Date.now(), 10)).toBeTruthy()
    expectIndexPaths(explained(), ['device_sequences', 'device_locks', 'messages', 'message_deliveries_waiting'])
  })

  it('reading: start, tails, a page, the place of an id', async () => {
    const sql = await explaining(database.reader)
    const queue = new Queue(sql)
    const keys = people.slice(0, 200).map((each) => each.devices[0]!.deviceKey)
    const key = keys[1]!
    const runs: [string, () => Promise<unknown>, string[], number][] = [
      ['start', () => queue.start(key), ['device_sequences', 'message_deliveries_waiting'], 900],
      ['tails', () => queue.tails(keys), ['device_sequences'], 200 * 20],
      [
        'page from the start',
        () => queue.page(key, 0, 100, 1e6),
        ['device_sequences', 'message_deliveries_waiting'],
        900,
      ],
      ['page at the end', () => queue.page(key, 500, 100, 1e6), ['device_sequences', 'message_deliveries_waiting'], 60],
      ['place of an id', () => queue.sequenceOf(key, uuidV7(1)), ['message_deliveries_waiting'], 900],
    ]
    for (const [name, run, tables, most] of runs) {
      explained()
      await run()
      const seen = explained()
      expectIndexPaths(seen, tables)
      expect(Math.max(...seen.map(pages)), name).toBeLessThan(most)
    }
  })

  it('acks: by sequence and by id', async () => {
    const sql = await explaining(database.writer)
    const acks = new Acks(sql)
    const rows = await db.database.sql<{ device_key: number; sequence: number; message_id: string }[]>`
      select device_key, sequence, message_id from message_deliveries_waiting limit 3`
    const end = ({ device_key, sequence }: (typeof rows)[number]) => acks.end([{ deviceKey: device_key, sequence }])
    // A connection's first one reads the catalogue too: where the partitions are, and their indexes.
    await end(rows[0]!)
    explained()
    await end(rows[1]!)
    const bySequence = explained()
    expectIndexPaths(bySequence, ['message_deliveries_waiting'])
    expect(Math.max(...bySequence.map(pages))).toBeLessThan(30)
    await acks.endByIds(rows[2]!.device_key, [rows[2]!.message_id])
    expectIndexPaths(explained(), ['message_deliveries_waiting', 'devices'])
  })

  it('how far messages have come: a few pages each, and only of the days there can be', async () => {
    const sql = await explaining(database.reader)
    const own = await db.database.sql<{ messageId: string; userId: string }[]>`
      select message_id as "messageId", sender_user_id as "userId" from messages where sender_user_id is not null limit 100`
    explained()
    await new Statuses(sql).count(own)
    const seen = explained()
    expectIndexPaths(seen, ['messages'])
    expect(Math.max(...seen.map(pages)) / own.length).toBeLessThan(40)
    const days = new Set(
      seen
        .flatMap(({ plan }) => nodesOf(plan).map((node) => node['Relation Name'] ?? ''))
        .filter((name) => /^message_deliveries_/.test(name)),
    )
    // Yesterday has no partition here, and nothing is delivered tomorrow; today may have changed since the partitions were made.
    expect([...days].filter((name) => DAY.test(name)).length).toBeGreaterThan(0)
    expect(days.size).toBeLessThanOrEqual(2)
    expect(days).not.toContain('message_deliveries_waiting')
  })

  it('marks of who has read', async () => {
    const sql = await explaining(database.sql)
    const marks = new ReadMarks(sql)
    const read = await db.database.sql<{ conversationId: string; messageId: string; userId: string }[]>`
      select m.conversation_id as "conversationId", m.message_id as "messageId", u.user_id as "userId"
      from (select * from messages where sender_user_id is not null limit 50) m join conversation_members u using (conversation_id)`
    explained()
    await Promise.all(read.map((each) => marks.move(each)))
    const seen = explained()
    expect(Math.max(...seen.map(pages)) / read.length).toBeLessThan(60)
  })

  it('events: into many queues at once', async () => {
    // The main pool is tied to nothing; the function carries its own settings.
    const sql = await explaining(database.sql)
    const deviceKeys = people.slice(0, 400).map((each) => each.devices[0]!.deviceKey)
    explained()
    await sql.begin((tx) =>
      enqueueEvent(tx, {
        conversationId: null,
        event: { devicesChanged: { change: 'LINKED', deviceId: 2, registrationId: 2 } },
        deviceKeys,
        nowMs: Date.now(),
      }),
    )
    expectIndexPaths(explained(), ['device_sequences'])
  })
})
