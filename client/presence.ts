// Who is online, of those the app watches, on this connection and as the relay says. Nothing is stored. [G-2]
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { PRESENCE_MAX_USERS } from '../proto/limits.ts'
import type { Core } from './core.ts'
import { askPatiently, Errand, type Signal } from './signal.ts'
import { idBytes, idOf, type ServerFrame } from './wire.ts'

/** A watched user came or went. */
export type PresenceEvent = { userId: Uuid; isOnline: boolean }

/** Keeps the relay's answers and tells changes only. */
export class Presence implements Signal {
  private readonly core: Core
  private readonly errand: Errand
  private watched = new Set<Uuid>()
  /** The relay watches them, on this connection. */
  private isAnswered = false
  private readonly online = new Set<Uuid>()

  constructor(core: Core, fail: (error: unknown) => void) {
    this.core = core
    this.errand = new Errand(fail)
  }

  /** Watches these and no others, on this connection and the next ones. @throws RelayError TOO_LARGE above 500. */
  watch(userIds: Uuid[]): void {
    const watched = new Set(userIds)
    if (watched.size > PRESENCE_MAX_USERS)
      throw new RelayError('TOO_LARGE', `no more than ${PRESENCE_MAX_USERS} users are watched at once`)
    if (this.isAnswered && watched.size === this.watched.size && userIds.every((each) => this.watched.has(each))) return
    this.watched = watched
    for (const userId of this.online) if (!watched.has(userId)) this.online.delete(userId)
    this.subscribe()
  }

  /** Asks anew: one's own setting may have changed what is to be seen. [G-2.3] */
  again(): void {
    if (this.watched.size > 0) this.subscribe()
  }

  /** false also for users who are not watched. */
  isOnline(userId: Uuid): boolean {
    return this.online.has(userId)
  }

  live(): void {
    this.again()
  }

  lost(): void {
    this.errand.end()
    this.isAnswered = false
    for (const userId of [...this.online]) this.apply(userId, false)
  }

  take({ presence }: ServerFrame): void {
    for (const { userId, isOnline } of presence?.users ?? []) this.apply(idOf(userId), isOnline === true)
  }

  idle(): Promise<void> {
    return this.errand.idle()
  }

  private subscribe(): void {
    if (!this.core.connection.isLive) return
    const userIds = [...this.watched].map(idBytes)
    this.isAnswered = false
    this.errand.begin(async (isWanted) => {
      const answer = await askPatiently(this.core, { presenceSubscription: { userIds } }, isWanted)
      if (!answer) return
      this.isAnswered = true
      this.take(answer)
    })
  }

  private apply(userId: Uuid, isOnline: boolean): void {
    if (this.online.has(userId) === isOnline || !this.watched.has(userId)) return
    if (isOnline) this.online.add(userId)
    else this.online.delete(userId)
    this.core.events.emit('presence', { userId, isOnline })
  }
}
