// How far one's own messages have come, as the relay counts: numbers that only grow, what came too early, and what is still asked about. [G-3]
import type { Uuid } from '../proto/ids.ts'
import type { Message, MessageState } from './messages.ts'
import type { Transaction } from './storage.ts'
import { Table } from './tables.ts'

/** How many other users have a message, and how many have read it. */
export type Progress = { delivered: number; read: number }

/** Messages asked about at most, and how old: beyond it nobody will read them, or nobody tells. */
const FOLLOWED_MAX = 1000
const FOLLOWED_FOR_MS = 30 * 24 * 3_600_000
/** What came for messages that are not known yet. More is a device that was linked late, or a relay that makes things up. */
const EARLY_MAX = 500

/** Own messages not read by everybody, by message_id, which ascends with time. */
const followed = new Table<{ sentAtMs: number }>('followed')
const early = new Table<Progress>('early_status')

/** The message with these numbers where they are higher; null when none is. Since they never fall, the state never goes back. [G-3.3] */
export function advance(message: Message, progress: Progress): Message | null {
  const { audience } = message
  // Not accepted, not one's own, or read by everybody.
  if (!isOpen(message)) return null
  const read = Math.max(message.read, Math.min(progress.read, audience))
  // Who has read it has it.
  const delivered = Math.max(message.delivered, read, Math.min(progress.delivered, audience))
  if (read === message.read && delivered === message.delivered) return null
  const state: MessageState = read >= audience ? 'read' : delivered >= audience ? 'delivered' : 'sent'
  return { ...message, delivered, read, state }
}

const isOpen = ({ state, audience }: Message): boolean => (state === 'sent' || state === 'delivered') && audience > 0

/** Keeps account of what is to be asked about; called with every change of a message. */
export function follow(tx: Transaction, before: Message | null, message: Message): void {
  if (before?.messageId && before.messageId !== message.messageId) followed.delete(tx, before.messageId)
  if (!isOpen(message) && message.messageId) followed.delete(tx, message.messageId)
  else if (isOpen(message) && !followed.has(tx, message.messageId)) {
    followed.put(tx, message.messageId, { sentAtMs: message.sentAtMs })
    const tooMany = followed.count(tx) - 2 * FOLLOWED_MAX
    if (tooMany > 0) for (const { key } of followed.scan(tx, { limit: tooMany })) followed.delete(tx, key)
  }
}

/** What to ask about, newest first; lets go of what is too old or too much. [G-3.2] */
export function openQuestions(tx: Transaction, nowMs: number): Uuid[] {
  const asked: Uuid[] = []
  for (const { key, record } of followed.scan(tx, { backwards: true })) {
    if (asked.length < FOLLOWED_MAX && record.sentAtMs > nowMs - FOLLOWED_FOR_MS) asked.push(key)
    else followed.delete(tx, key)
  }
  return asked
}

/** The relay knows nothing of it any more. */
export const forgetQuestion = (tx: Transaction, messageId: Uuid): void => followed.delete(tx, messageId)

/** Keeps it for a message that is not known yet; the oldest go when there are too many. */
export function noteEarly(tx: Transaction, messageId: Uuid, { delivered, read }: Progress): void {
  const before = early.get(tx, messageId)
  const most = { delivered: Math.max(delivered, before?.delivered ?? 0), read: Math.max(read, before?.read ?? 0) }
  early.put(tx, messageId, most)
  const tooMany = early.count(tx) - EARLY_MAX
  if (tooMany > 0) for (const { key } of early.scan(tx, { limit: tooMany })) early.delete(tx, key)
}

/** What came before the message did; kept no longer. */
export function takeEarly(tx: Transaction, messageId: Uuid): Progress | null {
  const progress = early.get(tx, messageId)
  if (progress) early.delete(tx, messageId)
  return progress
}
