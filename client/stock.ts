// Which one-time keys the relay handed out or voided, and for how long they have been gone: when nobody can use them any more, their
// private halves go, too. Keys leave oldest first [K-4.1], so what is gone is everything below the oldest in stock.
import type { Transaction } from './storage.ts'
import { ordered, Table } from './tables.ts'

const DAY_MS = 24 * 3_600_000
/**
 * How long a key that left may still be used: a session opened with it, 30 days (libsignal uses no unanswered session for longer),
 * a message of that session in its sender's outbox, 6, and in our queue, 30; and as much again as people's clocks deserve.
 */
export const GONE_FOR_MS = 90 * DAY_MS
const NOTED_EVERY_MS = 7 * DAY_MS

/** One kind in the answer of `GET /v1/keys`. [H-6] */
type KindJson = { oldest_id: number | null; highest_id: number | null }
/** Ids below these. */
export type Below = { oneTime: number; kyberOneTime: number }

/** Under the time at which those were gone. @property registrationId whose: a device that began anew counts anew. */
const marks = new Table<Below & { registrationId: number }>('stock')

const gone = ({ oldest_id, highest_id }: KindJson): number => oldest_id ?? (highest_id ?? -1) + 1

/** Notes what is gone now. @returns what has been gone for long enough to be forgotten; null = nothing new. */
export function noteStock(
  tx: Transaction,
  counts: { one_time: KindJson; kyber_one_time: KindJson },
  registrationId: number,
  nowMs: number,
): Below | null {
  const all = marks.scan(tx).map(({ key, record }) => ({ key, record, atMs: Number(key) }))
  // From the future: noted by a clock that was wrong.
  const [valid, void_] = [[], []] as [typeof all, typeof all]
  for (const each of all)
    (each.record.registrationId === registrationId && each.atMs <= nowMs ? valid : void_).push(each)
  const old = valid.filter(({ atMs }) => atMs < nowMs - GONE_FOR_MS)
  for (const { key } of [...void_, ...old]) marks.delete(tx, key)
  if (nowMs - (valid.at(-1)?.atMs ?? Number.NEGATIVE_INFINITY) >= NOTED_EVERY_MS)
    marks.put(tx, ordered(nowMs), {
      ...{ oneTime: gone(counts.one_time), kyberOneTime: gone(counts.kyber_one_time), registrationId },
    })
  const last = old.at(-1)?.record
  return last ? { oneTime: last.oneTime, kyberOneTime: last.kyberOneTime } : null
}
