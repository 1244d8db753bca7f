// libsignal's stores in memory, as a client would keep them on disk. What a test may look at is public.
import {
  type Direction,
  IdentityChange,
  type IdentityKeyPair,
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

const nameOf = (address: ProtocolAddress): string => `${address.name()}.${address.deviceId()}`

const found = <T>(record: T | undefined, what: string): T => {
  if (record === undefined) throw new Error(`no such ${what}`)
  return record
}

export class MemorySessions extends SessionStore {
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

/** Trusts the first key it sees for an address and refuses to send to another. */
export class MemoryIdentities extends IdentityKeyStore {
  readonly known = new Map<string, PublicKey>()
  readonly #own: IdentityKeyPair
  readonly #registrationId: number

  constructor(own: IdentityKeyPair, registrationId: number) {
    super()
    this.#own = own
    this.#registrationId = registrationId
  }

  async getIdentityKey(): Promise<PrivateKey> {
    return this.#own.privateKey
  }

  async getLocalRegistrationId(): Promise<number> {
    return this.#registrationId
  }

  async saveIdentity(address: ProtocolAddress, key: PublicKey): Promise<IdentityChange> {
    const before = this.known.get(nameOf(address))
    this.known.set(nameOf(address), key)
    return before && !before.equals(key) ? IdentityChange.ReplacedExisting : IdentityChange.NewOrUnchanged
  }

  async isTrustedIdentity(address: ProtocolAddress, key: PublicKey, _direction: Direction): Promise<boolean> {
    return this.known.get(nameOf(address))?.equals(key) ?? true
  }

  async getIdentity(address: ProtocolAddress): Promise<PublicKey | null> {
    return this.known.get(nameOf(address)) ?? null
  }
}

export class MemoryPrekeys extends PreKeyStore {
  readonly records = new Map<number, PreKeyRecord>()

  async savePreKey(id: number, record: PreKeyRecord): Promise<void> {
    this.records.set(id, record)
  }

  async getPreKey(id: number): Promise<PreKeyRecord> {
    return found(this.records.get(id), 'prekey')
  }

  async removePreKey(id: number): Promise<void> {
    this.records.delete(id)
  }
}

export class MemorySignedPrekeys extends SignedPreKeyStore {
  readonly records = new Map<number, SignedPreKeyRecord>()

  async saveSignedPreKey(id: number, record: SignedPreKeyRecord): Promise<void> {
    this.records.set(id, record)
  }

  async getSignedPreKey(id: number): Promise<SignedPreKeyRecord> {
    return found(this.records.get(id), 'signed prekey')
  }
}

/** Deletes one-time keys on use; refuses a second use of a last-resort key with the same base key: a replay. */
export class MemoryKyberPrekeys extends KyberPreKeyStore {
  readonly records = new Map<number, KyberPreKeyRecord>()
  readonly lastResort = new Set<number>()
  readonly #used = new Set<string>()

  async saveKyberPreKey(id: number, record: KyberPreKeyRecord): Promise<void> {
    this.records.set(id, record)
  }

  async getKyberPreKey(id: number): Promise<KyberPreKeyRecord> {
    return found(this.records.get(id), 'Kyber prekey')
  }

  async markKyberPreKeyUsed(id: number, signedId: number, baseKey: PublicKey): Promise<void> {
    if (!this.lastResort.has(id)) {
      this.records.delete(id)
      return
    }
    const use = `${id}.${signedId}.${Buffer.from(baseKey.serialize()).toString('hex')}`
    if (this.#used.has(use)) throw new Error('this message was decrypted before')
    this.#used.add(use)
  }
}
