// libsignal's stores over the keys of one device of the kit, in memory.
import {
  type Direction,
  IdentityChange,
  IdentityKeyStore,
  type KyberPreKeyRecord,
  KyberPreKeyStore,
  type PreKeyRecord,
  PreKeyStore,
  type PrivateKey,
  type ProtocolAddress,
  type PublicKey,
  type SessionRecord,
  SessionStore,
  type SignedPreKeyRecord,
  SignedPreKeyStore,
} from '@signalapp/libsignal-client'
import type { DeviceKeys } from './keys.ts'

const nameOf = (address: ProtocolAddress): string => `${address.name()}.${address.deviceId()}`

const found = <T>(record: T | undefined, what: string): T => {
  if (record === undefined) throw new Error(`no such ${what}`)
  return record
}

export class Sessions extends SessionStore {
  readonly records = new Map<string, SessionRecord>()

  async saveSession(address: ProtocolAddress, record: SessionRecord): Promise<void> {
    this.records.set(nameOf(address), record)
  }
  async getSession(address: ProtocolAddress): Promise<SessionRecord | null> {
    return this.records.get(nameOf(address)) ?? null
  }
  async getExistingSessions(addresses: ProtocolAddress[]): Promise<SessionRecord[]> {
    return addresses.map((address) => found(this.records.get(nameOf(address)), 'session'))
  }
}

/** Trusts every key: the party under test is the one to be careful. */
export class Identities extends IdentityKeyStore {
  readonly known = new Map<string, PublicKey>()
  readonly #keys: DeviceKeys

  constructor(keys: DeviceKeys) {
    super()
    this.#keys = keys
  }

  async getIdentityKey(): Promise<PrivateKey> {
    return this.#keys.identity.privateKey
  }
  async getLocalRegistrationId(): Promise<number> {
    return this.#keys.registrationId
  }
  async saveIdentity(address: ProtocolAddress, key: PublicKey): Promise<IdentityChange> {
    this.known.set(nameOf(address), key)
    return IdentityChange.NewOrUnchanged
  }
  async isTrustedIdentity(_address: ProtocolAddress, _key: PublicKey, _direction: Direction): Promise<boolean> {
    return true
  }
  async getIdentity(address: ProtocolAddress): Promise<PublicKey | null> {
    return this.known.get(nameOf(address)) ?? null
  }
}

export class Prekeys extends PreKeyStore {
  readonly #keys: DeviceKeys
  constructor(keys: DeviceKeys) {
    super()
    this.#keys = keys
  }
  async savePreKey(id: number, record: PreKeyRecord): Promise<void> {
    this.#keys.prekeys.set(id, record)
  }
  async getPreKey(id: number): Promise<PreKeyRecord> {
    return found(this.#keys.prekeys.get(id), 'prekey')
  }
  async removePreKey(id: number): Promise<void> {
    this.#keys.prekeys.delete(id)
  }
}

export class SignedPrekeys extends SignedPreKeyStore {
  readonly #keys: DeviceKeys
  constructor(keys: DeviceKeys) {
    super()
    this.#keys = keys
  }
  async saveSignedPreKey(id: number, record: SignedPreKeyRecord): Promise<void> {
    this.#keys.signedPrekeys.set(id, record)
  }
  async getSignedPreKey(id: number): Promise<SignedPreKeyRecord> {
    return found(this.#keys.signedPrekeys.get(id), 'signed prekey')
  }
}

export class KyberPrekeys extends KyberPreKeyStore {
  readonly #keys: DeviceKeys
  constructor(keys: DeviceKeys) {
    super()
    this.#keys = keys
  }
  async saveKyberPreKey(id: number, record: KyberPreKeyRecord): Promise<void> {
    this.#keys.kyberPrekeys.set(id, record)
  }
  async getKyberPreKey(id: number): Promise<KyberPreKeyRecord> {
    return found(this.#keys.kyberPrekeys.get(id), 'Kyber prekey')
  }
  async markKyberPreKeyUsed(id: number): Promise<void> {
    if (!this.#keys.lastResorts.has(id)) this.#keys.kyberPrekeys.delete(id)
  }
}
