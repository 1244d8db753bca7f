// How far one's own user has read in each conversation, what of it the relay has not been told, and what is unread: rows of the store. [G-4]
import type { Uuid } from '../proto/ids.ts'
import type { Message } from './messages.ts'
import type { Transaction } from './storage.ts'
import { Table } from './tables.ts'

/** Conversation → the message_id up to which everything is read. Ids of the relay ascend with time. */
const marks = new Table<Uuid>('read_marks')
/** The same, until the relay has committed it. */
const untold = new Table<Uuid>('untold_marks')
/** `<conversation>/<message_id>` of what others wrote and nobody here has read → whether it counts: a reaction does not. */
const unread = new Table<boolean>('unread')

/** A message of somebody else, also one that comes late, below the mark: it was not seen here. */
export const noteUnread = (tx: Transaction, { conversationId, messageId, body }: Message): void =>
  unread.put(tx, `${conversationId}/${messageId}`, !body.reaction)

/** How many messages of others came and were not read, reactions aside. */
export const countUnread = (tx: Transaction, conversationId: Uuid): number =>
  unread.scan(tx, { prefix: `${conversationId}/` }).filter(({ record }) => record).length

/** The newest unread message, reactions included; null = everything is read. */
export const newestUnread = (tx: Transaction, conversationId: Uuid): Uuid | null =>
  unread.scan(tx, { prefix: `${conversationId}/`, backwards: true, limit: 1 })[0]?.key.split('/')[1] ?? null

/** Conversations in which something is unread, the one with the newest first. */
export function unreadConversations(tx: Transaction): Uuid[] {
  const newest = new Map<Uuid, Uuid>()
  for (const { key } of unread.scan(tx)) {
    const [conversationId, messageId] = key.split('/') as [Uuid, Uuid]
    newest.set(conversationId, messageId)
  }
  return [...newest].sort(([, a], [, b]) => (a < b ? 1 : -1)).map(([conversationId]) => conversationId)
}

/** Moves the mark, forward only; what lies at or before it is read. @param isTold the relay said it. @returns whether it moved. [G-4.1] */
export function advanceMark(tx: Transaction, conversationId: Uuid, messageId: Uuid, isTold: boolean): boolean {
  for (const { key } of unread.scan(tx, { prefix: `${conversationId}/` }))
    if (key <= `${conversationId}/${messageId}`) unread.delete(tx, key)
  if (isTold) noteTold(tx, conversationId, messageId)
  if (messageId <= (marks.get(tx, conversationId) ?? '')) return false
  marks.put(tx, conversationId, messageId)
  if (!isTold) untold.put(tx, conversationId, messageId)
  return true
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
