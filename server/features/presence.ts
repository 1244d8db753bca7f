// Presence: who asked is told who comes and goes, as far as he may know. Edges only, gathered, dropped first. I12 [G-2]
//
// A hint says that somebody may have come or gone; the presence store knows. Whom somebody may know is looked up in the database
// when he asks, when a conversation of theirs changes, and every few minutes, which also mends what lost hints left wrong.
import { RelayError } from '../../proto/errors.ts'
import type { Uuid } from '../../proto/ids.ts'
import type { Bus, Hint } from '../bus/bus.ts'
import type { PresenceStore } from '../bus/presence.ts'
import type { Session } from '../session.ts'
import type { Sessions } from '../sessions.ts'
import type { SettingsStore } from '../settings.ts'
import { encodeSignal } from '../signal-codec.ts'
import type { Time } from '../time.ts'
import { Arrivals } from './arrivals.ts'
import type { Feature } from './feature.ts'
import { type Watch, type Watched, Watches } from './watches.ts'

export type PresenceDeps = {
  store: PresenceStore
  bus: Bus
  sessions: Pick<Sessions, 'ofUser'>
  settings: Pick<SettingsStore, 'hidden'>
  /** Those of the targets whose presence the viewer may know. */
  visibleTo(viewer: Uuid, targets: readonly Uuid[]): Promise<Set<Uuid>>
  time: Time
  /** The relay has too much to do for signals: they wait. I12 */
  pressed(): boolean
  /** A session watches so many users from here on. */
  onWatch(session: Session, users: number): void
  /** Told how many pairs of who watches and who is watched there are. */
  meter(pairs: number): void
  /** An error nobody expected. */
  report(error: unknown): void
  /** Pairs of who watches and who is watched, on this node. I10 */
  maxPairs?: number
}

/** Changes are told together, milliseconds. [G-2.2] */
const GATHER_MS = 1_000
/** Each watch is looked up again after so long, milliseconds; looked for every so often. */
const RECHECK_MS = 5 * 60_000
const RECHECK_ROUND_MS = 10_000
/** Pairs of who watches and who is watched that are looked at in one turn of the event loop: about a microsecond each. I14 */
const PAIRS_PER_TURN = 4_000
/** About 150 bytes each. */
const MAX_PAIRS = 1_000_000
const FULL_RETRY_MS = 30_000
/** Before a store that could not be asked is asked again, milliseconds. */
const STORE_RETRY_MS = 2_000

/** The feature of PresenceSubscription and of Presence. */
export function presence(deps: PresenceDeps): Feature<'presence'> {
  const { store, bus, time, maxPairs = MAX_PAIRS } = deps
  const arrivals = new Arrivals(deps)
  /** By user, until hints of him come: also of whom another watch was the first to ask for. */
  const joining = new Map<Uuid, Promise<void>>()
  const watches = new Watches((userId, on) => {
    if (!on) return bus.leave(`presence:${userId}`)
    const joined = bus.join(`presence:${userId}`).then(() => {
      if (joining.get(userId) === joined) joining.delete(userId)
    })
    joining.set(userId, joined)
  })
  /** Of each session the subscription being worked on: the later one wins. */
  const turns = new WeakMap<Session, Promise<void>>()
  const changed = new Set<Watched>()
  const behind = new Set<Watch>()
  const unchecked = new Set<Watch>()
  let checking = false
  let flushing = false
  let cancelFlush: (() => void) | null = null
  let cancelRound: (() => void) | null = null

  function requireRoom(users: number): void {
    if (watches.size + users > maxPairs)
      throw new RelayError('OVERLOADED', 'too many users are watched', { retryAfterMs: FULL_RETRY_MS })
  }

  async function subscribe(session: Session, requestId: number, userIds: Uuid[]): Promise<void> {
    requireRoom(userIds.length)
    const may = userIds.length > 0 ? await deps.visibleTo(session.caller.userId, userIds) : new Set<Uuid>()
    // Again: after a restart everybody asks at once, and all find room before the first has taken his. I10
    requireRoom(userIds.length)
    const watch = watches.open(session, userIds, may, time.now())
    try {
      await Promise.all(userIds.map((each) => joining.get(each)))
      // Listening already: what comes from now on is looked at again.
      const unknown = [...watch.users.keys()].filter((each) => each.isOnline === null)
      const online = await store.online(unknown.map((each) => each.userId))
      for (const each of unknown) each.isOnline ??= online.has(each.userId)
    } catch (error) {
      watches.end(watch)
      deps.report(error)
      throw new RelayError('UNAVAILABLE', 'who is online is not known right now', { retryAfterMs: STORE_RETRY_MS })
    }
    if (session.state === 'closed') return watches.end(watch)
    session.connection.send(encodeSignal.presence(requestId, watches.answer(watch)))
    deps.onWatch(session, watch.users.size)
    deps.meter(watches.size)
    if (watch.users.size === 0) watches.end(watch)
    else cancelRound ??= time.after(RECHECK_ROUND_MS, round)
  }

  function note(watched: Watched | undefined): void {
    if (watched) changed.add(watched)
    if (changed.size + behind.size > 0 && !flushing) cancelFlush ??= time.after(GATHER_MS, () => void flush())
  }

  async function flush(): Promise<void> {
    cancelFlush = null
    if (deps.pressed()) return note(undefined)
    flushing = true
    try {
      const users = [...changed]
      changed.clear()
      const online = await store.online(users.map((each) => each.userId))
      let looked = 0
      for (const each of users) {
        each.isOnline = online.has(each.userId)
        for (const watch of watches.behind(each)) behind.add(watch)
        looked = await breathe(looked + each.watches.size)
      }
      await tell()
    } catch (error) {
      deps.report(error)
    }
    flushing = false
    note(undefined)
  }

  async function tell(): Promise<void> {
    let looked = 0
    for (const watch of [...behind]) {
      looked = await breathe(looked + watch.users.size)
      const send = (users: { userId: Uuid; isOnline: boolean }[]) =>
        watch.session.signal(encodeSignal.presence(0, users))
      // Who does not take it now is told with the next changes.
      if (watches.update(watch, send) || watch.session.state === 'closed') behind.delete(watch)
    }
  }

  function recheck(watch: Watch | undefined): void {
    if (!watch) return
    unchecked.add(watch)
    if (!checking) void check()
  }

  async function check(): Promise<void> {
    checking = true
    for (const watch of unchecked) {
      unchecked.delete(watch)
      if (!watch.answered || watch.session.state === 'closed') continue
      const ids = [...watch.users.keys()].map((each) => each.userId)
      try {
        watches.allow(watch, await deps.visibleTo(watch.session.caller.userId, ids), time.now())
        for (const each of watch.users.keys()) changed.add(each)
        behind.add(watch)
      } catch (error) {
        deps.report(error)
      }
    }
    checking = false
    note(undefined)
  }

  function round(): void {
    const before = time.now() - RECHECK_MS
    for (const watch of watches.all()) if (watch.checkedAtMs <= before) recheck(watch)
    cancelRound = watches.size > 0 ? time.after(RECHECK_ROUND_MS, round) : null
  }

  const recheckOf = (userId: Uuid): void => {
    for (const session of deps.sessions.ofUser(userId)) recheck(watches.of(session))
  }

  function hearConversation({ moved, members }: Extract<Hint, { kind: 'conversation' }>): void {
    const among = new Set(members)
    for (const userId of moved) {
      recheckOf(userId)
      for (const watch of watches.watched(userId)?.watches ?? [])
        if (among.has(watch.session.caller.userId)) recheck(watch)
    }
  }

  return {
    kind: 'presence',
    rate: { burst: 10, everyMs: 2_000 },

    handle(session, { requestId, userIds }) {
      const before = turns.get(session) ?? Promise.resolve()
      const done = before.then(() => subscribe(session, requestId, [...new Set(userIds)]))
      turns.set(
        session,
        done.catch(() => {}),
      )
      return done
    },

    connected: ({ caller }) => arrivals.came(caller.userId),

    gone(session) {
      const watch = watches.of(session)
      watches.end(watch)
      if (watch) behind.delete(watch)
      deps.meter(watches.size)
      arrivals.went(session.caller.userId)
    },

    hear(hint) {
      if (hint.kind === 'presence') note(watches.watched(hint.userId))
      else if (hint.kind === 'conversation') hearConversation(hint)
      else if (hint.kind === 'settings') {
        arrivals.changed(hint.userId)
        recheckOf(hint.userId)
      }
    },

    stop() {
      arrivals.stop()
      cancelFlush?.()
      cancelRound?.()
    },
  }
}

/** Lets the event loop turn when enough was done. @returns pairs looked at since it last did. */
async function breathe(looked: number): Promise<number> {
  if (looked < PAIRS_PER_TURN) return looked
  await new Promise((resolve) => setImmediate(resolve))
  return 0
}
