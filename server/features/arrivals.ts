// Which users this node shows as online: those with a connected device who do not hide. Coming is told at once, going after a
// while, so that a reconnect is no news. [G-2.2] [G-2.3]
import type { Uuid } from '../../proto/ids.ts'
import type { Bus } from '../bus/bus.ts'
import type { PresenceStore } from '../bus/presence.ts'
import type { Sessions } from '../sessions.ts'
import type { SettingsStore } from '../settings.ts'
import type { Time } from '../time.ts'

export type ArrivalsDeps = {
  store: PresenceStore
  bus: Pick<Bus, 'publish'>
  sessions: Pick<Sessions, 'ofUser'>
  settings: Pick<SettingsStore, 'hidden'>
  time: Time
  /** An error nobody expected. */
  report(error: unknown): void
}

/** Away for so long is offline, milliseconds. [G-2.2] */
const AWAY_MS = 3_000
/** Before settings that could not be read are read again, milliseconds. */
const RETRY_MS = 1_000
/** Users whose settings are read in one statement. */
const READ_MAX = 500

export class Arrivals {
  private readonly deps: ArrivalsDeps
  /** Users shown, with a cancel for those who are about to be no more. */
  private readonly shown = new Map<Uuid, (() => void) | null>()
  private arriving = new Set<Uuid>()
  private reading = false
  /** How often anybody's settings changed: what was read before is then read again. */
  private changes = 0
  private stopped = false

  constructor(deps: ArrivalsDeps) {
    this.deps = deps
  }

  /** A device of the user is connected. */
  came(userId: Uuid): void {
    const leaving = this.shown.get(userId)
    if (leaving === null) return
    if (leaving) {
      leaving()
      this.shown.set(userId, null)
      return
    }
    this.look(userId)
  }

  /** A session of the user is over. */
  went(userId: Uuid): void {
    if (this.shown.get(userId) !== null || this.isConnected(userId)) return
    this.shown.set(
      userId,
      this.deps.time.after(AWAY_MS, () => this.hide(userId)),
    )
  }

  /** The user may have begun or ceased to hide. */
  changed(userId: Uuid): void {
    this.changes++
    this.look(userId)
  }

  /** The node goes down, and who is here is gone: nobody shall wait for that to be noticed. No timers from here on. */
  stop(): void {
    this.stopped = true
    for (const userId of [...this.shown.keys()]) this.hide(userId)
  }

  /** Users shown by this node. */
  get size(): number {
    return this.shown.size
  }

  private look(userId: Uuid): void {
    this.arriving.add(userId)
    if (this.reading || this.stopped) return
    this.reading = true
    // What arrives in this turn is read together.
    setImmediate(() => void this.read())
  }

  private async read(): Promise<void> {
    try {
      while (this.arriving.size > 0 && !this.stopped) {
        const users = [...this.arriving].slice(0, READ_MAX)
        const before = this.changes
        const hidden = await this.deps.settings.hidden(users)
        if (this.changes !== before) continue
        for (const userId of users) {
          this.arriving.delete(userId)
          if (hidden.has(userId)) this.hide(userId)
          else if (this.isConnected(userId)) this.show(userId)
        }
      }
    } catch (error) {
      this.deps.report(error)
      this.deps.time.after(RETRY_MS, () => void this.read())
      return
    }
    this.reading = false
  }

  private isConnected(userId: Uuid): boolean {
    for (const { state } of this.deps.sessions.ofUser(userId))
      if (state !== 'starting' && state !== 'closed') return true
    return false
  }

  private show(userId: Uuid): void {
    const leaving = this.shown.get(userId)
    leaving?.()
    this.shown.set(userId, null)
    if (leaving !== undefined) return
    this.deps.store.arrived(userId)
    this.deps.bus.publish({ kind: 'presence', userId })
  }

  private hide(userId: Uuid): void {
    const leaving = this.shown.get(userId)
    if (leaving === undefined) return
    leaving?.()
    this.shown.delete(userId)
    this.deps.store.left(userId)
    this.deps.bus.publish({ kind: 'presence', userId })
  }
}
