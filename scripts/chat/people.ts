// What is known of people: names, looked up sparingly, keys that were compared, who is there.
import { RelayError } from '../../client/index.ts'
import { nameOf } from './labels.ts'
import type { Messenger } from './messenger.ts'
import { isRequest, STRANGER } from './model.ts'

/** The relay allows 20 look-ups, then one every 30 s; some are left for what the user asks for. */
const CHECKS_AT_ONCE = 8
const CHECK_AGAIN_MS = 35_000
const WATCHED_MAX = 500

/** People of one messenger. */
export class People {
  private readonly messenger: Messenger
  private checking = false
  private left = CHECKS_AT_ONCE
  private watched = new Set<string>()
  private timer: NodeJS.Timeout | null = null

  constructor(messenger: Messenger) {
    this.messenger = messenger
  }

  /** Takes over what the device knows of somebody. */
  refresh(userId: string): void {
    const { device, notebook, state } = this.messenger
    if (userId === state.self.userId) return
    const name = device.names.user(userId)
    const compared = notebook.compared(userId)
    const hasNewKey = device.offeredIdentity(userId) !== null
    this.messenger.tell({
      type: 'person',
      userId,
      change: {
        username: name?.username ?? '',
        isChecked: name?.isChecked ?? false,
        hasNewKey,
        isVerified: compared !== null && !hasNewKey && compared === device.safetyNumber(userId),
        isOnline: device.isOnline(userId),
      },
    })
  }

  /** Somebody is called something. */
  named(userId: string): void {
    const before = this.messenger.state.people[userId] ?? STRANGER
    this.refresh(userId)
    const after = this.messenger.state.people[userId] ?? STRANGER
    if (before.isChecked && after.isChecked && before.username !== after.username)
      this.messenger.noteAbout(userId, `${nameOf(before, userId)} is called ${nameOf(after, userId)} now`)
    void this.check()
  }

  /** With every connection. */
  live(): void {
    this.watch()
    void this.check()
  }

  /** Whoever shares a conversation is watched; of who only asks nothing is told. [V-6.3] */
  watch(): void {
    const { device, state } = this.messenger
    const talks = state.chats.filter((chat) => !isRequest(state, chat))
    const everybody = talks.flatMap(({ members }) => members.map(({ userId }) => userId))
    const others = [...new Set(everybody)].filter((userId) => userId !== state.self.userId).slice(0, WATCHED_MAX)
    if (others.every((userId) => this.watched.has(userId)) && others.length === this.watched.size) return
    this.watched = new Set(others)
    device.watchPresence(others)
  }

  /** No more timers. */
  stop(): void {
    if (this.timer) clearTimeout(this.timer)
  }

  // A name that cannot be looked up now keeps its question mark, and is asked for later.
  private async check(): Promise<void> {
    const { device } = this.messenger
    if (this.checking) return
    this.checking = true
    try {
      for (const userId of device.names.unchecked()) {
        if (this.left === 0 || device.state.name !== 'live') break
        this.left--
        await device.names.check(userId)
        this.refresh(userId)
      }
    } catch (error) {
      if (error instanceof RelayError && error.code === 'RATE_LIMITED') this.left = 0
    } finally {
      this.checking = false
    }
    this.timer ??= setTimeout(() => {
      this.timer = null
      this.left = Math.max(this.left, 1)
      if (device.names.unchecked().length > 0) void this.check()
    }, CHECK_AGAIN_MS)
    this.timer.unref()
  }
}
