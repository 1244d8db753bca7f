// What can be read of conversations: one's list, one conversation with its chain, who stands how to it. Nothing here writes.
import { invalid, RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import type { Membership } from './authorize.ts'
import type { Sql, Transaction } from './database.ts'

/** As in the Role enum of relay.proto. [V-3] */
export type MemberRole = 'member' | 'admin'

/** pending: the other one of a direct conversation, not accepted yet; invited: the same in a group. [V-6] */
export type MemberState = 'active' | 'pending' | 'invited'

/** As in relay.proto's ConversationChange. [V-2] */
export type ChangeKind =
  | 'CREATED'
  | 'MEMBERS_ADDED'
  | 'MEMBER_REMOVED'
  | 'MEMBER_LEFT'
  | 'ROLE_CHANGED'
  | 'UPDATED'
  | 'ARCHIVED'

/** A conversation as one of its members sees it. */
export type ConversationSummary = {
  conversationId: Uuid
  kind: 'direct' | 'group'
  privacyMode: 'strict_e2e' | 'search_enabled'
  name: string
  description: string
  createdAtMs: number
  archivedAtMs: number | null
  /** Length of the chain of changes. [V-2] */
  revision: number
  /** The reader's own. */
  role: MemberRole
  /** The reader's own; blocked: he blocks the other one of this direct conversation, who sees nothing of it. [V-7] */
  state: MemberState | 'blocked'
  /** The reader's own; nobody else sees it. */
  mutedUntilMs: number | null
  /** The other one of a direct conversation; null for a group. */
  peerUserId: Uuid | null
}

/** One member of a conversation, accepted or not. */
export type Member = { userId: Uuid; role: MemberRole; state: MemberState; joinedAtMs: number }

/** A link of the chain. [V-2] */
export type ChainLink = {
  revision: number
  change: ChangeKind
  actorUserId: Uuid
  subjectUserIds: Uuid[]
  role: MemberRole | null
  signedChange: Uint8Array
  changedAtMs: number
}

/** All members, by user id, and one page of the chain, oldest first. */
export type ConversationView = ConversationSummary & {
  /** How far the reader has read, on whatever device; null = nowhere. [G-4.2] */
  readUpTo: Uuid | null
  members: Member[]
  changes: ChainLink[]
  hasMoreChanges: boolean
}

type SummaryRow = {
  conversation_id: Uuid
  kind: 'direct' | 'group'
  privacy_mode: 'strict_e2e' | 'search_enabled'
  name: string
  description: string
  created_at: Date
  archived_at: Date | null
  revision: number
  role: MemberRole
  state: MemberState | 'declined' | 'left' | 'removed'
  blocks: boolean
  muted_until: Date | null
  peer_user_id: Uuid | null
}

const summaryOf = (row: SummaryRow): ConversationSummary => ({
  conversationId: row.conversation_id,
  kind: row.kind,
  privacyMode: row.privacy_mode,
  name: row.name,
  description: row.description,
  createdAtMs: row.created_at.getTime(),
  archivedAtMs: row.archived_at?.getTime() ?? null,
  revision: row.revision,
  role: row.role,
  state: row.blocks ? 'blocked' : (row.state as MemberState),
  mutedUntilMs: row.muted_until?.getTime() ?? null,
  peerUserId: row.peer_user_id,
})

const summaryColumns = (sql: Sql | Transaction, reader: Uuid) => sql`
  c.conversation_id, c.kind, c.privacy_mode, c.name, c.description, c.created_at, c.archived_at, c.revision, m.role,
  m.state, c.kind = 'direct' and exists (select from blocks b
    where b.blocker = ${reader} and b.blocked = case when c.low_user = ${reader} then c.high_user else c.low_user end) as blocks,
  m.muted_until, case when c.low_user = ${reader} then c.high_user else c.low_user end as peer_user_id`

/** One answer for an unknown conversation and one the user was never in. I13 [E-2.2] */
export const notFound = (): RelayError => new RelayError('NOT_FOUND', 'no such conversation')
export const formerMember = (): RelayError =>
  new RelayError('FORBIDDEN', 'you are no longer a member of this conversation')

/** Lets members write to conversations that are not archived, and nobody else. @param mayBeInvited who has not accepted may, too. [V-3.4] [V-6.5] */
export function requireActive(membership: Membership, mayBeInvited = false): void {
  if (membership === 'invited' && !mayBeInvited)
    throw new RelayError('FORBIDDEN', 'you have not accepted the invitation')
  if (membership === 'none') throw notFound()
  if (membership === 'former') throw formerMember()
  if (membership === 'archived') throw new RelayError('FORBIDDEN', 'this conversation is archived')
}

/** 'none' says the same of an unknown conversation and of one the user was never in (I13). */
export async function membershipOf(sql: Sql | Transaction, conversationId: Uuid, userId: Uuid): Promise<Membership> {
  const [row] = await sql<{ membership: Membership }[]>`
    select case when m.state in ('left', 'removed', 'declined') then 'former' when c.archived_at is not null then 'archived'
      when m.state = 'invited' then 'invited' else 'active' end as membership
    from conversation_members m join conversations c using (conversation_id)
    where m.conversation_id = ${conversationId} and m.user_id = ${userId}`
  return row?.membership ?? 'none'
}

/**
 * Those of the targets who are, with the caller, active members of a conversation that is not archived, and took part in it:
 * anybody can put anybody into a conversation. The caller counts as sharing with himself.
 */
export async function sharesConversation(sql: Sql, caller: Uuid, targets: Uuid[]): Promise<Set<Uuid>> {
  const rows = await sql<{ user_id: Uuid }[]>`
    select t.user_id from unnest(${targets}::uuid[]) t(user_id)
    where t.user_id = ${caller} or exists (
      select from conversation_members theirs
      join conversation_members mine on mine.conversation_id = theirs.conversation_id and mine.user_id = ${caller}
      join conversations c on c.conversation_id = theirs.conversation_id
      where theirs.user_id = t.user_id and theirs.state = 'active' and mine.state = 'active' and c.archived_at is null
        and (exists (select from conversation_changes l
            where l.conversation_id = c.conversation_id and l.actor_user_id = t.user_id)
          or exists (select from devices d join messages s on s.sender_device_key = d.device_key
            where d.user_id = t.user_id and s.conversation_id = c.conversation_id)))`
  return new Set(rows.map((each) => each.user_id))
}

/**
 * One page of the conversations the reader is a member of, accepted or not, archived ones included: newest creation first, an order
 * that nothing changes, so that pages neither repeat nor miss one that was there from the start. [H-8.5] Invitations by somebody the
 * reader blocks are left out. [V-7.1]
 * @param cursor conversation id of the previous page's last entry; null = from the newest.
 * @throws INVALID_REQUEST for a cursor the reader never had, whether or not it exists (I13).
 */
export async function listConversations(
  sql: Sql,
  reader: Uuid,
  { cursor, limit }: { cursor: Uuid | null; limit: number },
): Promise<{ conversations: ConversationSummary[]; nextCursor: Uuid | null }> {
  if (cursor !== null && (await membershipOf(sql, cursor, reader)) === 'none')
    throw invalid('cursor is not one that was handed out to you')
  const rows = await sql<SummaryRow[]>`
    select ${summaryColumns(sql, reader)}
    from conversation_members m join conversations c using (conversation_id)
    where m.user_id = ${reader} and m.state in ('active', 'pending', 'invited')
      and (m.state <> 'invited' or not exists (select from blocks where blocker = ${reader}) or not exists (
        select from blocks b where b.blocker = ${reader} and b.blocked = (
          select l.actor_user_id from conversation_changes l
          where l.conversation_id = c.conversation_id and l.change in ('CREATED', 'MEMBERS_ADDED')
            and l.subject_user_ids @> array[${reader}::uuid] order by l.revision desc limit 1)))
    ${cursor === null ? sql`` : sql`and (c.created_at, c.conversation_id) < (select created_at, conversation_id from conversations where conversation_id = ${cursor})`}
    order by c.created_at desc, c.conversation_id desc limit ${limit + 1}`
  const conversations = rows.slice(0, limit).map(summaryOf)
  return { conversations, nextCursor: rows.length > limit ? conversations.at(-1)!.conversationId : null }
}

/**
 * One conversation with its members and a page of its chain, all of one moment.
 * @throws NOT_FOUND for strangers as for unknown ids (I13), FORBIDDEN for former members.
 */
export async function readConversation(
  sql: Sql,
  conversationId: Uuid,
  reader: Uuid,
  { afterRevision, limit }: { afterRevision: number; limit: number },
): Promise<ConversationView> {
  return sql.begin('isolation level repeatable read read only', async (tx) => {
    const [row] = await tx<(SummaryRow & { read_up_to: Uuid | null })[]>`
      select ${summaryColumns(tx, reader)}, r.read_up_to
      from conversation_members m join conversations c using (conversation_id)
      left join read_marks r on r.conversation_id = m.conversation_id and r.user_id = m.user_id
      where m.conversation_id = ${conversationId} and m.user_id = ${reader}`
    if (!row) throw notFound()
    if (['left', 'removed', 'declined'].includes(row.state)) throw formerMember()
    const members = await tx<{ user_id: Uuid; role: MemberRole; state: MemberState; joined_at: Date }[]>`
      select user_id, role, state, joined_at from conversation_members
      where conversation_id = ${conversationId} and state in ('active', 'pending', 'invited') order by user_id`
    const links = await tx<LinkRow[]>`
      select revision, change, actor_user_id, subject_user_ids, role, signed_change, changed_at
      from conversation_changes where conversation_id = ${conversationId} and revision > ${afterRevision}
      order by revision limit ${limit}`
    const changes = links.map(linkOf)
    return {
      ...summaryOf(row),
      readUpTo: row.read_up_to,
      members: members.map((each) => ({
        userId: each.user_id,
        role: each.role,
        state: each.state,
        joinedAtMs: each.joined_at.getTime(),
      })),
      changes,
      hasMoreChanges: changes.length > 0 && changes.at(-1)!.revision < row.revision,
    }
  })
}

type LinkRow = {
  revision: number
  change: ChangeKind
  actor_user_id: Uuid
  subject_user_ids: Uuid[]
  role: MemberRole | null
  signed_change: Buffer
  changed_at: Date
}

const linkOf = (row: LinkRow): ChainLink => ({
  revision: row.revision,
  change: row.change,
  actorUserId: row.actor_user_id,
  subjectUserIds: row.subject_user_ids,
  role: row.role,
  signedChange: row.signed_change,
  changedAtMs: row.changed_at.getTime(),
})
