// What the messenger itself has to remember, in a table of the device's own store: one file, one transaction, one owner.
import type { Storage, Transaction } from '../../client/index.ts'
import { type Asked, NOTHING_ASKED, type Notice } from './model.ts'

const TABLE = 'messenger'
const KEPT_NOTICES = 200

/** @property after the place of the message it follows; '' = it comes first. */
export type PlacedNotice = { notice: Notice; after: string }
/** Where the account is. */
export type Home = { url: string; realm: string }

const decoder = new TextDecoder()
const encoder = new TextEncoder()

/** A device's notebook. Works before registration too. */
export class Notebook {
  private readonly storage: Storage

  constructor(storage: Storage) {
    this.storage = storage
  }

  get home(): Home | null {
    return this.get<Home>('home')
  }
  set home(home: Home) {
    this.put('home', home)
  }

  /** The conversation that was open last. */
  get open(): string | null {
    return this.get<string>('open')
  }
  set open(chatId: string) {
    this.put('open', chatId)
  }

  /** The safety number that was compared with a user; null = none was. */
  compared(userId: string): string | null {
    return this.get<string>(`compared/${userId}`)
  }
  noteCompared(userId: string, safetyNumber: string): void {
    this.put(`compared/${userId}`, safetyNumber)
  }

  /** What the relay said last of strangers. */
  get asked(): Asked {
    return this.get<Asked>('asked') ?? NOTHING_ASKED
  }
  set asked(asked: Asked) {
    this.put('asked', asked)
  }

  /** Whether the user does not want to see that conversation. */
  isDismissed(chatId: string): boolean {
    return this.get<true>(`dismissed/${chatId}`) !== null
  }
  dismiss(chatId: string): void {
    this.put(`dismissed/${chatId}`, true)
  }
  recall(chatId: string): void {
    this.storage.transaction((tx) => tx.delete(TABLE, `dismissed/${chatId}`))
  }

  /** Keeps a notice; of one conversation the last 200. */
  addNotice(chatId: string, placed: PlacedNotice): void {
    this.storage.transaction((tx) => {
      const prefix = `notice/${chatId}/`
      const all = tx.scan(TABLE, { prefix })
      const last = Number(all.at(-1)?.key.slice(prefix.length) ?? 0)
      put(tx, prefix + String(last + 1).padStart(12, '0'), placed)
      for (const { key } of all.slice(0, Math.max(0, all.length - KEPT_NOTICES + 1))) tx.delete(TABLE, key)
    })
  }
  /** Oldest first. */
  notices(chatId: string): PlacedNotice[] {
    const rows = this.storage.transaction((tx) => tx.scan(TABLE, { prefix: `notice/${chatId}/` }))
    return rows.map(({ value }) => JSON.parse(decoder.decode(value)) as PlacedNotice)
  }

  private get<T>(key: string): T | null {
    const value = this.storage.transaction((tx) => tx.get(TABLE, key))
    return value && (JSON.parse(decoder.decode(value)) as T)
  }
  private put(key: string, value: unknown): void {
    this.storage.transaction((tx) => put(tx, key, value))
  }
}

const put = (tx: Transaction, key: string, value: unknown): void =>
  tx.put(TABLE, key, encoder.encode(JSON.stringify(value)))
