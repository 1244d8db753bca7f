// What the app shows: messages of a conversation in the order in which this device came to know them, with their state.
import type { Uuid } from '../proto/ids.ts'
import type { Body } from './content.ts'
import type { Reader, Transaction } from './storage.ts'
import { next, ordered, Table } from './tables.ts'

/** sent: committed by the relay. delivered and read come with receipts, which the relay does not carry yet. */
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
  /** Why it failed: an error code, or `unanswered`, `expired`, `devices_unsettled`. */
  failure: string
  body: Body
  /** The sender would not or could not encrypt for this device: a message exists, no more is known. [S-6.2] */
  withheld: boolean
}

const rows = new Table<Message>('messages')
const places = new Table<string>('message_places')

const placeKey = (message: Pick<Message, 'senderUserId' | 'senderDeviceId' | 'id'>): string =>
  `${message.senderUserId}.${message.senderDeviceId}.${message.id}`

/** Appends it. */
export function addMessage(tx: Transaction, message: Message): void {
  const place = `${message.conversationId}/${ordered(next(tx, 'messages'))}`
  rows.put(tx, place, message)
  places.put(tx, placeKey(message), place)
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
  const changed = { ...before, ...change }
  rows.put(tx, place, changed)
  return changed
}

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
