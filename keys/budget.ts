// Fetch budgets: who may have how many bundles, and how many of them with one-time keys. [K-5]
import type { Uuid } from '../proto/ids.ts'
import { type Meter, openLocalMeters, type Rate } from './meter.ts'

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
  charge(caller: Uuid, devices: number): Promise<number>
  /**
   * Admits a request or refuses it whole. Refused: what was charged is given back, so the wait it names is honest. Admitted: each
   * device is charged one bundle, and one one-time token of the pair and of the target where both have one, before the
   * claim; a claim that then finds no stock or fails is not paid back.
   * @param sharing which of these devices belong to users who share a conversation with the caller; asked only when it
   *   decides something.
   */
  admit(caller: Uuid, groups: Group[], sharing: (deviceKeys: number[]) => Promise<Set<number>>): Promise<Admission>
}

const MINUTE = 60_000

/** The protocol's rates. [K-5.1] [K-5.2] [K-5.3] */
export const FETCH_RATES = {
  pairOneTime: { burst: 6, everyMs: 10 * MINUTE },
  pairBundles: { burst: 30, everyMs: (10 * MINUTE) / 30 },
  caller: { burst: 1000, everyMs: 100 },
  target: { burst: 100, everyMs: MINUTE },
} satisfies Record<string, Rate>

/** What is counted where: by caller, by caller and device, by device. @property reserve of a target's tokens, kept for callers who share. */
export type FetchMeters = { caller: Meter; pairBundles: Meter; pairOneTime: Meter; target: Meter; reserve: number }

/** Budgets counted by these meters. A meter that cannot tell gives no one-time keys. */
export function openFetchBudget({ caller, pairBundles, pairOneTime, target, reserve }: FetchMeters): FetchBudget {
  /** Those devices of which the caller gets a one-time key, and which of the others only want for what is kept. */
  async function oneTimeOf(user: Uuid, deviceKeys: number[]) {
    const [given, kept]: [number[], number[]] = [[], []]
    await Promise.all(
      deviceKeys.map(async (key) => {
        if ((await pairOneTime.take(`${user}:${key}`, 1)) > 0) return
        if ((await target.take(`${key}`, 1, reserve + 1)) === 0) given.push(key)
        else kept.push(key)
      }),
    )
    return { given, kept }
  }

  return {
    charge: async (user, devices) => caller.take(user, devices),

    async admit(user, groups, sharing) {
      const all = groups.flatMap((group) => group.deviceKeys)
      const waits = new Map<number, number>()
      await Promise.all(
        all.map(async (key) => {
          waits.set(key, await pairBundles.take(`${user}:${key}`, 1))
        }),
      )
      for (const [groupIndex, { deviceKeys }] of groups.entries()) {
        const retryAfterMs = Math.max(0, ...deviceKeys.map((key) => waits.get(key)!))
        if (retryAfterMs === 0) continue
        for (const [key, waitMs] of waits) if (waitMs === 0) pairBundles.give(`${user}:${key}`, 1)
        return { admitted: false, groupIndex, retryAfterMs }
      }
      const { given, kept } = await oneTimeOf(user, all)
      const shares = kept.length === 0 ? new Set<number>() : await sharing(kept)
      await Promise.all(
        kept.map(async (key) => {
          if (shares.has(key) && (await target.take(`${key}`, 1)) === 0) given.push(key)
          else pairOneTime.give(`${user}:${key}`, 1)
        }),
      )
      return { admitted: true, oneTime: new Set(given) }
    },
  }
}

/** Budgets of the protocol's rates, counted in this process. @param clock Unix milliseconds. */
export function usualFetchBudget(clock: () => number): FetchBudget {
  const open = openLocalMeters(clock)
  const meter = (name: keyof typeof FETCH_RATES): Meter => open({ name, rates: [FETCH_RATES[name]], whenGone: 'open' })
  return openFetchBudget({
    ...{ caller: meter('caller'), pairBundles: meter('pairBundles'), pairOneTime: meter('pairOneTime') },
    ...{ target: meter('target'), reserve: reserveOf([FETCH_RATES.target]) },
  })
}

/** Half of what a target has. [K-5.3] */
export const reserveOf = ([rate]: Rate[]): number => Math.floor((rate?.burst ?? 0) / 2)
