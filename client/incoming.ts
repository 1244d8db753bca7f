// An envelope with a ciphertext as plain values, the form in which it can be kept raw; and the shelves for what is not shown.
import type { Uuid } from '../proto/ids.ts'
import type { Body } from './content.ts'
import type { Transaction } from './storage.ts'
import { next, ordered, Table } from './tables.ts'
import { type Envelope, idOf } from './wire.ts'

/** What another device sent, as the relay tells it. */
export type Incoming = {
  messageId: Uuid
  conversationId: Uuid
  sentAtMs: number
  sender: { userId: Uuid; deviceId: number }
  clientMessageId: Uuid
  type: number
  content: Uint8Array
  /** Not 0: the sender had its reason to encrypt nothing. [S-6.2] */
  withheld: number
}

/** null for envelopes without a ciphertext. Clear fields are ignored: we live in strict_e2e. [S-7.1] */
export function readIncoming(envelope: Envelope): Incoming | null {
  const { ciphertext } = envelope
  if (!ciphertext) return null
  return {
    messageId: idOf(envelope.messageId),
    conversationId: idOf(envelope.conversationId),
    sentAtMs: envelope.sentAtMs ?? 0,
    sender: { userId: idOf(ciphertext.senderUserId), deviceId: ciphertext.senderDeviceId ?? 0 },
    clientMessageId: idOf(ciphertext.clientMessageId),
    type: ciphertext.ciphertextType ?? 0,
    content: Uint8Array.from(ciphertext.content ?? []),
    withheld: ciphertext.withheld ?? 0,
  }
}

/** Could not be decrypted: kept as it came, under its message id. */
export const unreadable = new Table<Incoming & { reason: string }>('unreadable')

/** Decrypted, but its roster is not known here yet: kept in order until it is, under `<conversation>/<order>`. */
export type Held = {
  incoming: Omit<Incoming, 'content'>
  body: Body
  sentAtMs: number
  rosterHash: Uint8Array
  resendOf: Uuid
  /** What the sender calls himself, or ''. [P-6] */
  username: string
}
export const held = new Table<Held>('held')

/** Held rows of one conversation; beyond it the oldest is shelved, and its user told. I10 */
const HELD_MAX = 200

/** Keeps it after those that wait already. @returns those that have no room any more. */
export function hold(tx: Transaction, row: Held): Held[] {
  const prefix = `${row.incoming.conversationId}/`
  held.put(tx, prefix + ordered(next(tx, 'held')), row)
  const tooMany = tx.scan(held.name, { prefix }).length - HELD_MAX
  if (tooMany <= 0) return []
  return held.scan(tx, { prefix, limit: tooMany }).map(({ key, record }) => {
    held.delete(tx, key)
    return record
  })
}

/** Decrypted, and refused: why, under its message id. */
const quarantine = new Table<Held & { reason: string }>('quarantine')

/** Rows on each shelf; the oldest go first. Whoever could fill one could as well have delivered nothing. */
const SHELF_MAX = 1000

function shelve<T>(tx: Transaction, shelf: Table<T>, messageId: Uuid, record: T): void {
  shelf.put(tx, messageId, record)
  const tooMany = shelf.count(tx) - SHELF_MAX
  if (tooMany > 0) for (const { key } of shelf.scan(tx, { limit: tooMany })) shelf.delete(tx, key)
}

/** Keeps what cannot be decrypted, as it came. */
export const keepUnreadable = (tx: Transaction, incoming: Incoming, reason: string): void =>
  shelve(tx, unreadable, incoming.messageId, { ...incoming, reason })

/** Keeps what was decrypted and is shown to nobody. */
export const keepQuarantined = (tx: Transaction, row: Held, reason: string): void =>
  shelve(tx, quarantine, row.incoming.messageId, { ...row, reason })

/** What is not shown, and why. @property sentAtMs the relay's word. @property body null = it could not be decrypted. */
export type NotShown = {
  messageId: Uuid
  conversationId: Uuid
  userId: Uuid
  deviceId: number
  sentAtMs: number
  reason: string
  body: Body | null
}

const notShown = (incoming: Omit<Incoming, 'content'>, reason: string, body: Body | null): NotShown => {
  const { messageId, conversationId, sender, sentAtMs } = incoming
  return { messageId, conversationId, ...sender, sentAtMs, reason, body }
}

/** The last 1,000 of each, oldest first. */
export const listQuarantined = (tx: Transaction): NotShown[] =>
  quarantine.scan(tx).map(({ record: { incoming, reason, body } }) => notShown(incoming, reason, body))
export const listUndecryptable = (tx: Transaction): NotShown[] =>
  unreadable.scan(tx).map(({ record }) => notShown(record, record.reason, null))
