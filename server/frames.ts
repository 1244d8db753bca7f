// What frames mean inside the relay: shapes only. Their bytes are codec.ts's.
import type { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'

/** A ServerFrame as it leaves. */
export type Outgoing = {
  /** Its body's field. */
  kind: string
  bytes: Uint8Array
  /** It brings nothing that anybody waits for: nobody's poll ends with it. [C-9.8] */
  quiet?: true
  /** What an Error frame says, for whoever says it in another form too. */
  refusal?: RelayError
}

/** One addressed device with its ciphertext, or the reason it gets none. */
export type Recipient = {
  userId: Uuid
  deviceId: number
  registrationId: number
  /** libsignal's number; 0 when withheld. [S-5] */
  ciphertextType: number
  content: Uint8Array
  iv: Uint8Array
  /** 0 = not withheld. [S-6] */
  withheld: number
}

/** A SignalMessage whose form is right; nothing in it is authorized yet. */
export type Send = {
  clientMessageId: Uuid
  conversationId: Uuid
  scope: 'ALL' | 'SUBSET'
  recipients: Recipient[]
  messageType: number
  replyToMessageId: Uuid | null
  attachmentUrl: string | null
  thumbnailUrl: string | null
  /** 1 high, 2 normal, 3 low. [S-8] */
  priority: number
  urgent: boolean
}

/** The sending device, from its token. */
export type Sender = { userId: Uuid; deviceId: number; deviceKey: number }

/** One row of a device's queue, as it is told to the device. */
export type Delivery = {
  sequence: number
  messageId: Uuid
  conversationId: Uuid | null
  sentAtMs: number
  /** Null: content is an encoded SystemEvent. */
  sender: { userId: Uuid; deviceId: number; clientMessageId: Uuid } | null
  messageType: number
  ciphertextType: number
  withheld: number
  content: Uint8Array
  iv: Uint8Array
  replyToMessageId: Uuid | null
  attachmentUrl: string | null
  thumbnailUrl: string | null
  urgent: boolean
}

/** A committed row on its way to a connected device; encoded only if it is sent. */
export type Committed = { deviceKey: number; delivery: Delivery }

/** What the relay tells devices by itself. [V-1] */
export type SystemEventBody =
  | { identityChanged: { userId: Uuid; identityKey: Uint8Array } }
  | { memberAccepted: { userId: Uuid } }
  | { devicesChanged: { change: 'LINKED' | 'UNLINKED'; deviceId: number; registrationId: number } }
  | {
      conversationChanged: {
        change: 'CREATED' | 'MEMBERS_ADDED' | 'MEMBER_REMOVED' | 'MEMBER_LEFT' | 'ROLE_CHANGED' | 'UPDATED' | 'ARCHIVED'
        actorUserId: Uuid
        subjectUserIds: Uuid[]
        role: 'admin' | 'member' | null
        revision: number
        signedChange: Uint8Array
      }
    }
