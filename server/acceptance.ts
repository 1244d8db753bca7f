// A pending or invited member's word that he wants the conversation. Accepting by an answer is append_batch's. [V-6]
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { tellMembers } from './acquaintance.ts'
import { announce, type ConversationSeams, inTurn, lockAudience, type Revised } from './conversation-change.ts'
import { formerMember, membershipOf, notFound } from './conversation-reads.ts'
import type { Sql, Transaction } from './database.ts'

/**
 * A pending or invited member accepts; every device of the members learns of it. Who is active already changes nothing. [V-6.1] [V-6.5]
 * @throws NOT_FOUND for strangers as for unknown ids (I13), FORBIDDEN for former members and archived conversations.
 */
export async function acceptConversation(
  seams: ConversationSeams,
  conversationId: Uuid,
  caller: Uuid,
  nowMs: number,
): Promise<Revised> {
  await requireAsked(seams.sql, conversationId, caller)
  return inTurn(() => acceptLocked(seams, conversationId, caller, nowMs))
}

async function acceptLocked(
  seams: ConversationSeams,
  conversationId: Uuid,
  caller: Uuid,
  nowMs: number,
): Promise<Revised> {
  const { revision, recorded } = await seams.sql.begin(async (tx) => {
    const [row] = await tx<{ revision: number }[]>`
      select revision from conversations where conversation_id = ${conversationId} for update`
    if (!row) throw notFound()
    await requireAsked(tx, conversationId, caller)
    const rows = await tx<{ user_id: Uuid }[]>`
      select user_id from conversation_members
      where conversation_id = ${conversationId} and (state = 'active' or user_id = ${caller}) order by user_id`
    const members = rows.map((each) => each.user_id)
    const deviceKeys = await lockAudience(tx, members)
    // Under the locks: an answer may have been committed while we waited for them.
    const moved = await tx`
      update conversation_members set state = 'active'
      where conversation_id = ${conversationId} and user_id = ${caller} and state in ('pending', 'invited')`
    if (moved.count === 0) return { revision: row.revision, recorded: null }
    const event = { memberAccepted: { userId: caller } }
    const committed = await tellMembers(
      tx,
      { conversationId, actor: caller, event, nowMs },
      deviceKeys,
      new Set(),
      null,
    )
    return { revision: row.revision, recorded: { committed, shared: { members, moved: [caller] } } }
  })
  if (recorded) announce(seams, conversationId, recorded)
  return { conversationId, revision }
}

async function requireAsked(sql: Sql | Transaction, conversationId: Uuid, userId: Uuid): Promise<void> {
  const membership = await membershipOf(sql, conversationId, userId)
  if (membership === 'none') throw notFound()
  if (membership === 'former') throw formerMember()
  if (membership === 'archived') throw new RelayError('FORBIDDEN', 'this conversation is archived')
}
