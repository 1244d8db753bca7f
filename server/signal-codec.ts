// Signals between people, bytes to frames and back: typing, presence, message status, read receipts. [G-1] [G-2] [G-3] [G-4]
import { RelayError } from '../proto/errors.ts'
import { sealpost } from '../proto/generated/relay.js'
import { type Uuid, uuidToBytes } from '../proto/ids.ts'
import { PRESENCE_MAX_USERS, STATUS_MAX_IDS } from '../proto/limits.ts'
import { id } from './fields.ts'
import type { Outgoing } from './frames.ts'

const v1 = sealpost.v1

/** A signal or a question about one, as a device sends it. */
export type SignalFrame = { requestId: number } & (
  | { kind: 'typing'; conversationId: Uuid; isTyping: boolean }
  | { kind: 'presence'; userIds: Uuid[] }
  | { kind: 'receipt'; conversationId: Uuid; messageId: Uuid }
  | { kind: 'status'; messageIds: Uuid[] }
)

/** How many of the other users have a message, and how many have read it. [G-3] */
export type MessageStatus = { messageId: Uuid; conversationId: Uuid; delivered: number; read: number }

/** How far somebody has read. [G-4] */
export type ReadMark = { conversationId: Uuid; messageId: Uuid }

const ids = (raw: readonly Uint8Array[] | null | undefined, most: number, field: string, what: string): Uuid[] => {
  const all = raw ?? []
  if (all.length > most) throw new RelayError('TOO_LARGE', `${what} names more than ${most} ids`)
  return all.map((each, i) => id(each, `${field}[${i}]`))
}

/**
 * The signal in a frame; null when its body is none.
 * @throws RelayError INVALID_REQUEST or TOO_LARGE naming the field.
 */
export function decodeSignal(frame: sealpost.v1.ClientFrame, requestId: number): SignalFrame | null {
  const { typing, readReceipt, presenceSubscription, statusRequest } = frame
  if (typing) {
    const conversationId = id(typing.conversationId, 'conversation_id')
    return { requestId, kind: 'typing', conversationId, isTyping: typing.isTyping ?? false }
  }
  if (readReceipt) {
    const conversationId = id(readReceipt.conversationId, 'conversation_id')
    return { requestId, kind: 'receipt', conversationId, messageId: id(readReceipt.messageId, 'message_id') }
  }
  if (presenceSubscription) {
    const userIds = ids(presenceSubscription.userIds, PRESENCE_MAX_USERS, 'user_ids', 'PresenceSubscription')
    return { requestId, kind: 'presence', userIds }
  }
  if (statusRequest) {
    const messageIds = ids(statusRequest.messageIds, STATUS_MAX_IDS, 'message_ids', 'StatusRequest')
    return { requestId, kind: 'status', messageIds }
  }
  return null
}

type Body = sealpost.v1.ServerFrame.$Properties

const frame = (kind: string, body: Body): Outgoing => ({ kind, bytes: v1.ServerFrame.encode(body).finish() })

const readMark = (each: ReadMark) => ({
  conversationId: uuidToBytes(each.conversationId),
  messageId: uuidToBytes(each.messageId),
})

/** ServerFrames of signals; requestId 0 = unsolicited. */
export const encodeSignal = {
  typing: (t: { conversationId: Uuid; isTyping: boolean; userId: Uuid; deviceId: number }): Outgoing =>
    frame('typing', {
      typing: {
        conversationId: uuidToBytes(t.conversationId),
        isTyping: t.isTyping,
        userId: uuidToBytes(t.userId),
        deviceId: t.deviceId,
      },
    }),
  presence: (requestId: number, users: readonly { userId: Uuid; isOnline: boolean }[]): Outgoing =>
    frame('presence', {
      requestId,
      presence: { users: users.map(({ userId, isOnline }) => ({ userId: uuidToBytes(userId), isOnline })) },
    }),
  statusUpdate: (requestId: number, messages: readonly MessageStatus[], ownReads: readonly ReadMark[] = []): Outgoing =>
    frame('statusUpdate', {
      requestId,
      statusUpdate: {
        messages: messages.map((each) => ({
          messageId: uuidToBytes(each.messageId),
          conversationId: uuidToBytes(each.conversationId),
          delivered: each.delivered,
          read: each.read,
        })),
        ownReads: ownReads.map(readMark),
      },
    }),
  readReceiptCommitted: (requestId: number): Outgoing =>
    frame('readReceiptCommitted', { requestId, readReceiptCommitted: {} }),
}
