// An envelope with a ciphertext as plain values, the form in which it can be kept raw; and the shelves for what is not shown.
import type { Uuid } from '../proto/ids.ts'
import type { Body } from './content.ts'
import { Table } from './tables.ts'
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

/** Decrypted, and refused: why, under its message id. */
export const quarantine = new Table<Held & { reason: string }>('quarantine')
