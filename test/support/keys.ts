// A device with real libsignal keys: makes prekeys for the directory, opens sessions, encrypts and decrypts. No network.
import {
  IdentityKeyPair,
  KEMKeyPair,
  KEMPublicKey,
  KyberPreKeyRecord,
  PreKeyBundle,
  PreKeyRecord,
  PreKeySignalMessage,
  PrivateKey,
  ProtocolAddress,
  PublicKey,
  processPreKeyBundle,
  SignalMessage,
  SignedPreKeyRecord,
  signalDecrypt,
  signalDecryptPreKey,
  signalEncrypt,
} from '@signalapp/libsignal-client'
import { MemoryIdentities, MemoryKyberPrekeys, MemoryPrekeys, MemorySessions, MemorySignedPrekeys } from './stores.ts'

type Bytes = Uint8Array<ArrayBuffer>

/** Public halves, raw bytes, as every layer of the directory names them. */
export type PublicPrekey = { keyId: number; publicKey: Bytes }
export type SignedPublicPrekey = PublicPrekey & { signature: Bytes }

/** What a bundle brings; the optional parts as the directory had them. */
export type BundleParts = {
  registrationId: number
  deviceId: number
  identityKey: Uint8Array
  signedPrekey: { keyId: number; publicKey: Uint8Array; signature: Uint8Array }
  oneTimePrekey?: { keyId: number; publicKey: Uint8Array } | null
  kyberPrekey: { keyId: number; publicKey: Uint8Array; signature: Uint8Array }
}

/** libsignal's ciphertext types as the wire carries them. */
export const WHISPER = 2
export const PREKEY = 3

const bytes = (input: Uint8Array): Bytes => Uint8Array.from(input)

/**
 * Another one each time, 256 to 16,383: of ids at random two are the same now and then, where the relay wants another than a
 * predecessor's. Neighbours come far apart, lower ones never, for tests that name one.
 */
const anotherRegistrationId = (): number => 256 + ((drawn++ * 5081) % 16_128)
let drawn = Math.floor(Math.random() * 16_128)

export class TestDevice {
  readonly identity: IdentityKeyPair
  readonly registrationId: number
  readonly sessions = new MemorySessions()
  readonly identities: MemoryIdentities
  readonly prekeys = new MemoryPrekeys()
  readonly signedPrekeys = new MemorySignedPrekeys()
  readonly kyberPrekeys = new MemoryKyberPrekeys()
  /** Set once the relay has said who this device is. */
  userId = ''
  deviceId = 1

  /** @param identity pass the user's pair for a second device; a new one otherwise. */
  constructor(options: { identity?: IdentityKeyPair; registrationId?: number } = {}) {
    this.identity = options.identity ?? IdentityKeyPair.generate()
    this.registrationId = options.registrationId ?? anotherRegistrationId()
    this.identities = new MemoryIdentities(this.identity, this.registrationId)
  }

  /** 33 bytes. */
  get identityKey(): Bytes {
    return this.identity.publicKey.serialize()
  }

  get address(): ProtocolAddress {
    return ProtocolAddress.new(this.userId, this.deviceId)
  }

  /** XEdDSA under the identity key, 64 bytes. */
  sign(message: Uint8Array): Bytes {
    return this.identity.privateKey.sign(bytes(message))
  }

  makeSignedPrekey(keyId: number): SignedPublicPrekey {
    const pair = PrivateKey.generate()
    const publicKey = pair.getPublicKey().serialize()
    const signature = this.sign(publicKey)
    const record = SignedPreKeyRecord.new(keyId, Date.now(), pair.getPublicKey(), pair, signature)
    this.signedPrekeys.records.set(keyId, record)
    return { keyId, publicKey, signature }
  }

  /** Ids firstId, firstId + 1, … */
  makeOneTimePrekeys(count: number, firstId = 0): PublicPrekey[] {
    return Array.from({ length: count }, (_, index) => {
      const pair = PrivateKey.generate()
      const keyId = firstId + index
      this.prekeys.records.set(keyId, PreKeyRecord.new(keyId, pair.getPublicKey(), pair))
      return { keyId, publicKey: pair.getPublicKey().serialize() }
    })
  }

  /** Ids firstId, firstId + 1, …; they share one id space with the last-resort key. */
  makeKyberPrekeys(count: number, firstId = 0): SignedPublicPrekey[] {
    return Array.from({ length: count }, (_, index) => this.#makeKyber(firstId + index))
  }

  makeLastResort(keyId: number): SignedPublicPrekey {
    this.kyberPrekeys.lastResort.add(keyId)
    return this.#makeKyber(keyId)
  }

  #makeKyber(keyId: number): SignedPublicPrekey {
    const pair = KEMKeyPair.generate()
    const publicKey = pair.getPublicKey().serialize()
    const signature = this.sign(publicKey)
    this.kyberPrekeys.records.set(keyId, KyberPreKeyRecord.new(keyId, Date.now(), pair, signature))
    return { keyId, publicKey, signature }
  }

  /**
   * Opens a PQXDH session to a device from its bundle, replacing none that exists.
   * @throws when a signature in the bundle does not verify, or it has no Kyber key.
   */
  async startSession(userId: string, bundle: BundleParts, now = new Date()): Promise<void> {
    const made = PreKeyBundle.new(
      bundle.registrationId,
      bundle.deviceId,
      bundle.oneTimePrekey?.keyId ?? null,
      bundle.oneTimePrekey ? PublicKey.deserialize(bytes(bundle.oneTimePrekey.publicKey)) : null,
      bundle.signedPrekey.keyId,
      PublicKey.deserialize(bytes(bundle.signedPrekey.publicKey)),
      bytes(bundle.signedPrekey.signature),
      PublicKey.deserialize(bytes(bundle.identityKey)),
      bundle.kyberPrekey.keyId,
      KEMPublicKey.deserialize(bytes(bundle.kyberPrekey.publicKey)),
      bytes(bundle.kyberPrekey.signature),
    )
    const address = ProtocolAddress.new(userId, bundle.deviceId)
    await processPreKeyBundle(made, address, this.address, this.sessions, this.identities, now)
  }

  /** Whether a message to that device could be encrypted now. */
  hasSession(userId: string, deviceId: number, now = new Date()): boolean {
    return this.sessions.records.get(`${userId}.${deviceId}`)?.hasCurrentState(now) ?? false
  }

  /** One call at a time per session: libsignal gives concurrent ones the same counter. */
  async encrypt(userId: string, deviceId: number, plaintext: Uint8Array): Promise<{ type: number; content: Bytes }> {
    const to = ProtocolAddress.new(userId, deviceId)
    const message = await signalEncrypt(bytes(plaintext), to, this.address, this.sessions, this.identities)
    return { type: message.type(), content: message.serialize() }
  }

  /** @param type WHISPER or PREKEY. */
  async decrypt(userId: string, deviceId: number, type: number, content: Uint8Array): Promise<Bytes> {
    const from = ProtocolAddress.new(userId, deviceId)
    const { sessions, identities } = this
    if (type !== PREKEY)
      return signalDecrypt(SignalMessage.deserialize(bytes(content)), from, this.address, sessions, identities)
    return signalDecryptPreKey(
      ...([PreKeySignalMessage.deserialize(bytes(content)), from, this.address, sessions, identities] as const),
      ...([this.prekeys, this.signedPrekeys, this.kyberPrekeys] as const),
    )
  }
}
