// The way down: unready first, then everybody is sent away in groups, what is under way is answered, and then it is over. However
// clients behave, it ends in time. [C-8]
//
//   serving    all goes on
//   unready    all goes on, and /readyz says 503: balancers look elsewhere
//   leaving    nobody new is let in; who is here is sent away, group by group, and is served until it is his turn
//   ending     nothing new is begun
import { CLOSE } from './connection.ts'
import type { Log } from './observe.ts'
import type { Session } from './session.ts'
import type { Time } from './time.ts'

type Stage = 'serving' | 'unready' | 'leaving' | 'ending'

/** The operator's choices. */
export type DrainSettings = {
  /** Between /readyz saying 503 and the first goodbye, milliseconds. */
  pauseMs: number
  /** Goodbyes in a second; more, if the grace period would not suffice. */
  perSecond: number
  /** From the signal to the end of the process, milliseconds. */
  graceMs: number
}

/** What goes down. */
export type DrainParts = {
  /** Those connected here; who is gone is not among them any more. */
  sessions: { all(): Iterable<Session> }
  /** Opens the door to nobody new. */
  shut(): void
  /** Tells those who wait for something other than envelopes. */
  goAway(): void
  /** Resolves when all requests are answered. Some client never finishes his body. */
  requestsOver(): Promise<void>
  /** Resolves when what was accepted for writing is committed. */
  committed(): Promise<void>
}

/** random: in [0, 1). */
export type DrainDeps = { time: Time; random(): number; log: Pick<Log, 'warn'> }

/** Clients sent away come back spread over this time, milliseconds. [C-8] */
export const RETURN_SPREAD_MS = 5_000
/** One group of goodbyes after the other, milliseconds. */
const GROUP_MS = 100
/** How long requests under way are waited for, milliseconds. */
const REQUESTS_MAX_MS = 5_000
/** Time for goodbyes to leave, milliseconds. */
const GOODBYE_MS = 100
/** How long background work is waited for, milliseconds. */
const BACKGROUND_MAX_MS = 1_000
/** Of the grace period, for what comes after: background work and databases, milliseconds. */
const RESERVE_MS = 3_000
const RESERVE_SHARE = 0.2

/** One relay's way down. */
export class Drain {
  stage: Stage = 'serving'
  private readonly settings: DrainSettings
  private readonly deps: DrainDeps

  constructor(settings: DrainSettings, deps: DrainDeps) {
    this.settings = settings
    this.deps = deps
  }

  /** Whether nobody new is let in. */
  get shut(): boolean {
    return this.stage === 'leaving' || this.stage === 'ending'
  }

  /**
   * Goes all the way. What was accepted is committed and answered before its connection is closed, as far as time allows.
   * @returns false when something was still under way at the end of the time. Resolves in any case, RESERVE_MS before the grace
   * period is over.
   */
  async run(parts: DrainParts): Promise<boolean> {
    const { pauseMs, graceMs } = this.settings
    const leftMs = graceMs - Math.min(RESERVE_MS, graceMs * RESERVE_SHARE)
    let cancel = (): void => {}
    const late = new Promise<false>((resolve) => {
      cancel = this.deps.time.after(leftMs, () => resolve(false))
    })
    this.stage = 'unready'
    if (pauseMs > 0) await this.pass(Math.min(pauseMs, leftMs))
    this.stage = 'leaving'
    parts.shut()
    parts.goAway()
    // Who was let in before is connected two turns later, and answers on their way leave with the first.
    for (let turns = 0; turns < 3; turns++) await new Promise((resolve) => setImmediate(resolve))
    const done = await Promise.race([this.leave(parts, leftMs - pauseMs).then(() => true), late])
    this.stage = 'ending'
    cancel()
    const left = [...parts.sessions.all()]
    if (!done)
      this.deps.log.warn({ connections: left.length }, 'the grace period is over before everything was answered')
    for (const session of left) session.close(CLOSE.GOING_AWAY, 'going away')
    await this.pass(GOODBYE_MS)
    return done
  }

  /** Waits for what works in the background to stop, but not long: whatever it does, it does in transactions. */
  async stopped(background: Promise<unknown>[]): Promise<void> {
    await Promise.race([Promise.all(background), this.pass(BACKGROUND_MAX_MS)])
  }

  private async leave(parts: DrainParts, leftMs: number): Promise<void> {
    await this.sayGoodbyes([...parts.sessions.all()], leftMs / 2)
    this.stage = 'ending'
    await Promise.all([Promise.race([parts.requestsOver(), this.pass(REQUESTS_MAX_MS)]), parts.committed()])
  }

  /** In groups, so that they do not all come to the other nodes at once. Resolves when the last of them is gone. */
  private async sayGoodbyes(sessions: Session[], withinMs: number): Promise<void> {
    const groups = Math.max(1, Math.floor(withinMs / GROUP_MS))
    const share = Math.ceil(Math.max((this.settings.perSecond * GROUP_MS) / 1000, sessions.length / groups))
    const leaving: Promise<void>[] = []
    for (let at = 0; at < sessions.length; at += share) {
      if (at > 0) await this.pass(GROUP_MS)
      for (const session of sessions.slice(at, at + share))
        leaving.push(session.leave(Math.floor(this.deps.random() * RETURN_SPREAD_MS)))
    }
    await Promise.all(leaving)
  }

  private pass(ms: number): Promise<void> {
    return new Promise((resolve) => void this.deps.time.after(ms, resolve))
  }
}
