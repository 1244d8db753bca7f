// How long to stay away after a connection ended. [C-8] [C-8.1]
import type { Time } from './time.ts'

const MAX_MS = 30_000
const SOON_MS = 10_000
const BROKEN = 1006
const FLOODING = 4429

/** What is known of an end. @property openMs how long it had been open; null = it never opened. */
export type Ending = { code: number; openMs: number | null; retryAfterMs: number | null }

/** Counts the failures since the last time all was well. */
export class Backoff {
  private readonly time: Time
  private failures = 0
  private brokenSoon = 0

  constructor(time: Time) {
    this.time = time
  }

  /** All is well: the next failure is the first. */
  reset(): void {
    this.failures = 0
  }

  /**
   * Milliseconds to wait before connecting again: 1, 2, 4 … 30 s with full jitter, above the relay's own hint.
   * Twice 1006 within 10 s of opening is an end that will repeat itself: at least 30 s. An upgrade that never opened
   * does not count for that; a relay that restarts would cost everybody half a minute.
   */
  after({ code, openMs, retryAfterMs }: Ending): number {
    const jittered = this.time.random() * Math.min(MAX_MS, 1000 * 2 ** this.failures)
    this.failures = Math.min(this.failures + 1, 16)
    if (openMs !== null) this.brokenSoon = code === BROKEN && openMs < SOON_MS ? this.brokenSoon + 1 : 0
    const least = this.brokenSoon >= 2 || code === FLOODING ? MAX_MS : (retryAfterMs ?? 0)
    return least + jittered
  }
}
