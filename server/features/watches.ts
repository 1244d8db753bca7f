// Who watches whose presence on this node, what each was told, and what is news to him. No input, no output, no time. [G-2]
import type { Uuid } from '../../proto/ids.ts'
import type { Session } from '../session.ts'

/** A user somebody watches. isOnline is null until the store was asked. */
export type Watched = { readonly userId: Uuid; isOnline: boolean | null; readonly watches: Set<Watch> }

/** What a session wants to know. */
export type Watch = {
  readonly session: Session
  /** Of each user whether the session may know (MAY) and whether he was told that the user is online (TOLD). */
  readonly users: Map<Watched, number>
  /** It was answered: from then on it is told of changes. */
  answered: boolean
  checkedAtMs: number
}

const TOLD = 1
const MAY = 2

export class Watches {
  private readonly byUser = new Map<Uuid, Watched>()
  private readonly bySession = new Map<Session, Watch>()
  private entries = 0
  private readonly listen: (userId: Uuid, on: boolean) => void

  /** @param listen told when the first comes to watch a user, and when the last is gone. */
  constructor(listen: (userId: Uuid, on: boolean) => void) {
    this.listen = listen
  }

  /** Pairs of who watches and who is watched. */
  get size(): number {
    return this.entries
  }

  of(session: Session): Watch | undefined {
    return this.bySession.get(session)
  }

  watched(userId: Uuid): Watched | undefined {
    return this.byUser.get(userId)
  }

  all(): Iterable<Watch> {
    return this.bySession.values()
  }

  /** A watch that takes the session's former one's place once `answer` was called. */
  open(session: Session, userIds: readonly Uuid[], may: ReadonlySet<Uuid>, nowMs: number): Watch {
    const watch: Watch = { session, users: new Map(), answered: false, checkedAtMs: nowMs }
    for (const userId of userIds) {
      let watched = this.byUser.get(userId)
      if (!watched) {
        watched = { userId, isOnline: null, watches: new Set() }
        this.byUser.set(userId, watched)
        this.listen(userId, true)
      }
      watched.watches.add(watch)
      watch.users.set(watched, may.has(userId) ? MAY : 0)
      this.entries++
    }
    return watch
  }

  /** Everybody in it as the session may know them; it is told of changes from here on. */
  answer(watch: Watch): { userId: Uuid; isOnline: boolean }[] {
    this.end(this.bySession.get(watch.session))
    this.bySession.set(watch.session, watch)
    watch.answered = true
    return [...watch.users.keys()].map((watched) => ({ userId: watched.userId, isOnline: tell(watch, watched) }))
  }

  /** What the session does not know yet; counts as told if `send` takes it. */
  update(watch: Watch, send: (users: { userId: Uuid; isOnline: boolean }[]) => boolean): boolean {
    const news = [...watch.users].filter(([watched, seen]) => isNews(watched, seen)).map(([watched]) => watched)
    if (news.length === 0) return true
    const users = news.map((watched) => ({ userId: watched.userId, isOnline: is(watched, watch.users.get(watched)!) }))
    if (!send(users)) return false
    for (const watched of news) tell(watch, watched)
    return true
  }

  /** Whom the session may know was looked up again. */
  allow(watch: Watch, may: ReadonlySet<Uuid>, nowMs: number): void {
    watch.checkedAtMs = nowMs
    for (const [watched, seen] of watch.users)
      watch.users.set(watched, may.has(watched.userId) ? seen | MAY : seen & ~MAY)
  }

  /** Those whom this user's state is news to. */
  behind(watched: Watched): Watch[] {
    return [...watched.watches].filter((watch) => watch.answered && isNews(watched, watch.users.get(watched)!))
  }

  end(watch: Watch | undefined): void {
    if (!watch) return
    if (this.bySession.get(watch.session) === watch) this.bySession.delete(watch.session)
    for (const watched of watch.users.keys()) {
      this.entries--
      watched.watches.delete(watch)
      if (watched.watches.size > 0) continue
      this.byUser.delete(watched.userId)
      this.listen(watched.userId, false)
    }
    watch.users.clear()
  }
}

/** Online as far as this watch may know. */
const is = (watched: Watched, seen: number): boolean => (seen & MAY) !== 0 && watched.isOnline === true
const isNews = (watched: Watched, seen: number): boolean => is(watched, seen) !== ((seen & TOLD) !== 0)

function tell(watch: Watch, watched: Watched): boolean {
  const seen = watch.users.get(watched)!
  const isOnline = is(watched, seen)
  watch.users.set(watched, isOnline ? seen | TOLD : seen & ~TOLD)
  return isOnline
}
