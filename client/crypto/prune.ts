// Private halves that nobody can use any more are deleted: who finds the store later cannot read with them what went by earlier.
import type { Transaction } from '../storage.ts'
import { TABLE } from './stores.ts'

const ONE_TIME = 0

/**
 * One-time keys with ids below these; signed and last-resort keys are `retire`'s. Also what was noted of uses of last-resort keys
 * that are deleted: their messages cannot be decrypted again.
 */
export function prune(tx: Transaction, below: { oneTime: number; kyberOneTime: number }): void {
  for (const { key } of tx.scan(TABLE.prekeys)) if (Number(key) < below.oneTime) tx.delete(TABLE.prekeys, key)
  for (const { key, value } of tx.scan(TABLE.kyber))
    if (value[0] === ONE_TIME && Number(key) < below.kyberOneTime) tx.delete(TABLE.kyber, key)
  for (const { key } of tx.scan(TABLE.kyberUsed))
    if (!tx.get(TABLE.kyber, key.split('.')[0]!)) tx.delete(TABLE.kyberUsed, key)
}
