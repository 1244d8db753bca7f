// A store that ends with its process: for tests, and for devices that are made to be forgotten.
import { type Range, refusePromise, type Storage, type Transaction } from '../storage.ts'

/** Keeps everything in memory; a failed transaction is undone like in any other. */
export class MemoryStorage implements Storage {
  private readonly tables = new Map<string, Map<string, Uint8Array>>()
  private undo: (() => void)[] | null = null

  transaction<T>(work: (tx: Transaction) => T): T {
    if (this.undo) throw new Error('a transaction inside another')
    this.undo = []
    try {
      const result = work(this.tx)
      refusePromise(result)
      return result
    } catch (error) {
      for (const step of this.undo.reverse()) step()
      throw error
    } finally {
      this.undo = null
    }
  }

  close(): void {}

  private table(name: string): Map<string, Uint8Array> {
    const table = this.tables.get(name) ?? new Map()
    this.tables.set(name, table)
    return table
  }

  private set(name: string, key: string, value: Uint8Array | undefined): void {
    if (!this.undo) throw new Error('the transaction is over')
    const table = this.table(name)
    const before = table.get(key)
    this.undo.push(() => void (before ? table.set(key, before) : table.delete(key)))
    if (value) table.set(key, Uint8Array.from(value))
    else table.delete(key)
  }

  private readonly tx: Transaction = {
    get: (table, key) => {
      const value = this.table(table).get(key)
      return value ? Uint8Array.from(value) : null
    },
    put: (table, key, value) => this.set(table, key, value),
    delete: (table, key) => this.set(table, key, undefined),
    count: (table) => this.table(table).size,
    scan: (table, { prefix = '', after, before, limit = Infinity, backwards = false }: Range = {}) => {
      const fits = (key: string) =>
        key.startsWith(prefix) && (after === undefined || key > after) && (before === undefined || key < before)
      const keys = [...this.table(table).keys()].filter(fits).sort()
      if (backwards) keys.reverse()
      return keys.slice(0, limit).map((key) => ({ key, value: Uint8Array.from(this.table(table).get(key)!) }))
    },
  }
}
