// Where a device keeps everything that must survive it: an interface of tables of bytes, with one synchronous transaction.
// Synchronous on purpose: an async function inside a SQLite transaction commits at its first await, and a session that is
// stored without the message it decrypted (or the reverse) is a lost message or a key used twice.

/** What can be read. Keys compare as ASCII. */
export interface Reader {
  /** null when there is none. The bytes are the caller's. */
  get(table: string, key: string): Uint8Array | null
}

/** What can be read and changed one by one. */
export interface Writer extends Reader {
  put(table: string, key: string, value: Uint8Array): void
  delete(table: string, key: string): void
}

/** Which rows of a table: those with the prefix, after a key, so many; ascending unless backwards. */
export type Range = { prefix?: string; after?: string; before?: string; limit?: number; backwards?: boolean }

/** Open only while the function runs that was given it. */
export interface Transaction extends Writer {
  scan(table: string, range?: Range): { key: string; value: Uint8Array }[]
  count(table: string): number
}

/** One device's store. Opened by one process at a time: an implementation refuses the second. */
export interface Storage {
  /**
   * All of it or nothing, durable when it returns.
   * @throws what the function throws, after undoing everything; Error when it returns a promise, or inside another.
   */
  transaction<T>(work: (tx: Transaction) => T): T
  close(): void
}

/** Guards implementations against async functions. @throws Error for a promise. */
export function refusePromise(result: unknown): void {
  if (typeof (result as { then?: unknown } | null)?.then === 'function')
    throw new Error('a transaction is synchronous: its function returned a promise')
}
