// What becomes too old goes: undelivered envelopes (their devices are told), the memory of sent messages, dead letters, day partitions.
import { type Uuid, uuidV7 } from '../proto/ids.ts'
import { DEDUPE_MIN_MS } from '../proto/limits.ts'
import type { Sql } from './database.ts'
import type { Observe } from './observe.ts'
import { dropPartitions, makePartitions } from './partitions.ts'

const HOUR_MS = 3600 * 1000
const DAY_MS = 24 * HOUR_MS
/** Between this machine and the database, milliseconds. */
const CLOCKS_APART_MAX_MS = 10 * 60 * 1000
/** Devices looked at in one statement, and rows ended in one transaction. */
const DEVICES_PER_SLICE = 1_000
const ROWS_PER_SLICE = 1_000

/** clock: Unix milliseconds. ttlMs: life of an undelivered envelope. */
export type SweepDeps = {
  sql: Sql
  observe: Observe
  clock: () => number
  ttlMs: number
  /** True: it is to end after the slice under way. */
  stopped?: () => boolean
}

/** The least UUIDv7 of a moment: message ids below it are older. */
export const idAt = (ms: number): Uuid => `${uuidV7(ms).slice(0, 13)}-7000-8000-000000000000`

/** One round over everything; safe beside other nodes' rounds and beside traffic. */
export async function sweep({
  sql,
  observe,
  clock,
  ttlMs,
  stopped = () => false,
}: SweepDeps): Promise<{ expired: number }> {
  const nowMs = clock()
  await makePartitions(sql, nowMs)
  const expired = await expireWaiting(sql, idAt(nowMs - ttlMs), stopped)
  observe.metrics.expired.inc(expired)
  // A message is remembered as long as a copy of it may wait, and for the dedupe promise. I2
  const rememberedMs = Math.max(ttlMs, DEDUPE_MIN_MS) + DAY_MS
  const forgottenBefore = idAt(nowMs - rememberedMs)
  await inSlices(
    stopped,
    () => sql`delete from messages where message_id = any(array(
    select message_id from messages where message_id < ${forgottenBefore} order by message_id limit ${ROWS_PER_SLICE}))`,
  )
  await inSlices(
    stopped,
    () => sql`delete from dead_letters where (message_id, device_key) in (
    select message_id, device_key from dead_letters where message_id < ${forgottenBefore} limit ${ROWS_PER_SLICE})`,
  )
  if (stopped()) return { expired }
  // Nothing of it can wait any more. [V-6.6]
  await sql`delete from stranger_deliveries where put_at < ${new Date(nowMs - rememberedMs)}`
  await sql`delete from link_codes where expires_at < ${new Date(nowMs - DAY_MS)}`
  // Who has a message is counted as long as it is remembered: a day dropped before would let numbers fall. [G-3.3]
  await dropPartitions(sql, nowMs, rememberedMs)
  return { expired }
}

/**
 * Runs a round now, then every hour. `ready` settles with the first: acks need today's partition. `stop` ends it after the slice
 * under way.
 */
export function keepSweeping(deps: SweepDeps): { ready: Promise<void>; stop(): Promise<void> } {
  let running: Promise<unknown> = Promise.resolve()
  let stopped = false
  const round = (): Promise<unknown> => {
    running = sweepIfClocksAgree({ ...deps, stopped: () => stopped }).catch((error: unknown) =>
      deps.observe.log.error({ err: error }, 'sweep failed'),
    )
    return running
  }
  const timer = setInterval(round, HOUR_MS)
  return {
    ready: makePartitions(deps.sql, deps.clock()).then(() => void round()),
    async stop() {
      stopped = true
      clearInterval(timer)
      await running
    },
  }
}

/** A node whose clock runs ahead would take everybody's mail for old. */
async function sweepIfClocksAgree(deps: SweepDeps): Promise<void> {
  // Acks need them whatever the clocks say.
  await makePartitions(deps.sql, deps.clock())
  const [{ now }] = await deps.sql<[{ now: Date }]>`select now()`
  const apartMs = Math.abs(now.getTime() - deps.clock())
  if (apartMs <= CLOCKS_APART_MAX_MS) await sweep(deps)
  else deps.observe.log.error({ apartMs }, 'not sweeping: the clocks of this machine and of the database differ')
}

async function expireWaiting(sql: Sql, before: Uuid, stopped: () => boolean): Promise<number> {
  let expired = 0
  let after = 0
  for (;;) {
    // A queue is in commit order, so its head tells whether anything in it is too old: one index descent per device.
    const rows = await sql<{ device_key: number; old: boolean }[]>`
      select d.device_key, coalesce(h.message_id < ${before}, false) as old
      from (select device_key from device_locks where device_key > ${after} order by device_key limit ${DEVICES_PER_SLICE}) d
      left join lateral (select message_id from message_deliveries_waiting w where w.device_key = d.device_key order by sequence limit 1) h on true
      order by d.device_key`
    for (const { device_key, old } of rows)
      if (old)
        for (let n = ROWS_PER_SLICE; n === ROWS_PER_SLICE && !stopped(); expired += n)
          n = await expireSome(sql, device_key, before)
    if (rows.length < DEVICES_PER_SLICE || stopped()) return expired
    after = rows.at(-1)!.device_key
  }
}

async function expireSome(sql: Sql, deviceKey: number, before: Uuid): Promise<number> {
  return sql.begin(async (tx) => {
    // The queue's lock first, as everywhere: an append to the same device adds to the same gap.
    await tx`select 1 from device_locks where device_key = ${deviceKey} for no key update`
    const [row] = await tx<[{ n: number }]>`with gone as (
        delete from message_deliveries_waiting where ctid = any(array(
          select ctid from message_deliveries_waiting where device_key = ${deviceKey} and message_id < ${before}
          order by sequence limit ${ROWS_PER_SLICE}))
        returning 1)
      select count(*) as n from gone`
    if (row.n > 0)
      await tx`insert into gaps as g (device_key, expired) values (${deviceKey}, ${row.n})
        on conflict (device_key) do update set expired = g.expired + excluded.expired, gap_id = gen_random_uuid()`
    return row.n
  })
}

async function inSlices(stopped: () => boolean, statement: () => PromiseLike<{ count: number }>): Promise<void> {
  while (!stopped() && (await statement()).count === ROWS_PER_SLICE);
}
