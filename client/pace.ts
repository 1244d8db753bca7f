// How fast an account's sends may leave: at once, until the relay says that it was too much; then one at a time. [S-9.4] [S-9.5]
import { RelayError } from '../proto/errors.ts'
import type { Time } from './time.ts'

const WAIT_AT_LEAST_MS = 500
/** So long after the last wait nobody was refused: all is well again. Longer than what others waited meanwhile takes to come back. */
const CAREFUL_MS = 5000

/**
 * One for all conversations: with many of them, each waiting for itself, all would be refused again together, and who is refused too
 * often is sent away for half a minute (4429).
 */
export class Pace {
  private readonly time: Time
  private readonly rest: (ms: number) => Promise<boolean>
  private refusedAtMs = Number.NEGATIVE_INFINITY
  private untilMs = Number.NEGATIVE_INFINITY
  private waiting = 0
  private last: Promise<unknown> = Promise.resolve()

  /** @param rest waits so long; false = in vain, there is nobody to send to any more: what waits runs, and finds that out itself. */
  constructor(time: Time, rest: (ms: number) => Promise<boolean>) {
    this.time = time
    this.rest = rest
  }

  /** Runs it, now or in its turn, and returns or throws what it does. A RATE_LIMITED or OVERLOADED holds all that follow back. */
  async run<T>(send: () => Promise<T>): Promise<T> {
    if (this.waiting === 0 && this.restMs() < -CAREFUL_MS) return this.watched(send)
    this.waiting++
    const turn = this.last.then(async () => {
      for (let restMs = this.restMs(); restMs > 0; restMs = this.restMs()) if (!(await this.rest(restMs))) break
      return this.watched(send)
    })
    this.last = turn.catch(() => {})
    try {
      return await turn
    } finally {
      this.waiting--
    }
  }

  /** Milliseconds that are to be waited; less than none = so long ago it was over. */
  private restMs(): number {
    // A clock that was put back does not say how long ago it was: asking does, and an hour's wait for nothing would hold up everything.
    if (this.time.now() < this.refusedAtMs) this.refusedAtMs = this.untilMs = Number.NEGATIVE_INFINITY
    return this.untilMs - this.time.now()
  }

  private async watched<T>(send: () => Promise<T>): Promise<T> {
    try {
      return await send()
    } catch (error) {
      if (error instanceof RelayError && (error.code === 'RATE_LIMITED' || error.code === 'OVERLOADED')) {
        this.refusedAtMs = this.time.now()
        this.untilMs = Math.max(this.untilMs, this.refusedAtMs + Math.max(error.retryAfterMs, WAIT_AT_LEAST_MS))
      }
      throw error
    }
  }
}
