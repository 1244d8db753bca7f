// What the app shows: messages of a conversation in the order in which this device came to know them, with their state.
import type { Uuid } from '../proto/ids.ts'
import type { Body } from './content.ts'
import { noteUnread } from './marks.ts'
import { advance, follow, type Progress, takeEarly } from './progress.ts'
import type { Reader, Transaction } from './storage.ts'
import { next, ordered, Table } from './tables.ts'

/**
 * Of one's own: sending, then sent (committed by the relay), delivered (everybody it was for has it), read (everybody has read it), or failed.
 * Of others: received. delivered and read are the relay's word: hints, not proof. [G-3]
 */
export type MessageState = 'sending' | 'sent' | 'delivered' | 'read' | 'failed' | 'received'

/** One message as shown. Times are Unix milliseconds. */
export type Message = {
  /** Names the message on this device and on its sender's: the client_message_id. */
  id: Uuid
  /** The relay's; '' until it is sent. What replyTo and reactions name. */
  messageId: Uuid
  conversationId: Uuid
  senderUserId: Uuid
  senderDeviceId: number
  /** The sender's word, inside of the ciphertext. */
  sentAtMs: number
  state: MessageState
  /** Why it failed: an error code, or `unanswered`, `expired`, `devices_unsettled`, `roster_unconfirmed`, `began_anew`, `conversation_forgotten`. */
  failure: string
  /** Other users it was for, 0 until it is sent and for what is received; how many of them have it; how many have read it. */
  audience: number
  delivered: number
  read: number
  body: Body
  /** The sender would not or could not encrypt for this device: a message exists, no more is known. [S-6.2] */
  withheld: boolean
}

const rows = new Table<Message>('messages')
const places = new Table<string>('message_places')
/** Place by the relay's message_id; after a restore one message may have had two. */
const byMessageId = new Table<string>('message_ids')

const placeKey = (message: Pick<Message, 'senderUserId' | 'senderDeviceId' | 'id'>): string =>
  `${message.senderUserId}.${message.senderDeviceId}.${message.id}`

/** Appends it. @returns it as stored: receipts may have come before it. */
export function addMessage(tx: Transaction, message: Message): Message {
  const place = `${message.conversationId}/${ordered(next(tx, 'messages'))}`
  places.put(tx, placeKey(message), place)
  if (message.state === 'received') noteUnread(tx, message)
  return store(tx, place, null, message)
}

/** Changes one that is there. @returns the changed message, null when there is none. */
export function changeMessage(
  tx: Transaction,
  which: Pick<Message, 'senderUserId' | 'senderDeviceId' | 'id'>,
  change: Partial<Message>,
): Message | null {
  const place = places.get(tx, placeKey(which))
  const before = place && rows.get(tx, place)
  if (!place || !before) return null
  return store(tx, place, before, { ...before, ...change })
}

/** It counts as sent by another device of its sender's from now on. */
export function moveMessage(
  tx: Transaction,
  which: Pick<Message, 'senderUserId' | 'senderDeviceId' | 'id'>,
  senderDeviceId: number,
): void {
  const place = places.get(tx, placeKey(which))
  const message = place && rows.get(tx, place)
  if (!place || !message) return
  places.delete(tx, placeKey(which))
  places.put(tx, placeKey({ ...which, senderDeviceId }), place)
  rows.put(tx, place, { ...message, senderDeviceId })
}

/** Takes in how far one of one's own has come. @returns the message, null when that is no news; undefined when it is not known. [G-3.3] */
export function progressMessage(tx: Transaction, messageId: Uuid, progress: Progress): Message | null | undefined {
  const place = byMessageId.get(tx, messageId)
  const before = place && rows.get(tx, place)
  if (!place || !before) return undefined
  const changed = advance(before, progress)
  return changed && store(tx, place, before, changed)
}

function store(tx: Transaction, place: string, before: Message | null, message: Message): Message {
  const { messageId } = message
  const isNamed = messageId !== '' && messageId !== before?.messageId
  if (isNamed) byMessageId.put(tx, messageId, place)
  const early = isNamed ? takeEarly(tx, messageId) : null
  const whole = (early && advance(message, early)) ?? message
  follow(tx, before, whole)
  rows.put(tx, place, whole)
  return whole
}

/** Whether a message of that conversation is known here under that message_id. */
export const isMessageOf = (from: Reader, conversationId: Uuid, messageId: Uuid): boolean =>
  byMessageId.get(from, messageId)?.startsWith(`${conversationId}/`) ?? false

/** One message, null when there is none. */
export function findMessage(
  from: Reader,
  which: Pick<Message, 'senderUserId' | 'senderDeviceId' | 'id'>,
): Message | null {
  const place = places.get(from, placeKey(which))
  return place ? rows.get(from, place) : null
}

/** The last ones, oldest first. @param before the place of the oldest one already shown. */
export function listMessages(
  tx: Transaction,
  conversationId: Uuid,
  { limit = 50, before }: { limit?: number; before?: string } = {},
): { place: string; message: Message }[] {
  const range = { prefix: `${conversationId}/`, limit, backwards: true, ...(before !== undefined && { before }) }
  return rows
    .scan(tx, range)
    .reverse()
    .map(({ key, record }) => ({ place: key, message: record }))
}
