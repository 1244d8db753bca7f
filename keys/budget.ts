// Fetch budgets: who may have how many bundles, and how many of them with one-time keys. Token buckets in this process;
// n nodes allow n times as much, until an implementation over Redis takes this one's place behind FetchBudget. [K-5]
import type { Uuid } from '../proto/ids.ts'

/** The devices of one target, admitted or refused together. */
export type Group = { deviceKeys: number[] }

/** Per group of the request: its devices that may cost one-time keys; or how long to wait, milliseconds. */
export type Admission =
  | { admitted: true; oneTime: Set<number> }
  | { admitted: false; groupIndex: number; retryAfterMs: number }

export type FetchBudget = {
  /**
   * Charges a caller for looking up so many devices.
   * @returns 0, or how long to wait in milliseconds; then nothing was charged.
   */
  charge(caller: Uuid, devices: number, nowMs: number): Promise<number>
  /**
   * Admits a request or refuses it whole. Refused: nothing was charged, so the wait it names is honest. Admitted: each
   * device is charged one bundle, and one one-time token of the pair and of the target where both have one, before the
   * claim; a claim that then finds no stock or fails is not paid back.
   * @param sharing which of these devices belong to users who share a conversation with the caller; asked only when it
   *   decides something.
   */
  admit(
    caller: Uuid,
    groups: Group[],
    nowMs: number,
    sharing: (deviceKeys: number[]) => Promise<Set<number>>,
  ): Promise<Admission>
}

/** burst tokens at most, one more every everyMs milliseconds. */
export type Rate = { burst: number; everyMs: number }

const MINUTE = 60_000

/** The protocol's rates. [K-5.1] [K-5.2] [K-5.3] */
export const FETCH_RATES = {
  pairOneTime: { burst: 6, everyMs: 10 * MINUTE },
  pairBundles: { burst: 30, everyMs: (10 * MINUTE) / 30 },
  caller: { burst: 1000, everyMs: 100 },
  target: { burst: 100, everyMs: MINUTE },
  /** Of a target's tokens, kept for callers who share a conversation. */
  targetReserve: 50,
} satisfies Record<string, Rate | number>

/** Buckets of a sort that are remembered. Past it the one idle longest is forgotten, that is, full again. I10 */
const MAX_BUCKETS = 100_000

/**
 * Budgets in memory, bounded. Forgetting a pair early is bounded too: its target's bucket and the caller's stand behind it.
 * @param options.maxBuckets per sort of bucket, at least the devices of one request.
 */
export function openFetchBudget(options: { rates?: typeof FETCH_RATES; maxBuckets?: number } = {}): FetchBudget {
  const { rates = FETCH_RATES, maxBuckets = MAX_BUCKETS } = options
  const callers = openBuckets<Uuid>(rates.caller, maxBuckets)
  const pairBundles = openBuckets<string>(rates.pairBundles, maxBuckets)
  const pairOneTime = openBuckets<string>(rates.pairOneTime, maxBuckets)
  const targets = openBuckets<number>(rates.target, maxBuckets)

  return {
    async charge(caller, devices, nowMs) {
      const waitMs = callers.waitMs(caller, devices, nowMs)
      if (waitMs === 0) callers.take(caller, devices, nowMs)
      return waitMs
    },

    async admit(caller, groups, nowMs, sharing) {
      const all = groups.flatMap((group) => group.deviceKeys)
      const reserved = all.filter((key) => !targets.has(key, rates.targetReserve + 1, nowMs))
      const shares = reserved.length === 0 ? new Set<number>() : await sharing(reserved)

      // From here to the end nothing is awaited: requests are charged one after the other.
      for (const [groupIndex, { deviceKeys }] of groups.entries()) {
        const retryAfterMs = Math.max(0, ...deviceKeys.map((key) => pairBundles.waitMs(`${caller}:${key}`, 1, nowMs)))
        if (retryAfterMs > 0) return { admitted: false, groupIndex, retryAfterMs }
      }
      const oneTime = new Set<number>()
      for (const key of all) {
        const pair = `${caller}:${key}`
        pairBundles.take(pair, 1, nowMs)
        const floor = shares.has(key) ? 0 : rates.targetReserve
        if (!pairOneTime.has(pair, 1, nowMs) || !targets.has(key, floor + 1, nowMs)) continue
        pairOneTime.take(pair, 1, nowMs)
        targets.take(key, 1, nowMs)
        oneTime.add(key)
      }
      return { admitted: true, oneTime }
    },
  }
}

/** Token buckets of one rate, by key. A bucket that is not here is full. */
export function openBuckets<Key>({ burst, everyMs }: Rate, maxBuckets: number) {
  // When each bucket is full again: whole milliseconds, so a wait that was named is exactly enough.
  // Least recently taken from first: that one has refilled longest.
  const fullAtMs = new Map<Key, number>()
  const emptyMs = burst * everyMs
  // At worst empty: a clock that steps back costs no more than that.
  const untilFullMs = (key: Key, nowMs: number): number =>
    Math.min(emptyMs, Math.max(0, (fullAtMs.get(key) ?? 0) - nowMs))
  /** 0 = there are that many now; otherwise milliseconds until then. @param tokens at most burst. */
  const waitMs = (key: Key, tokens: number, nowMs: number): number =>
    Math.max(0, untilFullMs(key, nowMs) + tokens * everyMs - emptyMs)
  return {
    waitMs,
    has: (key: Key, tokens: number, nowMs: number): boolean => waitMs(key, tokens, nowMs) === 0,
    /** Trusts that the bucket has them. */
    take(key: Key, tokens: number, nowMs: number): void {
      const full = nowMs + untilFullMs(key, nowMs) + tokens * everyMs
      fullAtMs.delete(key)
      if (fullAtMs.size >= maxBuckets) fullAtMs.delete(fullAtMs.keys().next().value!)
      fullAtMs.set(key, full)
    },
    size: (): number => fullAtMs.size,
  }
}
