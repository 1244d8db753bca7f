// Everything that touches secret bytes, as an interface: the rest of the SDK sees public keys, ciphertexts and plaintexts only.
// Methods read and write a Stage; whoever calls them holds the account's mutex and applies the stage in one transaction.
import type { Uuid } from '../proto/ids.ts'
import type { Stage } from './stage.ts'
import type { Reader, Transaction, Writer } from './storage.ts'
import type { Address } from './wire.ts'

/** Public halves as the relay's HTTP takes them, raw bytes. */
export type PublicKey = { keyId: number; publicKey: Uint8Array }
export type SignedPublicKey = PublicKey & { signature: Uint8Array }

/** What is to be made: ids count up from `first`. Kyber one-time and last-resort keys share one id space. [K-2.3] */
export type KeyOrder = {
  signed?: number
  lastResort?: number
  oneTime?: { first: number; count: number }
  kyberOneTime?: { first: number; count: number }
}

/** What was made. */
export type MadeKeys = {
  signed: SignedPublicKey | null
  lastResort: SignedPublicKey | null
  oneTime: PublicKey[]
  kyberOneTime: SignedPublicKey[]
}

/** One device's keys as the relay handed them out; nothing of it is believed. */
export type Bundle = {
  deviceId: number
  registrationId: number
  identityKey: Uint8Array
  signed: SignedPublicKey
  oneTime: PublicKey | null
  /** null: a device that speaks X3DH only. [K-4.2] */
  kyber: SignedPublicKey | null
}

/** Why a session was not opened. `untrusted`: the identity key is not the one known for the user. */
export type Opening = 'opened' | 'untrusted' | 'incompatible' | 'invalid'

/** Who this device is. */
export type Self = { userId: Uuid; deviceId: number; registrationId: number }

/** Nothing of the message can be read. `duplicate` is libsignal's word and no proof that it was read before. */
export class Undecryptable extends Error {
  readonly reason: 'untrusted_identity' | 'duplicate' | 'unreadable'
  /** The identity key the message came with, when that is why. */
  readonly offered: Uint8Array | null

  constructor(reason: Undecryptable['reason'], offered: Uint8Array | null = null, cause?: unknown) {
    super(`undecryptable: ${reason}`, { cause })
    this.reason = reason
    this.offered = offered
  }
}

/** A username that libsignal refuses; the message says why and does not repeat it. */
export class InvalidUsername extends Error {}

/** Where a new device waits: 16 bytes, and the 33 of its key. */
export type ProvisionTarget = { address: Uint8Array; key: Uint8Array }

/** An account as the primary hands it over, private key apart; username '' = none. */
export type Provision = { userId: Uuid; linkCode: string; username: string }

/** An account that was sealed to this device, by whoever saw its request: its user decides. [I-5.5] */
export type OfferedAccount = Provision & {
  /** 33 bytes. */
  identityKey: Uint8Array
  /** Makes the account's identity key pair one's own. */
  adopt(stage: Stage): void
}

/** @property open throws Unopened. */
export type ProvisionKey = ProvisionTarget & { open(sealed: Uint8Array): OfferedAccount }

/** What came over the provisioning channel is not for this request, or is no account. */
export class Unopened extends Error {}

/** What a peer that could not read us says. */
export type Complaint = { sentAtMs: number; deviceId: number; isAboutCurrentSession: boolean }

/** Which identity key pair: absent = one's own; otherwise the name of one that may become it. */
export type Slot = string

/** Implemented by client/crypto/. */
export interface Crypto {
  /** SHA-256. */
  hash(message: Uint8Array): Uint8Array

  /** Makes an identity key pair: one's own, or one that may become it. @returns the public key, 33 bytes. @throws Error when there is one. */
  createIdentity(stage: Stage, slot?: Slot): Uint8Array
  /** Forgets an identity that came to nothing. */
  abandonIdentity(to: Writer, slot?: Slot): void
  /** Public identity key, 33 bytes. @throws Error when there is none. */
  ownIdentity(stage: Stage, slot?: Slot): Uint8Array
  /** XEdDSA by the identity key, 64 bytes. */
  sign(stage: Stage, message: Uint8Array, slot?: Slot): Uint8Array
  /**
   * The pair in the slot becomes one's own. Every session and every prekey but these is forgotten: the device is another one now.
   * Identity keys known of others stay.
   */
  adoptIdentity(tx: Transaction, slot: Slot, keys: MadeKeys): void
  /** Whether the signature is that key's. False for anything malformed. */
  isSignedBy(identityKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean
  /** The identity key known for a user, own user included; null = none yet. */
  identityOf(from: Reader, userId: Uuid): Uint8Array | null
  /** Believes this key from now on, and ends the sessions made under another. The user decided it. */
  trust(stage: Stage, userId: Uuid, identityKey: Uint8Array): void
  /** The number both sides compare, 60 digits; null while the peer's key is unknown. @param offered with this key instead of the one believed. */
  safetyNumber(stage: Stage, self: Self, userId: Uuid, offered?: Uint8Array): string | null

  /** Makes keys and keeps their private halves, signed by that identity. Ids are never used twice: the caller counts. */
  makeKeys(stage: Stage, order: KeyOrder, nowMs: number, slot?: Slot): MadeKeys
  /** Notes which signed and last-resort keys were replaced now, and deletes what was replaced before `beforeMs`. [K-2.5] */
  retireKeys(stage: Stage, replaced: { signed?: number; lastResort?: number }, nowMs: number, beforeMs: number): void
  /** Deletes the private halves of one-time keys with ids below these: nobody can use them any more. */
  pruneKeys(tx: Transaction, below: { oneTime: number; kyberOneTime: number }): void

  /** The session with a device, if one could be used now. */
  session(stage: Stage, to: { userId: Uuid; deviceId: number }, nowMs: number): { registrationId: number } | null
  /** The registration id of the session with a device, usable or not. */
  registrationOf(from: Reader, peer: { userId: Uuid; deviceId: number }): number | null
  /** Opens a session from a bundle, replacing the present one. First use of a user's identity key is trusted. */
  openSession(stage: Stage, self: Self, userId: Uuid, bundle: Bundle, nowMs: number): Promise<Opening>
  /** The session is used for nothing new; what is under way can still be read. */
  archive(store: Writer, to: { userId: Uuid; deviceId: number }): void
  /** Forgets every session: the store may be an old copy, and its counters used. */
  forgetSessions(tx: Transaction): void
  /** @throws Error without a usable session. */
  encrypt(
    stage: Stage,
    self: Self,
    to: Address,
    plaintext: Uint8Array,
    nowMs: number,
  ): Promise<{ type: number; content: Uint8Array }>
  /** @returns isNew: the message opened a session. @throws Undecryptable; the stage is then to be thrown away. */
  decrypt(
    stage: Stage,
    self: Self,
    from: { userId: Uuid; deviceId: number },
    type: number,
    content: Uint8Array,
  ): Promise<{ plaintext: Uint8Array; isNew: boolean }>

  /** Says that this could not be read: libsignal's DecryptionErrorMessage as plaintext content, type 8. */
  complain(content: Uint8Array, type: number, sentAtMs: number, senderDeviceId: number): Uint8Array
  /** @throws Error when it is none. Nobody signed it: whoever carries it can forge it. */
  readComplaint(from: Reader, peer: { userId: Uuid; deviceId: number }, content: Uint8Array): Complaint

  /** 32 bytes, the same for upper and lower case; nicks have 3 to 32 characters. [U-1] @throws InvalidUsername. */
  usernameHash(name: string): Uint8Array
  /** Proof of knowing the name behind the hash, 128 bytes. [U-2] @throws InvalidUsername. */
  usernameProof(name: string): Uint8Array
  /** Names with that nick and random numbers, short ones first. @throws InvalidUsername. */
  usernameCandidates(nick: string): string[]

  /** 128 random bits as 22 characters of base64url, for a person to keep. [I-6.3] */
  createRecoveryCode(): string

  /** For a device that wants to be linked: an address and a key pair for one delivery, in memory only. [I-5.1] */
  createProvisionKey(): ProvisionKey
  /** Seals the own identity key pair and what belongs to it to the new device's key. [I-5.4] @throws Error when the key is none. */
  sealProvision(stage: Stage, to: ProvisionTarget, account: Provision): Uint8Array
}
