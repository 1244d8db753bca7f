// What the parts of a device share, and the events they raise. No behaviour.
import type { Uuid } from '../proto/ids.ts'
import type { Account } from './account.ts'
import type { Connection, ConnectionState } from './connection.ts'
import type { Crypto } from './crypto.ts'
import type { Emitter } from './events.ts'
import type { Message } from './messages.ts'
import type { Mutex } from './mutex.ts'
import type { PresenceEvent } from './presence.ts'
import type { ReadEvent } from './reads.ts'
import type { Storage } from './storage.ts'
import type { Time } from './time.ts'
import type { TypingEvent } from './typing.ts'

/** Something a person may want to know that no other event tells. */
export type Problem =
  /** A bundle whose signatures do not verify, or that is for another device than asked. */
  | 'bad_bundle'
  /** The relay says a device started over, and its own bundle says it did not. */
  | 'contradiction'
  /** A chain of changes that is not the one known, or a creation that was seen before. [V-2.4] */
  | 'chain'
  /** The relay's database was restored: accepted messages may be sent again. [K-9] */
  | 'restored'
  /** This store was an old copy: its sessions were ended and its keys replaced. [K-8] */
  | 'rewound'
  /** The relay refused an upload of keys. */
  | 'keys_refused'
  /** Something that should not happen; the message says what. */
  | 'unexpected'

/** What a device tells its app. Everything of lasting value is stored before it is told. */
export type DeviceEvents = {
  state: ConnectionState
  /** A new one to show, own ones included. */
  message: Message
  /** Its state, its failure, or its numbers. */
  message_changed: Message
  /** Members, roles or routing changed. */
  conversation: { conversationId: Uuid }
  /** A user is called something, or something else, as far as `names` knows. */
  user_named: { userId: Uuid }
  /** A member gave a group its name. */
  group_named: { conversationId: Uuid; byUserId: Uuid; groupName: string }
  /** Acked and kept raw. The sender's device is asked for it once more. */
  undecryptable: { messageId: Uuid; conversationId: Uuid; userId: Uuid; deviceId: number; reason: string }
  /** Readable, and not shown: it does not belong where the relay put it, or its sender is not in the roster. */
  quarantined: { messageId: Uuid; conversationId: Uuid; userId: Uuid; reason: string }
  /** The user has another identity key than the one known. Nothing is sent to it or read from it until `acceptIdentity`. */
  identity_changed: { userId: Uuid; offered: Uint8Array }
  /** The relay delivers to a user whom no member added: withheld. */
  ghost: { conversationId: Uuid; userId: Uuid }
  /** A user accepted a conversation, or an invitation: his devices are in it from now on. By the relay's word. [V-6.7] */
  member_accepted: { conversationId: Uuid; userId: Uuid }
  /** Messages that will never arrive. */
  gap: { overflowed: number; expired: number; sinceMs: number }
  /** A device of one's own user came or went. */
  own_devices: { change: 'linked' | 'unlinked'; deviceId: number }
  /** Somebody else began to write, or stopped. */
  typing: TypingEvent
  /** A watched user came or went; everybody is gone when the connection is. */
  presence: PresenceEvent
  /** Another device of one's own user has read up to there. */
  read: ReadEvent
  problem: { what: Problem; detail: string }
}

/** One device's parts. */
export type Core = {
  storage: Storage
  crypto: Crypto
  time: Time
  account: Account
  connection: Connection
  /** Over every call of `crypto` that reads or changes sessions. */
  mutex: Mutex
  events: Emitter<DeviceEvents>
}
