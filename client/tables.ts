// Typed tables over the store's bytes: records as JSON in which bytes are base64. Secret records are not here but in client/crypto/.
import { base64, fromBase64, utf8 } from './bytes.ts'
import type { Range, Reader, Transaction, Writer } from './storage.ts'

const decoder = new TextDecoder()

const encode = (record: unknown): Uint8Array =>
  utf8(
    JSON.stringify(record, function (this: Record<string, unknown>, key, value) {
      // What toJSON made of a Buffer is of no use.
      const raw = this[key]
      return raw instanceof Uint8Array ? { $bytes: base64(raw) } : value
    }),
  )

const decode = (value: Uint8Array): unknown =>
  JSON.parse(decoder.decode(value), (_, each) => (typeof each?.$bytes === 'string' ? fromBase64(each.$bytes) : each))

/** Records of one type under text keys, ASCII, compared as text. */
export class Table<T> {
  readonly name: string

  constructor(name: string) {
    this.name = name
  }

  get(from: Reader, key: string): T | null {
    const value = from.get(this.name, key)
    return value && (decode(value) as T)
  }
  has(from: Reader, key: string): boolean {
    return from.get(this.name, key) !== null
  }
  put(to: Writer, key: string, record: T): void {
    to.put(this.name, key, encode(record))
  }
  delete(from: Writer, key: string): void {
    from.delete(this.name, key)
  }
  scan(tx: Transaction, range: Range = {}): { key: string; record: T }[] {
    return tx.scan(this.name, range).map(({ key, value }) => ({ key, record: decode(value) as T }))
  }
  count(tx: Transaction): number {
    return tx.count(this.name)
  }
}

/** A number as a key that sorts by value. @param value below 10^15. */
export const ordered = (value: number): string => String(value).padStart(15, '0')

const counters = new Table<number>('counters')

/** The next number under that name, from 1; never given twice. */
export function next(tx: Writer, name: string): number {
  const value = (counters.get(tx, name) ?? 0) + 1
  counters.put(tx, name, value)
  return value
}
