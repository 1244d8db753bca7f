// Ends deliveries: a row leaves the waiting partition for the day's, without its ciphertext. Acks of all sessions share statements.
import type { Uuid } from '../proto/ids.ts'
import type { Sql } from './database.ts'

/** A delivery whose place in the queue is known. */
export type Acked = { deviceKey: number; sequence: number; messageId?: Uuid }

/** Rows one statement ends at most. */
const STATEMENT_MAX_ROWS = 5_000
/** Acks by id at the same time, over all devices: they may wait long for rows, and the fast way keeps its connection. */
const SLOW_AT_ONCE = 2

// Whoever deletes several rows of message_deliveries_waiting names them by ctid: a tid list is visited in physical order, which
// is the same for all, so acks, sweeps and unlinking never wait for each other in a circle.

type Waiting = { rows: Acked[]; resolve(): void; reject(error: unknown): void }

export class Acks {
  private readonly acker: Sql
  private readonly meter: (rows: number) => void
  private queue: Waiting[] = []
  private busy = false
  private slow = 0
  private readonly slowWaiting: (() => void)[] = []

  /**
   * @param acker a pool whose planner is tied to index paths, with a connection more than SLOW_AT_ONCE.
   * @param meter told how many deliveries a statement ended. Must not throw.
   */
  constructor(acker: Sql, meter: (rows: number) => void = () => {}) {
    this.acker = acker
    this.meter = meter
  }

  /** Ends these deliveries; committed when it resolves. Rows already gone change nothing (I3). */
  end(rows: Acked[]): Promise<void> {
    if (rows.length === 0) return Promise.resolve()
    return new Promise((resolve, reject) => {
      this.queue.push({ rows, resolve, reject })
      if (this.busy) return
      this.busy = true
      setImmediate(() => void this.run())
    })
  }

  /**
   * Ends deliveries of one device by message id: acks from before this connection, and gap ids. Walks the device's queue, so it is
   * the slow way. Unknown, foreign and repeated ids change nothing (I3).
   * @returns the messages whose delivery it ended.
   */
  async endByIds(deviceKey: number, messageIds: Uuid[]): Promise<Uuid[]> {
    if (messageIds.length === 0) return []
    while (this.slow >= SLOW_AT_ONCE) await new Promise<void>((resolve) => this.slowWaiting.push(resolve))
    this.slow++
    try {
      return await this.byIds(deviceKey, messageIds)
    } finally {
      this.slow--
      this.slowWaiting.shift()?.()
    }
  }

  private async byIds(deviceKey: number, messageIds: Uuid[]): Promise<Uuid[]> {
    const ended = await this.acker<{ message_id: Uuid }[]>`with gone as (
        delete from message_deliveries_waiting where ctid = any(array(
          select ctid from message_deliveries_waiting where device_key = ${deviceKey}
            and (message_id in (select unnest(${messageIds}::uuid[]))) is true))
        returning device_key, sequence, message_id, ciphertext_type, withheld),
      told as (delete from gaps where device_key = ${deviceKey} and gap_id = any(${messageIds}::uuid[]))
      insert into message_deliveries (device_key, sequence, message_id, ciphertext_type, withheld, delivered_at, delivered_on, user_id)
      select *, now(), (now() at time zone 'utc')::date, (select user_id from devices where device_key = gone.device_key) from gone
      returning message_id`
    this.meter(ended.count)
    return ended.map((row) => row.message_id)
  }

  private async run(): Promise<void> {
    while (this.queue.length > 0) {
      const batch: Waiting[] = []
      for (let rows = 0; this.queue.length > 0 && rows < STATEMENT_MAX_ROWS; ) {
        const next = this.queue.shift()!
        rows += next.rows.length
        batch.push(next)
      }
      const rows = batch.flatMap((each) => each.rows)
      try {
        await this.statement(rows)
        for (const each of batch) each.resolve()
      } catch (error) {
        for (const each of batch) each.reject(error)
      }
    }
    this.busy = false
  }

  private async statement(rows: Acked[]): Promise<void> {
    const keys = `{${rows.map((row) => row.deviceKey).join(',')}}`
    const sequences = `{${rows.map((row) => row.sequence).join(',')}}`
    const ids = `{${rows.map((row) => row.messageId ?? 'null').join(',')}}`
    // By ctid: each row is found by one index descent.
    const { count } = await this.acker`with gone as (
        delete from message_deliveries_waiting where ctid = any(array(
          select w.at from unnest(${keys}::text::bigint[], ${sequences}::text::bigint[], ${ids}::text::uuid[]) x(d, s, m) cross join lateral (
            select y.ctid as at from message_deliveries_waiting y where y.device_key = x.d and y.sequence = x.s and (x.m is null or y.message_id = x.m) limit 1) w))
        returning device_key, sequence, message_id, ciphertext_type, withheld)
      insert into message_deliveries (device_key, sequence, message_id, ciphertext_type, withheld, delivered_at, delivered_on, user_id)
      select *, now(), (now() at time zone 'utc')::date, (select user_id from devices where device_key = gone.device_key) from gone`
    this.meter(count)
  }
}
