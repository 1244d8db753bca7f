// Strangers: what waits for the user's word, and whom the user wants nothing of. The relay keeps both for all devices. [V-6] [V-7]
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import type { Conversations } from './conversations.ts'
import type { Core } from './core.ts'
import type { Names } from './names.ts'

/** A conversation that waits for the user's word. @property byUserId who asks; null when nothing known here says it. */
export type Request = { conversationId: Uuid; kind: 'direct' | 'group'; byUserId: Uuid | null }
/** @property blockedAtMs by the relay's clock. */
export type Blocked = { userId: Uuid; blockedAtMs: number }

type Json = {
  conversation_id: Uuid
  kind: 'direct' | 'group'
  state: string
  archived_at_ms: number | null
  peer_user_id: Uuid | null
}
type Page = { conversations: Json[]; next_cursor: string | null }

/** A group that somebody the user blocks put him into. */
export type Unwanted = { conversationId: Uuid; byUserId: Uuid }

/** Pages of 200 that are read at most: whoever has more conversations answers some requests first. */
const PAGES_MAX = 25

/** What is asked of the user, and of the relay on the user's word. All of it throws RelayError, or Unreachable without a connection. */
export class Requests {
  private readonly core: Core
  private readonly conversations: Conversations

  constructor(core: Core, conversations: Conversations, names: Names) {
    this.core = core
    this.conversations = conversations
    // Who was invited got no message before, and so does not know what the group is called. [P-7]
    core.events.on('member_accepted', ({ conversationId, userId }) => {
      const { userId: self, deviceId } = core.account.self
      const isOurs = userId !== self && deviceId === 1 && conversations.addedBy(conversationId, userId) === self
      if (isOurs && conversations.get(conversationId)?.kind === 'group' && names.group(conversationId))
        names.tell(conversationId)
    })
  }

  /** What waits for the user's word, newest first: to be shown apart from what he talks about, and to be asked for on `conversation`. */
  async list(): Promise<Request[]> {
    const waiting: Json[] = []
    let cursor = ''
    for (let page = 0; page < PAGES_MAX; page++) {
      const query = cursor ? `?limit=200&cursor=${cursor}` : '?limit=200'
      const answer = await this.core.account.http.call<Page>('GET', `/v1/conversations${query}`)
      waiting.push(...answer.conversations.filter((each) => isWaiting(each)))
      if (!answer.next_cursor) break
      cursor = answer.next_cursor
    }
    return Promise.all(waiting.map((each) => this.requestOf(each)))
  }

  /** The user wants it: messages come and go from now on, and the other side sees more of the user than a name. [V-6.7] */
  async accept(conversationId: Uuid): Promise<void> {
    await this.core.account.http.call('POST', `/v1/conversations/${conversationId}/accept`)
    await this.conversations.refresh(conversationId)
  }

  /** The user does not want it: leaves the group, or ends the direct conversation, which the others see. `block` shows nothing. */
  async decline(conversationId: Uuid): Promise<void> {
    await this.conversations.refresh(conversationId)
    if (this.conversations.get(conversationId)?.kind === 'direct') return this.conversations.archive(conversationId)
    const { userId } = this.core.account.self
    // Not signed: to verify it, strangers would have to be given this user's keys. [V-6.5]
    await this.core.account.http.call('DELETE', `/v1/conversations/${conversationId}/members/${userId}`)
  }

  /** Nothing comes from that user in their direct conversation any more, and he cannot tell. Messages in groups they share still come. [V-7] */
  async block(userId: Uuid): Promise<void> {
    await this.core.account.http.call('PUT', `/v1/blocks/${userId}`)
  }
  async unblock(userId: Uuid): Promise<void> {
    await this.core.account.http.call('DELETE', `/v1/blocks/${userId}`)
  }
  /** Whom the user blocks. */
  async blocked(): Promise<Blocked[]> {
    type Answer = { blocks: { user_id: Uuid; blocked_at_ms: number }[] }
    const { blocks } = await this.core.account.http.call<Answer>('GET', '/v1/blocks')
    return blocks.map((each) => ({ userId: each.user_id, blockedAtMs: each.blocked_at_ms }))
  }

  /**
   * Groups the user is a member of because somebody he blocks made them or added him: to be said to him, who may leave. As far as
   * the chains are known here, which is the relay's word. [V-7.2]
   */
  async unwanted(): Promise<Unwanted[]> {
    const blocked = new Set((await this.blocked()).map(({ userId }) => userId))
    if (blocked.size === 0) return []
    const { userId } = this.core.account.self
    const found: Unwanted[] = []
    for (const { id, kind, archived } of this.conversations.list()) {
      const byUserId = kind === 'group' && !archived ? this.conversations.addedBy(id, userId) : null
      if (byUserId === null || !blocked.has(byUserId)) continue
      // Who is a member is known once the chain was verified; of a group the user left, the relay tells no more.
      const roster = await this.conversations.settle(id).catch((error: unknown) => {
        if (error instanceof RelayError && error.code === 'FORBIDDEN') return null
        throw error
      })
      if (roster?.members.has(userId) && !roster.archived) found.push({ conversationId: id, byUserId })
    }
    return found
  }

  private async requestOf({ conversation_id: conversationId, kind, peer_user_id: peer }: Json): Promise<Request> {
    if (kind === 'direct') return { conversationId, kind, byUserId: peer }
    const { userId } = this.core.account.self
    // The event of it may not have come: no more than some of one user's wait at a time. [V-6.6]
    if (!this.conversations.addedBy(conversationId, userId)) await this.conversations.refresh(conversationId)
    return { conversationId, kind, byUserId: this.conversations.addedBy(conversationId, userId) }
  }
}

const isWaiting = ({ state, archived_at_ms: archivedAtMs }: Json): boolean =>
  archivedAtMs === null && (state === 'pending' || state === 'invited')
