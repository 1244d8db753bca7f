// Changes that are not stored yet. libsignal's store callbacks are async and write here; one synchronous transaction applies it all.
import type { Storage, Writer } from './storage.ts'

/** Reads through to the store, remembers what is written. Made and applied under the account's mutex, or thrown away. */
export class Stage implements Writer {
  private readonly storage: Storage
  private readonly changes = new Map<string, { table: string; key: string; value: Uint8Array | null }>()

  constructor(storage: Storage) {
    this.storage = storage
  }

  get(table: string, key: string): Uint8Array | null {
    const change = this.changes.get(`${table}\0${key}`)
    if (change) return change.value && Uint8Array.from(change.value)
    return this.storage.transaction((tx) => tx.get(table, key))
  }

  put(table: string, key: string, value: Uint8Array): void {
    this.changes.set(`${table}\0${key}`, { table, key, value: Uint8Array.from(value) })
  }

  delete(table: string, key: string): void {
    this.changes.set(`${table}\0${key}`, { table, key, value: null })
  }

  /** Writes everything into the transaction. */
  apply(tx: Writer): void {
    for (const { table, key, value } of this.changes.values()) {
      if (value) tx.put(table, key, value)
      else tx.delete(table, key)
    }
  }
}
