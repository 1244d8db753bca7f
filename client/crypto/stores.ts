// libsignal's stores over a Stage: every callback reads and writes there, nothing is stored before the transaction.
// Identities are kept per user, not per address: a user's devices share one.
import {
  type Direction,
  IdentityChange,
  IdentityKeyPair,
  IdentityKeyStore,
  KyberPreKeyRecord,
  KyberPreKeyStore,
  PreKeyRecord,
  PreKeyStore,
  type PrivateKey,
  type ProtocolAddress,
  PublicKey,
  SessionRecord,
  SessionStore,
  SignedPreKeyRecord,
  SignedPreKeyStore,
} from '@signalapp/libsignal-client'
import { bytes, hex } from '../bytes.ts'
import type { Slot } from '../crypto.ts'
import type { Stage } from '../stage.ts'
import type { Writer } from '../storage.ts'

/** Tables of secret and pinned bytes; nobody else reads them. */
export const TABLE = {
  /** `identity`: own key pair; `identity.<slot>`: those that may become it. */
  self: 'crypto.self',
  /** User id → identity key, 33 bytes. */
  identities: 'crypto.identities',
  sessions: 'crypto.sessions',
  prekeys: 'crypto.prekeys',
  signed: 'crypto.signed',
  /** One byte, 1 = last-resort, then the record. */
  kyber: 'crypto.kyber',
  kyberUsed: 'crypto.kyber_used',
  /** `list`: what was replaced, and when. */
  retired: 'crypto.retired',
} as const

const nameOf = (address: ProtocolAddress): string => `${address.name()}.${address.deviceId()}`

function found(value: Uint8Array | null, what: string): Uint8Array<ArrayBuffer> {
  if (!value) throw new Error(`no such ${what}`)
  return bytes(value)
}

/** Where a pair lies. */
export const slotKey = (slot?: Slot): string => (slot === undefined ? 'identity' : `identity.${slot}`)

/** Own pair, or that of a slot. @throws Error before there is one. */
export const identityPair = (stage: Stage, slot?: Slot): IdentityKeyPair =>
  IdentityKeyPair.deserialize(found(stage.get(TABLE.self, slotKey(slot)), 'identity'))

/** Makes it the own pair. */
export const putIdentity = (to: Writer, privateKey: PrivateKey): void =>
  to.put(TABLE.self, slotKey(), new IdentityKeyPair(privateKey.getPublicKey(), privateKey).serialize())

/** One per address. */
export class Sessions extends SessionStore {
  readonly stage: Stage
  constructor(stage: Stage) {
    super()
    this.stage = stage
  }
  override async saveSession(address: ProtocolAddress, record: SessionRecord): Promise<void> {
    this.stage.put(TABLE.sessions, nameOf(address), record.serialize())
  }
  override async getSession(address: ProtocolAddress): Promise<SessionRecord | null> {
    const value = this.stage.get(TABLE.sessions, nameOf(address))
    return value && SessionRecord.deserialize(bytes(value))
  }
  override async getExistingSessions(addresses: ProtocolAddress[]): Promise<SessionRecord[]> {
    return addresses.map((each) =>
      SessionRecord.deserialize(found(this.stage.get(TABLE.sessions, nameOf(each)), 'session')),
    )
  }
}

/** Trusts the first key of a user and no other, until the user decides. Remembers the key it refused. */
export class Identities extends IdentityKeyStore {
  readonly stage: Stage
  readonly registrationId: number
  offered: Uint8Array | null = null
  constructor(stage: Stage, registrationId: number) {
    super()
    this.stage = stage
    this.registrationId = registrationId
  }
  override async getIdentityKey(): Promise<PrivateKey> {
    return identityPair(this.stage).privateKey
  }
  override async getLocalRegistrationId(): Promise<number> {
    return this.registrationId
  }
  override async saveIdentity(address: ProtocolAddress, key: PublicKey): Promise<IdentityChange> {
    const before = this.known(address)
    this.stage.put(TABLE.identities, address.name(), key.serialize())
    return before && !before.equals(key) ? IdentityChange.ReplacedExisting : IdentityChange.NewOrUnchanged
  }
  override async isTrustedIdentity(address: ProtocolAddress, key: PublicKey, _: Direction): Promise<boolean> {
    const known = this.known(address)
    if (!known || known.equals(key)) return true
    this.offered = key.serialize()
    return false
  }
  override async getIdentity(address: ProtocolAddress): Promise<PublicKey | null> {
    return this.known(address)
  }
  private known(address: ProtocolAddress): PublicKey | null {
    const value = this.stage.get(TABLE.identities, address.name())
    return value && PublicKey.deserialize(bytes(value))
  }
}

/** One-time EC keys: gone once used. */
export class Prekeys extends PreKeyStore {
  readonly stage: Stage
  constructor(stage: Stage) {
    super()
    this.stage = stage
  }
  override async savePreKey(id: number, record: PreKeyRecord): Promise<void> {
    this.stage.put(TABLE.prekeys, String(id), record.serialize())
  }
  override async getPreKey(id: number): Promise<PreKeyRecord> {
    return PreKeyRecord.deserialize(found(this.stage.get(TABLE.prekeys, String(id)), 'prekey'))
  }
  override async removePreKey(id: number): Promise<void> {
    this.stage.delete(TABLE.prekeys, String(id))
  }
}

/** Signed EC keys, replaced ones included. */
export class SignedPrekeys extends SignedPreKeyStore {
  readonly stage: Stage
  constructor(stage: Stage) {
    super()
    this.stage = stage
  }
  override async saveSignedPreKey(id: number, record: SignedPreKeyRecord): Promise<void> {
    this.stage.put(TABLE.signed, String(id), record.serialize())
  }
  override async getSignedPreKey(id: number): Promise<SignedPreKeyRecord> {
    return SignedPreKeyRecord.deserialize(found(this.stage.get(TABLE.signed, String(id)), 'signed prekey'))
  }
}

/** Kyber keys: one-time ones are gone once used; a last-resort one serves each base key once, or a replay would decrypt again. */
export class KyberPrekeys extends KyberPreKeyStore {
  readonly stage: Stage
  /** Whether the message at hand opened a session. */
  wasUsed = false
  constructor(stage: Stage) {
    super()
    this.stage = stage
  }
  override async saveKyberPreKey(id: number, record: KyberPreKeyRecord): Promise<void> {
    this.stage.put(TABLE.kyber, String(id), Uint8Array.of(0, ...record.serialize()))
  }
  override async getKyberPreKey(id: number): Promise<KyberPreKeyRecord> {
    return KyberPreKeyRecord.deserialize(found(this.stage.get(TABLE.kyber, String(id)), 'Kyber prekey').slice(1))
  }
  override async markKyberPreKeyUsed(id: number, signedId: number, baseKey: PublicKey): Promise<void> {
    this.wasUsed = true
    if (this.stage.get(TABLE.kyber, String(id))?.[0] !== 1) return this.stage.delete(TABLE.kyber, String(id))
    const use = `${id}.${signedId}.${hex(baseKey.serialize())}`
    if (this.stage.get(TABLE.kyberUsed, use)) throw new Error('this message was decrypted before')
    this.stage.put(TABLE.kyberUsed, use, Uint8Array.of(1))
  }
}
