// How far messages have come: counted from the deliveries that were acked and the marks of who has read. [G-3]
import type { Uuid } from '../proto/ids.ts'
import type { Sql } from './database.ts'
import type { MessageStatus } from './signal-codec.ts'

/** A message and the user who is said to have sent it. */
export type Own = { messageId: Uuid; userId: Uuid }

const DAY_MS = 24 * 3600 * 1000
/** What can still be written with four digits; ids are whatever a client sends. */
const LAST_MS = Date.UTC(9999, 11, 31)

/** When the relay made this message id, by its own clock. */
const madeAtMs = (messageId: Uuid): number => Number.parseInt(messageId.slice(0, 8) + messageId.slice(9, 13), 16)

/** Counts at the same time: the pool is there for queues first. */
const AT_ONCE = 2

export class Statuses {
  private readonly sql: Sql
  private counting = 0
  private readonly waiting: (() => void)[] = []

  /** @param sql a pool whose planner is tied to index paths. */
  constructor(sql: Sql) {
    this.sql = sql
  }

  /**
   * The status of each of these messages, in any order; those that the user did not send, that do not exist or are forgotten are
   * left out (I13). Only ever grows: a delivery and a shown mark stay when device, member or setting go. [G-3.3]
   */
  async count(own: Own[]): Promise<MessageStatus[]> {
    if (own.length === 0) return []
    while (this.counting >= AT_ONCE) await new Promise<void>((resolve) => this.waiting.push(resolve))
    this.counting++
    try {
      return await this.read(own)
    } finally {
      this.counting--
      this.waiting.shift()?.()
    }
  }

  private async read(own: Own[]): Promise<MessageStatus[]> {
    // Only the days from the first of them until today: no other partition can have one. A day more, for clocks that differ.
    const sinceMs = Math.min(LAST_MS, ...own.map((each) => madeAtMs(each.messageId))) - DAY_MS
    return this.sql<MessageStatus[]>`
      select m.message_id as "messageId", m.conversation_id as "conversationId", d.delivered,
        case when coalesce((select t.read_receipts from settings t where t.user_id = m.sender_user_id), true)
          then d.read else 0 end as read
      from unnest(${`{${own.map((each) => each.messageId).join(',')}}`}::text::uuid[],
        ${`{${own.map((each) => each.userId).join(',')}}`}::text::uuid[]) x(id, sender)
      cross join lateral (
        select g.message_id, g.conversation_id, g.sender_user_id from messages g
        where g.message_id = x.id and g.sender_user_id = x.sender limit 1) m
      cross join lateral (
        select count(*)::int as delivered, count(*) filter (where exists (
          select from read_marks r where r.conversation_id = m.conversation_id and r.user_id = has.user_id
            and r.shown_up_to >= m.message_id) and not exists (
          select from block_marks f where f.reader = has.user_id and f.sender = m.sender_user_id
            and f.conversation_id = m.conversation_id and coalesce(f.shown_up_to < m.message_id, true)))::int as read
        from (select distinct y.user_id from message_deliveries y
          where y.message_id = m.message_id and y.ciphertext_type <> 0 and y.user_id <> m.sender_user_id
            and not exists (select from conversation_members p where p.conversation_id = m.conversation_id
              and p.user_id = y.user_id and p.state = 'pending')
            and not exists (select from blocks b where b.blocker = y.user_id and b.blocked = m.sender_user_id and b.blocked_at <= y.delivered_at)
            and not exists (select from blocks b where b.blocker = m.sender_user_id and b.blocked = y.user_id and b.blocked_at <= y.delivered_at)
            and y.delivered_on >= ${dayOf(Math.max(0, sinceMs))}::text::date and y.delivered_on <= (now() at time zone 'utc')::date) has) d`
  }

  /** Who sent these messages; without those that the relay made or has forgotten. */
  async senders(messageIds: Uuid[]): Promise<{ messageId: Uuid; senderId: Uuid; conversationId: Uuid }[]> {
    return this.sql`
      select m.message_id as "messageId", m.sender_user_id as "senderId", m.conversation_id as "conversationId"
      from unnest(${`{${messageIds.join(',')}}`}::text::uuid[]) x(id) cross join lateral (
        select * from messages where message_id = x.id limit 1) m
      where m.sender_user_id is not null and m.conversation_id is not null`
  }
}

const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10)
