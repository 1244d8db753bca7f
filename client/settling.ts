// Getting to know conversations: their chains to the present, one at a time per conversation, and then what waited for that.
import type { Uuid } from '../proto/ids.ts'
import type { Conversations } from './conversations.ts'
import type { Core } from './core.ts'
import { discover } from './discovery.ts'
import { held } from './incoming.ts'

/** reviewed: the chain is known to the present, as far as it is told. unexpected: told of what nobody expected. */
type Hooks = { reviewed(id: Uuid): void; unexpected(error: unknown): void }

/** One per device. */
export class Settling {
  private readonly core: Core
  private readonly conversations: Conversations
  private readonly hooks: Hooks
  private readonly running = new Map<Uuid, Promise<void>>()
  private discovering: Promise<void> = Promise.resolve()

  constructor(core: Core, conversations: Conversations, hooks: Hooks) {
    this.core = core
    this.conversations = conversations
    this.hooks = hooks
  }

  /** A connection is live: conversations of which messages are held, and on a new device all there are. */
  live(): void {
    const waiting = this.core.storage.transaction((tx) => held.scan(tx).map(({ key }) => key.split('/')[0]!))
    for (const id of new Set(waiting)) void this.settle(id)
    this.discovering = discover(this.core, (id) => this.one(id)).catch((error) => this.hooks.unexpected(error))
  }

  /** Fetches a conversation's chain and decides about what waits for it. Never rejects. */
  settle(id: Uuid): Promise<void> {
    const running = this.running.get(id)
    if (running) return running
    const run = this.one(id)
      .catch((error) => this.hooks.unexpected(error))
      .finally(() => this.running.delete(id))
    this.running.set(id, run)
    return run
  }

  /** Before a user's key is replaced by another: what was signed with it is found true now, as far as it can be fetched. */
  async with(userId: Uuid): Promise<void> {
    const shared = this.conversations.list().filter(({ members }) => members.some((each) => each.userId === userId))
    // Without a connection, what is here has to do.
    for (const { id } of shared) await this.conversations.settle(id).catch(() => {})
  }

  /** Resolves when nothing is being fetched. */
  async idle(): Promise<void> {
    await Promise.all([this.discovering, ...this.running.values()])
  }

  private async one(id: Uuid): Promise<void> {
    await this.conversations.settle(id)
    this.hooks.reviewed(id)
  }
}
