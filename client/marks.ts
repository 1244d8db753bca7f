// How far one's own user has read in each conversation, what of it the relay has not been told, and what is unread: rows of the store. [G-4]
import type { Uuid } from '../proto/ids.ts'
import type { Message } from './messages.ts'
import type { Reader, Transaction } from './storage.ts'
import { Table } from './tables.ts'

/** Conversation → the message_id up to which everything is read. Ids of the relay ascend with time. */
const marks = new Table<Uuid>('read_marks')
/** The same, until the relay has committed it. */
const untold = new Table<Uuid>('untold_marks')
/** Conversation → the newest message_id up to which this device itself was told that everything is read. */
const own = new Table<Uuid>('own_marks')
/** `<conversation>/<message_id>` of what others wrote and nobody here has read → whether it counts: a reaction does not. */
const unread = new Table<boolean>('unread')
/** How many of them count, by conversation; none at 0. */
const counts = new Table<number>('unread_counts')

/** A message of somebody else, also one that comes late, below the mark: it was not seen here. */
export function noteUnread(tx: Transaction, { conversationId, messageId, body }: Message): void {
  const key = `${conversationId}/${messageId}`
  if (unread.has(tx, key)) return
  unread.put(tx, key, !body.reaction)
  if (!body.reaction) counts.put(tx, conversationId, countUnread(tx, conversationId) + 1)
}

/** How many messages of others came and were not read, reactions aside. */
export const countUnread = (from: Reader, conversationId: Uuid): number => counts.get(from, conversationId) ?? 0

/** The newest unread message, reactions included; null = everything is read. */
export const newestUnread = (tx: Transaction, conversationId: Uuid): Uuid | null =>
  unread.scan(tx, { prefix: `${conversationId}/`, backwards: true, limit: 1 })[0]?.key.split('/')[1] ?? null

/** So many conversations in which something counts as unread, those with the newest first. */
export const unreadConversations = (tx: Transaction, limit: number): Uuid[] =>
  counts
    .scan(tx)
    .map(({ key }) => ({ id: key, newest: newestUnread(tx, key) ?? '' }))
    .sort((a, b) => (a.newest < b.newest ? 1 : -1))
    .slice(0, limit)
    .map(({ id }) => id)

/** Conversations in which something counts as unread at or before the mark. */
export const contradictions = (tx: Transaction): Uuid[] =>
  counts
    .scan(tx)
    .map(({ key }) => key)
    .filter((id) => {
      const oldest = unread.scan(tx, { prefix: `${id}/`, limit: 1 })[0]?.key.split('/')[1]
      return oldest !== undefined && oldest <= (marks.get(tx, id) ?? '')
    })

/** Moves the mark, forward only; what lies at or before it is read. @param isTold the relay said it. @returns whether it moved. [G-4.1] */
export function advanceMark(tx: Transaction, conversationId: Uuid, messageId: Uuid, isTold: boolean): boolean {
  takeRead(tx, conversationId, messageId)
  if (isTold) noteTold(tx, conversationId, messageId)
  else if (messageId > (own.get(tx, conversationId) ?? '')) own.put(tx, conversationId, messageId)
  if (messageId <= (marks.get(tx, conversationId) ?? '')) return false
  marks.put(tx, conversationId, messageId)
  if (!isTold) untold.put(tx, conversationId, messageId)
  return true
}

/** How far its user has read on this device; null = nothing was marked here. What the relay says up to there may be this device's own word. */
export const ownMark = (tx: Transaction, conversationId: Uuid): Uuid | null => own.get(tx, conversationId)

function takeRead(tx: Transaction, conversationId: Uuid, messageId: Uuid): void {
  const all = unread.scan(tx, { prefix: `${conversationId}/` })
  const read = all.filter(({ key }) => key <= `${conversationId}/${messageId}`)
  for (const { key } of read) unread.delete(tx, key)
  const left = countUnread(tx, conversationId) - read.filter(({ record }) => record).length
  if (left > 0) counts.put(tx, conversationId, left)
  else counts.delete(tx, conversationId)
}

/** What the relay is to be told. */
export const untoldMarks = (tx: Transaction): { conversationId: Uuid; messageId: Uuid }[] =>
  untold.scan(tx).map(({ key, record }) => ({ conversationId: key, messageId: record }))

/** The relay has it, or will not take it. */
export function noteTold(tx: Transaction, conversationId: Uuid, messageId: Uuid): void {
  const waiting = untold.get(tx, conversationId)
  if (waiting !== null && waiting <= messageId) untold.delete(tx, conversationId)
}

/** The relay may have forgotten them all. [K-9] */
export function forgetTold(tx: Transaction): void {
  for (const { key, record } of marks.scan(tx)) untold.put(tx, key, record)
}
