// What was processed already: every envelope by its message_id, every message by its sender and client_message_id.
import type { Uuid } from '../proto/ids.ts'
import type { Reader, Transaction } from './storage.ts'
import { Table } from './tables.ts'

/** Twice what a queue keeps. */
const KEPT_MS = 60 * 24 * 3_600_000
const PRUNED_AT_ONCE = 50

/** Message id (a UUIDv7: the oldest sort first) → when, and the marks that go with it. */
const envelopes = new Table<{ atMs: number; message: string; also?: string }>('seen')
const messages = new Table<1>('seen_messages')

const messageKey = (sender: { userId: Uuid; deviceId: number }, clientMessageId: Uuid): string =>
  `${sender.userId}.${sender.deviceId}.${clientMessageId}`

/** @property sender null for events of the relay. */
export type Mark = { messageId: Uuid; sender: { userId: Uuid; deviceId: number } | null; clientMessageId: Uuid }

/** Whether it was stored before, whatever the envelope. */
export function isSeen(from: Reader, { messageId, sender, clientMessageId }: Mark): boolean {
  return envelopes.has(from, messageId) || (sender !== null && messages.has(from, messageKey(sender, clientMessageId)))
}

/** Notes it, and lets go of a few that are too old. */
export function noteSeen(tx: Transaction, { messageId, sender, clientMessageId }: Mark, nowMs: number): void {
  const message = sender ? messageKey(sender, clientMessageId) : ''
  envelopes.put(tx, messageId, { atMs: nowMs, message })
  if (message) messages.put(tx, message, 1)
}

/** Notes a message that came in the envelope of another, whose mark goes with that envelope's: called after `noteSeen` of it. */
export function noteMessage(
  tx: Transaction,
  messageId: Uuid,
  sender: { userId: Uuid; deviceId: number },
  clientMessageId: Uuid,
): void {
  const also = messageKey(sender, clientMessageId)
  messages.put(tx, also, 1)
  const envelope = envelopes.get(tx, messageId)
  if (envelope) envelopes.put(tx, messageId, { ...envelope, also })
}

/** Forgets marks older than 60 days, a few at a time. @returns whether there may be more. */
export function pruneSeen(tx: Transaction, nowMs: number): boolean {
  const oldest = envelopes.scan(tx, { limit: PRUNED_AT_ONCE })
  const old = oldest.filter(({ record }) => record.atMs < nowMs - KEPT_MS)
  for (const { key, record } of old) {
    envelopes.delete(tx, key)
    for (const message of [record.message, record.also]) if (message) messages.delete(tx, message)
  }
  return old.length === PRUNED_AT_ONCE
}
