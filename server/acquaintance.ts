// Who knows whom: whose word a conversation waits for, and who may learn of whose devices. [V-6]
import type { Uuid } from '../proto/ids.ts'
import { STRANGER_MAX_EVENTS } from '../proto/limits.ts'
import type { Sql, Transaction } from './database.ts'
import { enqueueEvent } from './events.ts'
import type { Committed, SystemEventBody } from './frames.ts'

/**
 * Those of the users who do not know the actor: no conversation that is not archived has both as active members. A block
 * makes no difference: everybody in the group sees who was made a member at once. [V-6.4] [V-7.2]
 */
export async function strangersTo(tx: Transaction, actor: Uuid, userIds: Uuid[]): Promise<Uuid[]> {
  const rows = await tx<{ user_id: Uuid }[]>`
    select u as user_id from unnest(${userIds}::uuid[]) u
    where not exists (
      select from conversation_members theirs
      join conversation_members his on his.conversation_id = theirs.conversation_id and his.user_id = ${actor} and his.state = 'active'
      join conversations c on c.conversation_id = theirs.conversation_id and c.archived_at is null
      where theirs.user_id = u and theirs.state = 'active')`
  return rows.map((row) => row.user_id)
}

/**
 * Those of the targets whose devices and keys the caller may know: himself, and members, active or pending, of a conversation that
 * is not archived and that he is in, or invited to; and who signed a change of it, without whose key the chain cannot be read: an
 * invitation that came later takes nothing of that away, and a decline that was signed gives nothing. [K-4.8]
 */
export async function known(sql: Sql, caller: Uuid, targets: readonly Uuid[]): Promise<Set<Uuid>> {
  const rows = await sql<{ user_id: Uuid }[]>`
    select t.user_id from unnest(${[...targets]}::uuid[]) t(user_id)
    where t.user_id = ${caller} or exists (
      select from conversation_members theirs
      join conversation_members mine on mine.conversation_id = theirs.conversation_id and mine.user_id = ${caller}
        and mine.state in ('active', 'pending', 'invited')
      join conversations c on c.conversation_id = theirs.conversation_id
      where theirs.user_id = t.user_id and (theirs.state in ('active', 'pending') and c.archived_at is null
        or exists (
          select from conversation_changes l where l.conversation_id = theirs.conversation_id and l.actor_user_id = t.user_id
            and l.signed_change <> '' and (theirs.state not in ('invited', 'declined') or l.changed_at < theirs.joined_at))))`
  return new Set(rows.map((row) => row.user_id))
}

/**
 * How many messages the other one of a pair was sent without accepting, in the conversations of the pair before: ending one and
 * beginning another gives no more of them. [V-6.2] The newest takes the count over from the others, so that no clock says which was the
 * last: one that he accepted or began has ended it. The caller's transaction has just made the new one.
 */
export async function carryOver(tx: Transaction, conversationId: Uuid, pending: Uuid): Promise<void> {
  await tx`
    with before as (
      select p.conversation_id, p.user_id, p.state, p.stranger_messages from conversations this
      join conversations c on c.low_user = this.low_user and c.high_user = this.high_user and c.archived_at is not null
      join conversation_members p on p.conversation_id = c.conversation_id and p.stranger_messages > 0
      where this.conversation_id = ${conversationId}),
    taken as (
      update conversation_members m set stranger_messages = 0 from before
      where m.conversation_id = before.conversation_id and m.user_id = before.user_id)
    update conversation_members m set stranger_messages = most.sent
    from (select max(stranger_messages) as sent from before where user_id = ${pending} and state = 'pending') most
    where m.conversation_id = ${conversationId} and m.user_id = ${pending} and most.sent is not null`
}

type Told = { conversationId: Uuid; actor: Uuid; event: SystemEventBody; nowMs: number }
type Seat = { device_key: number; user_id: Uuid; asked: boolean; unwanted: boolean }

/**
 * Puts an event of a conversation into the queues of these devices, whose locks are held. Who was asked to join and has not
 * accepted gets it only if it concerns him, and only while fewer than 10 events of the actor's wait there; who blocks the actor
 * gets nothing of him in a direct conversation, nor what would ask him to join. [V-6.6] [V-7.1]
 * @param asked users who had not accepted before the change. @param concerned null = it concerns everybody.
 */
export async function tellMembers(
  tx: Transaction,
  { conversationId, actor, event, nowMs }: Told,
  deviceKeys: number[],
  asked: ReadonlySet<Uuid>,
  concerned: readonly Uuid[] | null,
): Promise<Committed[]> {
  const seats = await tx<Seat[]>`
    select d.device_key, d.user_id, m.state in ('pending', 'invited') or d.user_id = any(${[...asked]}::uuid[]) as asked,
      b.blocker is not null and (c.kind = 'direct' or m.state = 'invited' or d.user_id = any(${[...asked]}::uuid[])) as unwanted
    from unnest(${deviceKeys}::bigint[]) k join devices d on d.device_key = k
    join conversations c on c.conversation_id = ${conversationId}
    join conversation_members m on m.conversation_id = c.conversation_id and m.user_id = d.user_id
    left join blocks b on b.blocker = d.user_id and b.blocked = ${actor}
    order by d.device_key`
  const strangers = seats.filter((each) => each.asked && each.user_id !== actor).map((each) => each.device_key)
  const full = await fullOf(tx, strangers, actor)
  const open = seats.filter(
    (each) =>
      !each.unwanted && !full.has(each.device_key) && (!each.asked || !concerned || concerned.includes(each.user_id)),
  )
  const input = { conversationId, event, deviceKeys: open.map((each) => each.device_key), nowMs }
  const committed = await enqueueEvent(tx, input)
  const put = committed.filter((each) => strangers.includes(each.deviceKey))
  if (put.length > 0)
    await tx`insert into stranger_deliveries (device_key, stranger, sequence)
      select k, ${actor}, s from unnest(${put.map((each) => each.deviceKey)}::bigint[],
        ${put.map((each) => each.delivery.sequence)}::bigint[]) x(k, s)`
  return committed
}

/** Devices where as many events of this stranger's wait as may. Messages have their own bound, by which nobody can count these. [V-6.6] */
async function fullOf(tx: Transaction, deviceKeys: number[], stranger: Uuid): Promise<Set<number>> {
  if (deviceKeys.length === 0) return new Set()
  await tx`select forget_stranger_deliveries(${deviceKeys}::bigint[], ${deviceKeys.map(() => stranger)}::uuid[])`
  const rows = await tx<{ device_key: number }[]>`
    select device_key from stranger_deliveries where device_key = any(${deviceKeys}::bigint[]) and stranger = ${stranger}
    group by device_key having count(*) >= ${STRANGER_MAX_EVENTS}`
  return new Set(rows.map((row) => row.device_key))
}
