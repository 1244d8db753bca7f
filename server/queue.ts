// Reads of one device's queue. Each is one statement, so rows, tail and gap come from one snapshot (§ reading rule in session.ts).
import type { Uuid } from '../proto/ids.ts'
import type { PendingQuery, Sql } from './database.ts'
import type { Delivery } from './frames.ts'

/** What a connection starts from. */
export type Start = {
  /** Order among the connections of the device, which is its consumer now; null = it is not: a newer one is, or it did not ask to be. I6 */
  epoch: number | null
  tail: number
  waiting: boolean
  /** Read every time: it changes under a running relay when the database was restored. [K-9] */
  databaseEpoch: Uuid
  /** In which its epoch was given out, as in Standing. */
  history: string
}

/** What the database knows of a device that is connected. */
export type Standing = {
  /** Last sequence given out. */
  tail: number
  /** Of its newest connection, on whatever node; 0 = not known. I6 */
  epoch: number
  /** Highest epoch given out to anybody. */
  newest: number
  /** Another one when the database was restored [K-9] or a replica took over: numbers are given out anew. */
  history: string
}

/** What a device has to be told it missed, until it acks gapId. [Q-8] */
export type Gap = { gapId: Uuid; overflowed: number; expired: number; sinceMs: number }

export type Page = {
  deliveries: Delivery[]
  /** Rows beyond this page were waiting in the same snapshot. */
  hasMore: boolean
  /** Last sequence given out. */
  tail: number
  gap: Gap | null
}

type PageRow = {
  tail: number
  gap_id: Uuid | null
  overflowed: number | null
  expired: number | null
  since: Date | null
  seen: number | null
  sequence: number | null
  message_id: Uuid
  ciphertext_type: number
  withheld: number
  content: Buffer | null
  iv: Buffer | null
  conversation_id: Uuid | null
  sender_type: number
  sender_user_id: Uuid
  sender_device_id: number
  client_message_id: Uuid
  message_type: number
  urgent: boolean
  reply_to_message_id: Uuid | null
  attachment_url: string | null
  thumbnail_url: string | null
  sent_at: Date | null
}

const NONE = new Uint8Array(0)

/** Of the database, with the timeline of its WAL. A standby has none and fails: it does not judge who is connected. */
const history = (sql: Sql): PendingQuery =>
  sql`(select epoch || left(pg_walfile_name(pg_current_wal_lsn()), 8) from relay_state)`

/** The higher epoch wins (I6), unless it was never given out: no database that goes on has one above its sequence. [C-5.1] */
const isNewer = (sql: Sql): PendingQuery =>
  sql`c.epoch < excluded.epoch or not exists (select from session_epoch where last_value >= c.epoch)`

export class Queue {
  private readonly reader: Sql

  constructor(reader: Sql) {
    this.reader = reader
  }

  /**
   * Tail and whether anything waits, for a connection that is already registered, and its epoch. Null: the device has no queue any more.
   * @param isConsumer the connection becomes the device's consumer, unless a newer one is. I6
   */
  async start(deviceKey: number, isConsumer = true): Promise<Start | null> {
    const sql = this.reader
    const [row] = await sql<(Omit<Start, 'databaseEpoch'> & { database_epoch: Uuid })[]>`
      with q as (select last from device_sequences where device_key = ${deviceKey} order by last desc limit 1),
        claimed as (
          insert into device_consumers as c (device_key, epoch)
          select ${deviceKey}, nextval('session_epoch') from q where ${isConsumer}
          on conflict (device_key) do update set epoch = excluded.epoch where ${isNewer(sql)}
          returning epoch)
      select (select epoch from claimed) as epoch, q.last as tail, (select epoch from relay_state) as database_epoch,
        ${history(sql)} as history,
        exists (select 1 from message_deliveries_waiting where device_key = ${deviceKey})
          or exists (select 1 from gaps where device_key = ${deviceKey}) as waiting
      from q`
    if (!row) return null
    const { database_epoch: databaseEpoch, ...start } = row
    return { ...start, databaseEpoch }
  }

  /**
   * Says again whose epochs these are, after the table was emptied: the highest stays. I6
   * @param ofHistory in which all of them were given out; after its end nothing is written.
   */
  async claim(consumers: { deviceKey: number; epoch: number }[], ofHistory: string): Promise<void> {
    const sql = this.reader
    const columns = [consumers.map((each) => each.deviceKey), consumers.map((each) => each.epoch)]
    const [keys, epochs] = columns.map((each) => `{${each.join(',')}}`)
    // In the order of keys: two nodes must not wait for each other.
    await sql`
      insert into device_consumers as c (device_key, epoch)
      select k, e from unnest(${keys!}::text::bigint[], ${epochs!}::text::bigint[]) x(k, e)
      where ${ofHistory} = ${history(sql)} and e <= (select last_value from session_epoch)
        and exists (select 1 from device_sequences where device_key = k) order by k
      on conflict (device_key) do update set epoch = excluded.epoch where ${isNewer(sql)}`
  }

  /** The connection of this epoch was over before it began: an older one may still be the consumer. */
  async giveBack(deviceKey: number, epoch: number): Promise<void> {
    await this.reader`delete from device_consumers where device_key = ${deviceKey} and epoch = ${epoch}`
  }

  /** Where these devices stand; those without a queue are left out. */
  async tails(deviceKeys: number[]): Promise<Map<number, Standing>> {
    const sql = this.reader
    const rows = await sql<(Standing & { k: number })[]>`
      select x.k, q.last as tail, s.last_value as newest, h.history,
        coalesce((select epoch from device_consumers where device_key = x.k and epoch <= s.last_value), 0) as epoch
      from unnest(${`{${deviceKeys.join(',')}}`}::text::bigint[]) x(k) cross join session_epoch s
      cross join ${history(sql)} h(history) cross join lateral (
        select last from device_sequences where device_key = x.k order by last desc limit 1) q`
    return new Map(rows.map(({ k, ...standing }) => [k, standing]))
  }

  /** Sequence of a message still waiting for this device; null when it is not (acked, foreign, unknown). Walks the device's queue. */
  async sequenceOf(deviceKey: number, messageId: Uuid): Promise<number | null> {
    const [row] = await this.reader<{ sequence: number }[]>`
      select sequence from message_deliveries_waiting where device_key = ${deviceKey} and message_id = ${messageId} limit 1`
    return row?.sequence ?? null
  }

  /**
   * The rows after a sequence, in order.
   * @param limit rows at most; @param maxBytes of content, exceeded only by a single first row.
   */
  async page(deviceKey: number, after: number, limit: number, maxBytes: number): Promise<Page> {
    const rows = await this.reader<PageRow[]>`
      select t.last as tail, g.gap_id, g.overflowed, g.expired, g.since, w.*,
        m.conversation_id, m.sender_type, m.sender_user_id, m.sender_device_id, m.client_message_id, m.message_type, m.urgent,
        m.reply_to_message_id, m.attachment_url, m.thumbnail_url, m.sent_at
      from (select last from device_sequences where device_key = ${deviceKey} order by last desc limit 1) t
      left join gaps g on g.device_key = ${deviceKey}
      left join lateral (
        select * from (
          select sequence, message_id, ciphertext_type, withheld, content, iv,
            count(*) over () as seen, row_number() over (order by sequence) as place,
            sum(octet_length(content) + 300) over (order by sequence) as bytes
          from (select * from message_deliveries_waiting where device_key = ${deviceKey} and sequence > ${after}
            order by sequence limit ${limit + 1}) ahead
        ) measured where place <= ${limit} and (bytes <= ${maxBytes} or place = 1)
      ) w on true
      left join lateral (select * from messages where message_id = w.message_id limit 1) m on true
      order by w.sequence`
    const [first] = rows
    if (!first) return { deliveries: [], hasMore: false, tail: after, gap: null }
    const found = rows.filter((row) => row.sequence !== null)
    const hasMore = found.length < (first.seen ?? 0)
    // A row whose message is gone says nothing to anybody; the rest of the queue goes on.
    const deliveries = found.filter((row) => row.sent_at !== null).map(toDelivery)
    if (deliveries.length === 0 && hasMore) return this.page(deviceKey, found.at(-1)!.sequence!, limit, maxBytes)
    return {
      deliveries,
      hasMore,
      tail: first.tail,
      gap: first.gap_id
        ? {
            gapId: first.gap_id,
            overflowed: first.overflowed!,
            expired: first.expired!,
            sinceMs: first.since!.getTime(),
          }
        : null,
    }
  }
}

const toDelivery = (row: PageRow): Delivery => ({
  sequence: row.sequence!,
  messageId: row.message_id,
  conversationId: row.conversation_id,
  sentAtMs: row.sent_at!.getTime(),
  sender:
    row.sender_type === 2
      ? null
      : { userId: row.sender_user_id, deviceId: row.sender_device_id, clientMessageId: row.client_message_id },
  messageType: row.message_type,
  ciphertextType: row.ciphertext_type,
  withheld: row.withheld,
  content: row.content ?? NONE,
  iv: row.iv ?? NONE,
  replyToMessageId: row.reply_to_message_id,
  attachmentUrl: row.attachment_url,
  thumbnailUrl: row.thumbnail_url,
  urgent: row.urgent,
})
