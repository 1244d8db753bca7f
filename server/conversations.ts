// Direct and group conversations: which changes there are, who may make them, what they do to the member list. Locks, chain
// and events are in conversation-change.ts, reading in conversation-reads.ts.
import { randomUUID } from 'node:crypto'
import { invalid, RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { GROUP_MAX_MEMBERS, GROUP_MIN_MEMBERS } from '../proto/limits.ts'
import { acceptConversation } from './acceptance.ts'
import { carryOver, known, strangersTo } from './acquaintance.ts'
import type { Membership } from './authorize.ts'
import {
  announce,
  type Change,
  type ChangeRequest,
  type ConversationSeams,
  changeConversation,
  type Revised,
  recordChange,
  type Standing,
} from './conversation-change.ts'
import {
  type ConversationSummary,
  type ConversationView,
  formerMember,
  listConversations,
  type MemberRole,
  membershipOf,
  readConversation,
  requireActive,
  sharesConversation,
} from './conversation-reads.ts'
import type { Transaction } from './database.ts'

/**
 * The relay's own view of conversations: it routes by it; the clients' roster is the chain of signed changes. [V-2]
 * Every change is one transaction with its link of the chain and one event per device of every member after it and of
 * whoever it removed, the acting device included. Refusals leave nothing behind:
 * NOT_FOUND for strangers as for unknown ids (I13); FORBIDDEN for former members, archived conversations and members
 * without the role; CONFLICT for a chain that moved on, a change already made, and the last admin; INVALID_REQUEST else.
 * User ids in arguments are canonical, callers are authenticated; nothing else is trusted.
 */
export class Conversations {
  private readonly seams: ConversationSeams

  constructor(seams: ConversationSeams) {
    this.seams = seams
  }

  /**
   * The pair's direct conversation, made if there is none that is not archived. Both get the same id, whoever asks first
   * or both at once. Its two members have the role member; they never change. [V-3] [V-3.3]
   */
  async createDirect(request: ChangeRequest, userId: Uuid): Promise<Revised & { created: boolean }> {
    const { caller } = request
    if (userId === caller) throw invalid('user_id is your own: a direct conversation has two members')
    const [low, high] = caller < userId ? [caller, userId] : [userId, caller]
    // Twice round only if the existing one was archived between the insert, which waits for a rival, and the read.
    for (;;) {
      const conversationId = randomUUID()
      const made = await this.seams.sql.begin(async (tx) => {
        const inserted = await tx`
          insert into conversations (conversation_id, kind, created_at, low_user, high_user)
          values (${conversationId}, 'direct', ${new Date(request.nowMs)}, ${low}, ${high})
          on conflict (low_user, high_user) where archived_at is null do nothing`
        if (inserted.count === 0) return null
        return recordChange(tx, { conversationId, revision: 1 }, request, {
          ...created([caller, userId]),
          write: async (tx) => {
            const asked = this.seams.strangers === 'ask' ? [userId] : []
            await writeMembers(tx, conversationId, [caller, userId], request.nowMs, { asked, as: 'pending' })
            await carryOver(tx, conversationId, userId)
          },
        })
      })
      if (made) {
        announce(this.seams, conversationId, made)
        return { conversationId, revision: 1, created: true }
      }
      const [existing] = await this.seams.sql<{ conversation_id: Uuid; revision: number }[]>`
        select conversation_id, revision from conversations
        where low_user = ${low} and high_user = ${high} and archived_at is null`
      if (existing) return { conversationId: existing.conversation_id, revision: existing.revision, created: false }
    }
  }

  /**
   * A group of its creator, who is its admin, and the users named; the creator's own id may be among them.
   * @throws INVALID_REQUEST outside 3-500 members, for an id given twice and for a user who does not exist, named. [V-3]
   */
  async createGroup(
    request: ChangeRequest,
    group: { userIds: Uuid[]; name: string; description: string },
  ): Promise<Revised> {
    refuseRepeated(group.userIds)
    const members = [request.caller, ...group.userIds.filter((each) => each !== request.caller)]
    if (members.length < GROUP_MIN_MEMBERS || members.length > GROUP_MAX_MEMBERS)
      throw invalid(
        `a group has ${GROUP_MIN_MEMBERS} to ${GROUP_MAX_MEMBERS} members, with its creator; user_ids makes ${members.length}`,
      )
    const conversationId = randomUUID()
    const made = await this.seams.sql.begin(async (tx) => {
      await tx`
        insert into conversations (conversation_id, kind, name, description, created_at)
        values (${conversationId}, 'group', ${group.name}, ${group.description}, ${new Date(request.nowMs)})`
      return recordChange(tx, { conversationId, revision: 1 }, request, {
        ...created(members),
        write: async (tx) => {
          await this.seat(tx, conversationId, request, members)
          await tx`update conversation_members set role = 'admin'
            where conversation_id = ${conversationId} and user_id = ${request.caller}`
        },
      })
    })
    announce(this.seams, conversationId, made)
    return { conversationId, revision: 1 }
  }

  /** Admins of a group. A former member may come back; everyone added has the role member. [V-3.1] [V-3.5] */
  addMembers(conversationId: Uuid, request: ChangeRequest, userIds: Uuid[]): Promise<Revised> {
    return this.change(conversationId, request, (standing) => {
      requireAdmin(standing, request.caller)
      if (userIds.length === 0) throw invalid('user_ids is empty')
      refuseRepeated(userIds)
      const present = userIds.find((each) => standing.members.has(each))
      if (present) throw new RelayError('CONFLICT', `user ${present} is a member already`)
      const audience = [...standing.members.keys(), ...userIds]
      if (audience.length > GROUP_MAX_MEMBERS)
        throw invalid(`a group has at most ${GROUP_MAX_MEMBERS} members; user_ids makes ${audience.length}`)
      return {
        change: 'MEMBERS_ADDED',
        subjectUserIds: userIds,
        role: 'member',
        audience,
        write: (tx) => this.seat(tx, conversationId, request, userIds),
      }
    })
  }

  /**
   * An admin removes another; anyone removes himself, which is leaving. A group may fall below three members by it. The last
   * admin leaves only as the last member. [V-3.2]
   */
  removeMember(conversationId: Uuid, request: ChangeRequest, userId: Uuid): Promise<Revised> {
    const decide = (standing: Standing): Change => {
      const leaving = userId === request.caller
      if (leaving) requireGroup(standing)
      else requireAdmin(standing, request.caller)
      if (!standing.declined.has(userId)) requireMember(standing, userId)
      if (isLastAdmin(standing, userId) && standing.members.size > 1)
        throw new RelayError('CONFLICT', 'the last admin cannot leave while others remain')
      return {
        change: leaving ? 'MEMBER_LEFT' : 'MEMBER_REMOVED',
        subjectUserIds: [userId],
        role: null,
        audience: [...standing.members.keys()],
        write: (tx) => tx`
          update conversation_members
          set state = ${leaving ? (standing.asked.has(userId) ? 'declined' : 'left') : 'removed'}, role = 'member', ended_at = ${new Date(request.nowMs)}
          where conversation_id = ${conversationId} and user_id = ${userId}`,
      }
    }
    // Who was invited and does not want to come leaves. [V-6.5]
    return changeConversation(this.seams, conversationId, request, decide, userId === request.caller)
  }

  /** Admins of a group. The last admin stays one. [V-3.2] */
  setRole(conversationId: Uuid, request: ChangeRequest, userId: Uuid, role: MemberRole): Promise<Revised> {
    return this.change(conversationId, request, (standing) => {
      requireAdmin(standing, request.caller)
      requireMember(standing, userId)
      if (standing.members.get(userId) === role)
        throw new RelayError('CONFLICT', `user ${userId} has role ${role} already`)
      if (standing.asked.has(userId)) throw new RelayError('CONFLICT', `user ${userId} has not accepted yet`)
      if (isLastAdmin(standing, userId)) throw new RelayError('CONFLICT', 'the last admin cannot become a member')
      return {
        change: 'ROLE_CHANGED',
        subjectUserIds: [userId],
        role,
        audience: [...standing.members.keys()],
        write: (tx) => tx`
          update conversation_members set role = ${role}
          where conversation_id = ${conversationId} and user_id = ${userId}`,
      }
    })
  }

  /** Admins of a group: its name, its description or both; what is absent stays. */
  describe(
    conversationId: Uuid,
    request: ChangeRequest,
    text: { name?: string | undefined; description?: string | undefined },
  ): Promise<Revised> {
    return this.change(conversationId, request, (standing) => {
      requireAdmin(standing, request.caller)
      return {
        change: 'UPDATED',
        subjectUserIds: [],
        role: null,
        audience: [...standing.members.keys()],
        write: (tx) => tx`
          update conversations
          set name = coalesce(${text.name ?? null}, name), description = coalesce(${text.description ?? null}, description)
          where conversation_id = ${conversationId}`,
      }
    })
  }

  /** Final: nothing is sent or changed after it. Admins of a group; either member of a direct one, whose pair may then begin another. */
  archive(conversationId: Uuid, request: ChangeRequest): Promise<Revised> {
    return this.change(conversationId, request, (standing) => {
      if (standing.kind === 'group') requireAdmin(standing, request.caller)
      return {
        change: 'ARCHIVED',
        subjectUserIds: [],
        role: null,
        audience: [...standing.members.keys()],
        write: (tx) => tx`
          update conversations set archived_at = ${new Date(request.nowMs)} where conversation_id = ${conversationId}`,
      }
    })
  }

  /** The caller's own and nobody else's to know: no link of the chain, no event. null ends it. */
  async mute(conversationId: Uuid, caller: Uuid, untilMs: number | null): Promise<Revised> {
    requireActive(await this.membershipOf(conversationId, caller))
    const until = untilMs === null ? null : new Date(untilMs)
    const [row] = await this.seams.sql<{ revision: number }[]>`
      update conversation_members m set muted_until = ${until} from conversations c
      where m.conversation_id = ${conversationId} and m.user_id = ${caller} and m.state in ('active', 'pending')
        and c.conversation_id = m.conversation_id
      returning c.revision`
    if (!row) throw formerMember()
    return { conversationId, revision: row.revision }
  }

  /** See listConversations. */
  list(
    reader: Uuid,
    page: { cursor: Uuid | null; limit: number },
  ): Promise<{ conversations: ConversationSummary[]; nextCursor: Uuid | null }> {
    return listConversations(this.seams.sql, reader, page)
  }

  /** See readConversation. */
  read(conversationId: Uuid, reader: Uuid, page: { afterRevision: number; limit: number }): Promise<ConversationView> {
    return readConversation(this.seams.sql, conversationId, reader, page)
  }

  /** See acceptConversation. */
  accept(conversationId: Uuid, caller: Uuid, nowMs: number): Promise<Revised> {
    return acceptConversation(this.seams, conversationId, caller, nowMs)
  }

  /** Those of the targets whose devices and keys the caller may know. [K-4.8] */
  async known(caller: Uuid, targets: Uuid[]): Promise<Set<Uuid>> {
    return this.seams.strangers === 'open' ? new Set(targets) : known(this.seams.sql, caller, targets)
  }

  /** See membershipOf. */
  membershipOf(conversationId: Uuid, userId: Uuid): Promise<Membership> {
    return membershipOf(this.seams.sql, conversationId, userId)
  }

  /** See sharesConversation. */
  sharesConversation(caller: Uuid, targets: Uuid[]): Promise<Set<Uuid>> {
    return sharesConversation(this.seams.sql, caller, targets)
  }

  /** Makes members of them; who does not know the caller is invited. [V-6.4] */
  private async seat(tx: Transaction, id: Uuid, { caller, nowMs }: ChangeRequest, userIds: Uuid[]): Promise<void> {
    const others = userIds.filter((each) => each !== caller)
    const asked = this.seams.strangers === 'ask' ? await strangersTo(tx, caller, others) : []
    await writeMembers(tx, id, userIds, nowMs, { asked, as: 'invited' })
  }

  private change(
    conversationId: Uuid,
    request: ChangeRequest,
    decide: (standing: Standing) => Change,
  ): Promise<Revised> {
    return changeConversation(this.seams, conversationId, request, decide)
  }
}

/** The first link: its subjects are all first members, the creator first. */
const created = (members: Uuid[]): Omit<Change, 'write'> => ({
  change: 'CREATED',
  subjectUserIds: members,
  role: null,
  audience: members,
})

const writeMembers = (
  tx: Transaction,
  conversationId: Uuid,
  userIds: Uuid[],
  nowMs: number,
  { asked, as }: { asked: Uuid[]; as: 'pending' | 'invited' },
) => tx`
  insert into conversation_members (conversation_id, user_id, state, joined_at)
  select ${conversationId}, u, case when u = any(${asked}::uuid[]) then ${as} else 'active' end, ${new Date(nowMs)}
  from unnest(${userIds}::uuid[]) u
  on conflict (conversation_id, user_id) do update
  set role = 'member', state = excluded.state, joined_at = excluded.joined_at, ended_at = null`

function requireGroup(standing: Standing): void {
  if (standing.kind === 'direct') throw invalid('a direct conversation keeps its two members and has no name')
}

function requireAdmin(standing: Standing, userId: Uuid): void {
  requireGroup(standing)
  if (standing.members.get(userId) !== 'admin')
    throw new RelayError('FORBIDDEN', 'only admins of the group may do this')
}

/** One answer for a user who is not a member and one who does not exist (I13). */
function requireMember(standing: Standing, userId: Uuid): void {
  if (!standing.members.has(userId)) throw new RelayError('NOT_FOUND', `user ${userId} is not a member`)
}

const isLastAdmin = (standing: Standing, userId: Uuid): boolean =>
  standing.members.get(userId) === 'admin' &&
  [...standing.members.values()].filter((each) => each === 'admin').length === 1

function refuseRepeated(userIds: Uuid[]): void {
  const seen = new Set<Uuid>()
  for (const each of userIds) {
    if (seen.has(each)) throw invalid(`user_ids names ${each} twice`)
    seen.add(each)
  }
}
