// The day partitions of message_deliveries: made ahead, dropped when old. Neither touches the waiting partition.
import type { Sql } from './database.ts'

const DAY_MS = 24 * 3600 * 1000
/** A relay that sweeps for the last time today can still ack for so many days. */
const DAYS_AHEAD = 7

const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10)
const nameOf = (day: string): string => `message_deliveries_${day.replaceAll('-', '')}`

/**
 * Makes the partitions for today (UTC) and the days ahead, by this node's clock and by the database's, whose day acks take.
 * ATTACH takes a lock that writers do not notice.
 */
export async function makePartitions(sql: Sql, nowMs: number): Promise<void> {
  const [{ now }] = await sql<[{ now: Date }]>`select now()`
  const ahead = (fromMs: number) => Array.from({ length: DAYS_AHEAD + 1 }, (_, i) => dayOf(fromMs + i * DAY_MS))
  const days = [...new Set([...ahead(now.getTime()), ...ahead(nowMs)])]
  const there = new Set(
    (await sql<{ name: string }[]>`select relname as name from pg_class where relname = any(${days.map(nameOf)})`).map(
      (row) => row.name,
    ),
  )
  for (const day of days.filter((each) => !there.has(nameOf(each)))) {
    await sql.begin(async (tx) => {
      // Two nodes that start together take turns; the second finds it made.
      await tx`select pg_advisory_xact_lock(hashtext('sealpost partitions'))`
      const [made] = await tx`select 1 from pg_class where relname = ${nameOf(day)}`
      if (made) return
      await tx.unsafe(`create table ${nameOf(day)} (like message_deliveries including defaults)`)
      // Who has a message. [G-3] Not on the waiting partition, whose only index is its queue.
      await tx.unsafe(
        `create index ${nameOf(day)}_status on ${nameOf(day)} (message_id, user_id) where ciphertext_type <> 0`,
      )
      await tx.unsafe(`alter table message_deliveries attach partition ${nameOf(day)} for values in ('${day}')`)
    })
  }
}

/**
 * Drops the partitions of days before `keepMs` ago. CONCURRENTLY, because a plain drop locks the parent that acks go through.
 * @returns the tables dropped.
 */
export async function dropPartitions(sql: Sql, nowMs: number, keepMs: number): Promise<string[]> {
  const oldest = nameOf(dayOf(nowMs - keepMs))
  const rows = await sql<{ name: string; pending: boolean }[]>`
    select c.relname as name, i.inhdetachpending as pending from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'message_deliveries'::regclass and c.relname ~ '^message_deliveries_\\d{8}$' and c.relname < ${oldest} order by 1`
  for (const { name, pending } of rows) {
    // An earlier sweep was cut off while it waited for an old transaction.
    await sql.unsafe(`alter table message_deliveries detach partition ${name} ${pending ? 'finalize' : 'concurrently'}`)
    await sql.unsafe(`drop table ${name}`)
  }
  return rows.map((row) => row.name)
}
