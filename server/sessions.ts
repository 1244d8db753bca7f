// The sessions of this node by device: one per device, the newer wins (I6). Committed rows come in here and find their session.

import type { Uuid } from '../proto/ids.ts'
import { encode } from './codec.ts'
import { CLOSE } from './connection.ts'
import { RETURN_SPREAD_MS } from './drain.ts'
import type { Committed } from './frames.ts'
import type { Queue, Standing } from './queue.ts'
import type { Session } from './session.ts'

/** Every session's tail is read again within this time: a commit whose answer was lost has nobody to announce it. */
const REPOLL_MS = 5_000
/** One slice of it; sessions per slice follow from how many there are. */
const REPOLL_SLICE_MS = 250
/** A small node does not read more often than this. */
const ROUND_MIN_MS = 1_000
/** A token's end is announced so long before it comes. [C-6] */
const EXPIRY_NOTICE_MS = 30_000
/** A connection is asked for a sign of life this often. [C-4] */
const PING_MS = 30_000

export type SessionsDeps = {
  queue: Queue
  /** Unix milliseconds. */
  clock: () => number
  /** Milliseconds that only grow, whatever happens to the clock; the machine's unless said. */
  monotonic?: () => number
  /** An error nobody expected. */
  report(error: unknown): void
  /** A session ended because its device is connected on another node, and how that was found out. */
  onTakenOver?(by: 'hint' | 'database'): void
}

export class Sessions {
  private readonly deps: SessionsDeps
  private readonly monotonic: () => number
  private readonly byDevice = new Map<number, Session>()
  /** Of each user the sessions that are not over; a displaced one is there until its socket is gone. */
  private readonly byUser = new Map<Uuid, Set<Session>>()
  private readonly warned = new WeakSet<Session>()
  private readonly pinged = new WeakMap<Session, number>()
  private round: Session[] = []
  private timer: NodeJS.Timeout | null = null
  private roundAtMs = 0
  private asking = false

  constructor(deps: SessionsDeps) {
    this.deps = deps
    this.monotonic = deps.monotonic ?? (() => performance.now())
  }

  get size(): number {
    return this.byDevice.size
  }

  get(deviceKey: number): Session | undefined {
    return this.byDevice.get(deviceKey)
  }

  /** The sessions of a user's devices on this node. */
  ofUser(userId: Uuid): Iterable<Session> {
    return this.byUser.get(userId) ?? []
  }

  /** Makes this session the device's consumer; an older one is closed with 4409 and delivers nothing more. [C-5] */
  register(session: Session): void {
    const { deviceKey, userId } = session.caller
    const older = this.byDevice.get(deviceKey)
    if (older) session.reading = older.reading
    this.byDevice.set(deviceKey, session)
    const siblings = this.byUser.get(userId)
    if (siblings) siblings.add(session)
    else this.byUser.set(userId, new Set([session]))
    older?.displaced()
  }

  /** Forgets a session that is over; a newer one of the same device stays. */
  remove(session: Session): void {
    const { deviceKey, userId } = session.caller
    if (this.byDevice.get(deviceKey) === session) this.byDevice.delete(deviceKey)
    const siblings = this.byUser.get(userId)
    siblings?.delete(session)
    if (siblings?.size === 0) this.byUser.delete(userId)
  }

  /**
   * Offers committed rows to the devices connected here; best effort, their queues hold them.
   * @param elsewhere gets the rows of devices that are not.
   */
  fanOut(rows: Committed[], elsewhere?: (row: Committed) => void): void {
    for (const row of rows) {
      const session = this.byDevice.get(row.deviceKey)
      if (session) session.offer(row.delivery)
      else elsewhere?.(row)
    }
  }

  /** These devices may have rows nobody will announce. */
  lookAgain(deviceKeys: number[]): void {
    for (const key of deviceKeys) this.byDevice.get(key)?.hear(Number.POSITIVE_INFINITY)
  }

  /** Somewhere a connection of the device has this epoch. [C-5] */
  takenOver(deviceKey: number, epoch: number): void {
    if (this.byDevice.get(deviceKey)?.yieldTo(epoch)) this.deps.onTakenOver?.('hint')
  }

  /**
   * Asks the database whether the device's session here is still its consumer, and ends it if not. I6
   * @returns its epoch if it is.
   */
  async confirm(deviceKey: number): Promise<number | null> {
    const session = this.byDevice.get(deviceKey)
    if (!session?.epoch) return null
    await this.compare([session])
    return session.state === 'closed' ? null : session.epoch
  }

  /** The device was unlinked. [C-8] */
  unlinked(deviceKey: number): void {
    this.byDevice.get(deviceKey)?.close(CLOSE.CREDENTIAL_GONE, 'unlinked')
  }

  /** All that are connected. */
  all(): Iterable<Session> {
    return this.byDevice.values()
  }

  /** The database went back under it: its numbers say nothing any more. Who is sent away so comes back spread over some time. [C-8] [K-9] */
  private sendBack(session: Session): void {
    if (session.state === 'closed') return
    session.connection.send(encode.goingAway('SHUTDOWN', Math.floor(Math.random() * RETURN_SPREAD_MS)))
    session.close(CLOSE.GOING_AWAY, 'the database went back')
  }

  /** Starts the re-poll; `stop` ends it. */
  watch(): { stop(): void } {
    this.timer = setInterval(() => {
      this.slice().catch((error: unknown) => this.deps.report(error))
    }, REPOLL_SLICE_MS)
    return {
      stop: () => {
        if (this.timer) clearInterval(this.timer)
      },
    }
  }

  private async slice(): Promise<void> {
    if (this.round.length === 0) {
      const nowMs = this.monotonic()
      if (nowMs - this.roundAtMs < ROUND_MIN_MS) return
      this.roundAtMs = nowMs
      this.round = [...this.byDevice.values()]
    }
    const share = Math.max(50, Math.ceil((this.byDevice.size * REPOLL_SLICE_MS) / REPOLL_MS))
    const sessions = this.round.splice(0, share).filter((each) => each.state !== 'closed')
    if (sessions.length === 0) return
    this.expire(sessions)
    this.ping(sessions)
    // One question at a time: a database that hangs is not asked again and again.
    if (this.asking) return
    this.asking = true
    await this.compare(sessions).finally(() => {
      this.asking = false
    })
  }

  /** What the database says of these devices decides: rows nobody announced, and connections nobody told of. */
  private async compare(sessions: Session[]): Promise<void> {
    const { queue, onTakenOver } = this.deps
    // As they were before: what a session got since is newer than the answer.
    const asked = sessions.map(({ sentUpTo, epoch, history }) => ({ sentUpTo, epoch, history }))
    const standings = await queue.tails(sessions.map((each) => each.caller.deviceKey))
    const unsaid: { deviceKey: number; epoch: number }[] = []
    let now = ''
    for (const [i, session] of sessions.entries()) {
      const { deviceKey } = session.caller
      const standing = standings.get(deviceKey)
      if (!standing) this.unlinked(deviceKey)
      else if (session.yieldTo(standing.epoch)) onTakenOver?.('database')
      else if (wentBack(asked[i]!, standing)) this.sendBack(session)
      else if (session.state !== 'closed') {
        session.hear(standing.tail)
        now = standing.history
        const { epoch } = asked[i]!
        if (epoch > standing.epoch) unsaid.push({ deviceKey, epoch })
      }
    }
    if (unsaid.length > 0) await queue.claim(unsaid, now)
  }

  /** [C-4] */
  private ping(sessions: Session[]): void {
    const nowMs = this.monotonic()
    for (const session of sessions) {
      if (nowMs - (this.pinged.get(session) ?? Number.NEGATIVE_INFINITY) < PING_MS) continue
      this.pinged.set(session, nowMs)
      session.connection.ping()
    }
  }

  /** [C-6] */
  private expire(sessions: Session[]): void {
    const nowMs = this.deps.clock()
    for (const session of sessions) {
      const leftMs = session.expiresAtMs - nowMs
      if (leftMs <= EXPIRY_NOTICE_MS && !this.warned.has(session)) {
        this.warned.add(session)
        session.connection.send(encode.goingAway('TOKEN_EXPIRED', Math.max(0, leftMs)))
      }
      if (leftMs > EXPIRY_NOTICE_MS) this.warned.delete(session)
      if (leftMs <= 0) session.close(CLOSE.CREDENTIAL_GONE, 'token expired')
    }
  }
}

/**
 * Whether the database lost what this session got from it: a restore, or a replica that lagged and took over. Either it says so, or
 * a number that never falls fell. What comes now would look old, or newer connections older (I6).
 */
const wentBack = (
  { sentUpTo, epoch, history }: Pick<Session, 'sentUpTo' | 'epoch' | 'history'>,
  now: Standing,
): boolean => (history !== '' && history !== now.history) || epoch > now.newest || sentUpTo > now.tail
