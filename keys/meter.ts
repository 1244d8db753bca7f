// Token buckets by key: how often something may be done. One shape for all limits, so that what is counted need not know where: here in
// this process, or for all nodes together in Redis (server/bus/redis-meters.ts).
import { RelayError } from '../proto/errors.ts'

/** A bucket: burst tokens at most, one more every everyMs milliseconds (fractions down to a microsecond count). */
export type Rate = { burst: number; everyMs: number }

/** What is counted, and what happens to it while the place where all nodes count cannot be reached. */
export type Limit = {
  /** Part of the key: letters and dots. */
  name: string
  /** Buckets that each key has; none = not limited. */
  rates: Rate[]
  /** open: this node counts alone, so n nodes allow n times as much. closed: refused. */
  whenGone: 'open' | 'closed'
}

/** Tokens by bucket, in the order of Limit.rates; one number = so many of each. */
export type Amounts = number | number[]

export type Meter = {
  /**
   * Takes these tokens from all buckets of the key, or none from any. More than a bucket ever holds is given when it is full, and owed.
   * @param needs tokens that must be there, where that is more than what is taken; 0 = that bucket is not asked.
   * @returns 0; or how long until they are there if nobody else takes any, whole milliseconds; Infinity = nobody can tell now.
   */
  take(key: string, tokens: Amounts, needs?: Amounts): number | Promise<number>
  /** Puts tokens back that were taken for nothing; a bucket never holds more than its burst. Does not wait. */
  give(key: string, tokens: Amounts): void
}

/** Makes the meter of one limit; a second one of the same name counts the same. */
export type OpenMeter = (limit: Limit) => Meter

/** Keys remembered per limit. Past it the one idle longest is forgotten, that is, full again. I10 */
const MAX_KEYS = 100_000
const RETRY_MS = 1_000

/** Microseconds, so that sums are exact. */
export const everyUs = ({ everyMs }: Rate): number => Math.max(1, Math.round(everyMs * 1000))

/** As many of each bucket. */
export const amountsOf = ({ rates }: Limit, amounts: Amounts): number[] =>
  typeof amounts === 'number' ? rates.map(() => amounts) : amounts

/** What is not there yet is owed: microseconds until a bucket is full, as they were at some time. */
type Owed = { atUs: number; owedUs: number[] }

/**
 * Counts in this process, and answers at once.
 * @param clock Unix milliseconds. A clock that steps back stops the refilling until the next request and takes nothing; one that
 *   jumps ahead fills buckets. @param maxKeys per limit.
 */
export function openLocalMeters(clock: () => number, maxKeys = MAX_KEYS): LocalMeters {
  const open = new Map<string, LocalMeter>()
  return (limit) => {
    const opened = open.get(limit.name) ?? openLocalMeter(limit, clock, maxKeys)
    open.set(limit.name, opened)
    return opened
  }
}

/** Its answers need not be waited for. */
export type LocalMeter = Omit<Meter, 'take'> & {
  take(key: string, tokens: Amounts, needs?: Amounts): number
  size(): number
}
export type LocalMeters = (limit: Limit) => LocalMeter

function openLocalMeter(limit: Limit, clock: () => number, maxKeys: number): LocalMeter {
  const buckets = limit.rates.map((rate) => ({ burst: rate.burst, every: everyUs(rate) }))
  // Least recently taken from first: that one has refilled longest.
  const keys = new Map<string, Owed>()

  function now(key: string): Owed {
    const atUs = Math.round(clock() * 1000)
    const before = keys.get(key)
    const passedUs = before ? Math.max(0, atUs - before.atUs) : 0
    return { atUs, owedUs: buckets.map((_, i) => Math.max(0, (before?.owedUs[i] ?? 0) - passedUs)) }
  }
  function keep(key: string, owed: Owed): void {
    keys.delete(key)
    if (keys.size >= maxKeys) keys.delete(keys.keys().next().value!)
    keys.set(key, owed)
  }

  return {
    take(key, tokens, needs = tokens) {
      if (buckets.length === 0) return 0
      const [wanted, needed] = [amountsOf(limit, tokens), amountsOf(limit, needs)]
      const { atUs, owedUs } = now(key)
      const waits = buckets.map(({ burst, every }, i) => {
        const need = needed[i]!
        return need > 0 ? owedUs[i]! + (Math.min(need, burst) - burst) * every : 0
      })
      const waitUs = Math.max(0, ...waits)
      if (waitUs === 0) keep(key, { atUs, owedUs: owedUs.map((owed, i) => owed + wanted[i]! * buckets[i]!.every) })
      // The clock went back: it goes on from here, or nothing would refill until it is where it was.
      else if (atUs < keys.get(key)!.atUs) keys.set(key, { atUs, owedUs })
      return Math.ceil(waitUs / 1000)
    },
    give(key, tokens) {
      if (!keys.has(key)) return
      const back = amountsOf(limit, tokens)
      const { atUs, owedUs } = now(key)
      keys.set(key, { atUs, owedUs: owedUs.map((owed, i) => Math.max(0, owed - back[i]! * buckets[i]!.every)) })
    },
    size: () => keys.size,
  }
}

/** The refusal for a wait that take() named. @param what is done too often. */
export const limited = (what: string, waitMs: number): RelayError =>
  Number.isFinite(waitMs)
    ? new RelayError('RATE_LIMITED', what, { retryAfterMs: waitMs })
    : new RelayError('UNAVAILABLE', 'limits cannot be counted now', { retryAfterMs: RETRY_MS })
