// One link of a conversation's chain: the locks, the write and the event of a change, in one transaction. Which changes
// there are and who may make them is in conversations.ts.
import { invalid, RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { tellMembers } from './acquaintance.ts'
import { type ChangeKind, type MemberRole, membershipOf, notFound, requireActive } from './conversation-reads.ts'
import type { Sql, Transaction } from './database.ts'
import type { Committed } from './frames.ts'

export type ConversationSeams = {
  sql: Sql
  /** ask: who does not know the one who adds him is asked first; open: everybody here knows everybody. [V-6] */
  strangers: 'ask' | 'open'
  /** After commit, best effort: the events are in the devices' queues already. */
  fanOut(committed: Committed[]): void
  /** After commit of a change: whatever is cached of the conversation is stale. */
  onChanged(conversationId: Uuid, shared: Shared): void
}

/** Whom a change concerns: `members` is who was in the conversation or is now, `moved` those of them it began or ended for. */
export type Shared = { members: Uuid[]; moved: Uuid[] }

/** What is told of a change once it is committed. */
export type Recorded = { committed: Committed[]; shared: Shared }

/** What every request to change a conversation carries. */
export type ChangeRequest = {
  caller: Uuid
  /** Opaque, at most 1 KiB; empty when the client gave none. [V-2] */
  signedChange: Uint8Array
  /** Refuse with CONFLICT unless the chain has exactly this length; null = whatever its length. [H-8.1] */
  expectedRevision: number | null
  nowMs: number
}

/** A conversation as it stands under its lock. */
export type Standing = {
  conversationId: Uuid
  kind: 'direct' | 'group'
  /** Active, pending and invited members. */
  members: Map<Uuid, MemberRole>
  /** Those who have not accepted. */
  asked: Set<Uuid>
  /** Invited, and declined: no members here, but in the clients' chain until an admin removes them. */
  declined: Set<Uuid>
}

/** A change that was found permitted. */
export type Change = {
  change: ChangeKind
  subjectUserIds: Uuid[]
  role: MemberRole | null
  /** Whose devices hear of it: every member after the change, and who was a member until then. */
  audience: Uuid[]
  /** Writes everything but the revision, the chain and the event. */
  write(tx: Transaction): Promise<unknown>
}

/** Where the chain of a conversation stands. */
export type Revised = { conversationId: Uuid; revision: number }

/**
 * Makes one change to a conversation that exists.
 * @param decide sees the conversation under its lock; throws what must be refused, with nothing written.
 * @throws NOT_FOUND for strangers as for unknown ids, FORBIDDEN for former members and archived conversations, CONFLICT
 * when expectedRevision differs, INVALID_REQUEST when the audience holds an unknown user.
 */
export async function changeConversation(
  seams: ConversationSeams,
  conversationId: Uuid,
  request: ChangeRequest,
  decide: (standing: Standing) => Change,
  mayBeInvited = false,
): Promise<Revised> {
  // Before the lock: a stranger's request must neither hold it nor show, by waiting for it, that the conversation exists. I13
  requireActive(await membershipOf(seams.sql, conversationId, request.caller), mayBeInvited)
  return inTurn(() => changeLocked(seams, conversationId, request, decide, mayBeInvited))
}

/** Runs what may wait long for locks, few at a time. */
export async function inTurn<T>(work: () => Promise<T>): Promise<T> {
  while (changing >= CHANGES_AT_ONCE) await new Promise<void>((resolve) => waiting.push(resolve))
  changing++
  try {
    return await work()
  } finally {
    changing--
    waiting.shift()?.()
  }
}

/** Changes may wait for each other's locks; half of the pool is left to those who do not. */
const CHANGES_AT_ONCE = 4
let changing = 0
const waiting: (() => void)[] = []

async function changeLocked(
  seams: ConversationSeams,
  conversationId: Uuid,
  request: ChangeRequest,
  decide: (standing: Standing) => Change,
  mayBeInvited: boolean,
): Promise<Revised> {
  const { revision, done } = await seams.sql.begin(async (tx) => {
    const [row] = await tx<{ kind: 'direct' | 'group'; revision: number }[]>`
      select kind, revision from conversations where conversation_id = ${conversationId} for update`
    if (!row) throw notFound()
    requireActive(await membershipOf(tx, conversationId, request.caller), mayBeInvited)
    if (request.expectedRevision !== null && request.expectedRevision !== row.revision)
      throw new RelayError(
        'CONFLICT',
        `expected_revision is ${request.expectedRevision}, the chain is at ${row.revision}`,
      )
    const all = await tx<{ user_id: Uuid; role: MemberRole; state: string }[]>`
      select user_id, role, state from conversation_members
      where conversation_id = ${conversationId} and state in ('active', 'pending', 'invited', 'declined') order by user_id`
    const rows = all.filter((each) => each.state !== 'declined')
    const idsOf = (some: { user_id: Uuid }[]) => new Set(some.map((each) => each.user_id))
    const members = new Map(rows.map((each) => [each.user_id, each.role]))
    const asked = idsOf(rows.filter((each) => each.state !== 'active'))
    const declined = idsOf(all.filter((each) => each.state === 'declined'))
    const change = decide({ conversationId, kind: row.kind, members, asked, declined })
    const next = row.revision + 1
    return { revision: next, done: await recordChange(tx, { conversationId, revision: next }, request, change, asked) }
  })
  announce(seams, conversationId, done)
  return { conversationId, revision }
}

/**
 * Writes a change, its link of the chain and its events. The caller's transaction holds the conversation's row, locked or
 * just inserted; what follows takes accounts, then device_locks, each in ascending order.
 * @param asked who had not accepted before.
 */
export async function recordChange(
  tx: Transaction,
  { conversationId, revision }: Revised,
  { caller, signedChange, nowMs }: ChangeRequest,
  { change, subjectUserIds, role, audience, write }: Change,
  asked: ReadonlySet<Uuid> = new Set(),
): Promise<Recorded> {
  const deviceKeys = await lockAudience(tx, audience)
  await write(tx)
  await tx`update conversations set revision = ${revision} where conversation_id = ${conversationId}`
  await tx`
    insert into conversation_changes
      (conversation_id, revision, change, actor_user_id, subject_user_ids, role, signed_change, changed_at)
    values (${conversationId}, ${revision}, ${change}, ${caller}, ${subjectUserIds}::uuid[], ${role}, ${signedChange},
      ${new Date(nowMs)})`
  const event = { conversationChanged: { change, actorUserId: caller, subjectUserIds, role, revision, signedChange } }
  const concerned = change === 'ARCHIVED' || change === 'CREATED' ? null : subjectUserIds
  const moved = change === 'ARCHIVED' ? audience : change in SHARES_THE_SAME ? [] : subjectUserIds
  return {
    committed: await tellMembers(tx, { conversationId, actor: caller, event, nowMs }, deviceKeys, asked, concerned),
    shared: { members: audience, moved },
  }
}

/** Changes after which the same people share the conversation. */
const SHARES_THE_SAME = { ROLE_CHANGED: true, UPDATED: true }

/** After commit: caches forget the conversation before the event can reach anyone who then sends to it. */
export function announce(seams: ConversationSeams, conversationId: Uuid, { committed, shared }: Recorded): void {
  seams.onChanged(conversationId, shared)
  seams.fanOut(committed)
}

/**
 * Locks the accounts of the audience and all their devices, in the one order there is.
 * @returns the device keys, ascending. @throws INVALID_REQUEST when the audience holds an unknown user.
 */
export async function lockAudience(tx: Transaction, audience: Uuid[]): Promise<number[]> {
  // Linking and unlinking hold their account row FOR UPDATE: until we commit no device of the audience comes or goes.
  const accounts = await tx<{ user_id: Uuid }[]>`
    select user_id from accounts where user_id = any(${audience}::uuid[]) order by user_id for share`
  if (accounts.length < audience.length) {
    const known = new Set(accounts.map((each) => each.user_id))
    throw invalid(`user ${audience.find((each) => !known.has(each))} does not exist`)
  }
  const devices = await tx<{ device_key: number }[]>`
    select l.device_key from devices d join device_locks l using (device_key)
    where d.user_id = any(${audience}::uuid[]) order by l.device_key for no key update of l`
  return devices.map((each) => each.device_key)
}
