// The first frame of a connection: whether this is our relay, what time it has, and what is due when its database went back. [C-3] [K-9]
import { hex } from './bytes.ts'
import type { Conversations } from './conversations.ts'
import type { Core } from './core.ts'
import { lookForForgotten } from './forgotten.ts'
import { expireFailed } from './outbox.ts'
import { resendAll } from './restore.ts'
import { pruneSeen } from './seen.ts'
import { unlinkAgain } from './unlinked.ts'
import type { Upkeep } from './upkeep.ts'
import { type Hello, idOf } from './wire.ts'

/** forgetful: the relay may have lost what it had committed. unexpected: told of what nobody expected. */
type Hooks = { forgetful(): void; unexpected(error: unknown): void }

/** Takes every Hello. */
export class Greeting {
  private readonly core: Core
  private readonly upkeep: Upkeep
  private readonly conversations: Conversations
  private readonly hooks: Hooks
  private mending: Promise<void> = Promise.resolve()

  constructor(core: Core, upkeep: Upkeep, conversations: Conversations, hooks: Hooks) {
    this.core = core
    this.upkeep = upkeep
    this.conversations = conversations
    this.hooks = hooks
  }

  /** @returns false when another deployment or another device is greeted: the connection was closed for good. [C-3.2] */
  take(hello: Hello): boolean {
    const { account, connection, time, storage } = this.core
    const { realm, userId, deviceId, epoch } = account.self
    if (hello.realm !== realm || idOf(hello.userId) !== userId || hello.deviceId !== deviceId) {
      connection.close('wrong_realm')
      return false
    }
    const seen = hex(hello.epoch ?? new Uint8Array(0))
    const isRestored = epoch !== '' && epoch !== seen
    storage.transaction((tx) => {
      account.updateIn(tx, { skewMs: (hello.serverTimeMs ?? time.now()) - time.now() })
      // Kept as it was until everything a restore asks for is done.
      if (!isRestored) account.updateIn(tx, { epoch: seen })
      // The earlier of two clocks, as marks have the time of either: a relay that is ahead must not make it forget what it sends again.
      const earlierMs = Math.min(account.now(), time.now())
      while (pruneSeen(tx, earlierMs));
      expireFailed(tx, earlierMs)
    })
    if (isRestored) this.mending = this.mend(seen)
    return true
  }

  /** Resolves when nothing is being mended. */
  idle(): Promise<void> {
    return this.mending
  }

  private async mend(epoch: string): Promise<void> {
    try {
      this.core.events.emit('problem', { what: 'restored', detail: 'the relay was restored from a backup' })
      this.hooks.forgetful()
      await unlinkAgain(this.core)
      await this.upkeep.replaceOneTime()
      await lookForForgotten(this.core, this.conversations.ids())
      await resendAll(this.core, (id, userId) => this.conversations.isMember(id, userId))
      this.core.account.update({ epoch })
    } catch (error) {
      this.hooks.unexpected(error)
    }
  }
}
