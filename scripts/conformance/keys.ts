// The keys of one device, made with libsignal, and the bytes by which proofs and digests name them. [I-2] [K-7] No network.
import {
  IdentityKeyPair,
  KEMKeyPair,
  KyberPreKeyRecord,
  PreKeyRecord,
  PrivateKey,
  SignedPreKeyRecord,
} from '@signalapp/libsignal-client'
import { base64, be, own, sha256, utf8 } from './bytes.ts'

/** A public key with its id; signed unless it is a one-time EC key. */
export type PublicPrekey = { keyId: number; publicKey: Uint8Array; signature?: Uint8Array }

/** As HTTP takes it. [H-6] */
export type PrekeyJson = { key_id: number; public_key: string; signature?: string }

export const prekeyJson = ({ keyId, publicKey, signature }: PublicPrekey): PrekeyJson => ({
  key_id: keyId,
  public_key: base64(publicKey),
  ...(signature && { signature: base64(signature) }),
})

/** The lasting keys of a device: what a proof binds and a digest compares. */
export type Lasting = { signed: PublicPrekey; lastResort: PublicPrekey | null }

export type ProofOptions = {
  purpose: 'register' | 'link' | 'identity'
  realm: string
  /** The text of a link or recovery code; '' = none. */
  code?: string
  nowMs?: number
}

/** Makes keys and keeps their private halves. */
export class DeviceKeys {
  readonly identity: IdentityKeyPair
  readonly registrationId: number
  readonly prekeys = new Map<number, PreKeyRecord>()
  readonly signedPrekeys = new Map<number, SignedPreKeyRecord>()
  readonly kyberPrekeys = new Map<number, KyberPreKeyRecord>()
  readonly lastResorts = new Set<number>()

  /** @param options.identity the user's, for one more device. */
  constructor(options: { identity?: IdentityKeyPair; registrationId?: number } = {}) {
    this.identity = options.identity ?? IdentityKeyPair.generate()
    this.registrationId = options.registrationId ?? 1 + Math.floor(Math.random() * 16383)
  }

  /** 33 bytes. */
  get identityKey(): Uint8Array {
    return this.identity.publicKey.serialize()
  }

  /** XEdDSA by the identity key, 64 bytes. */
  sign(message: Uint8Array): Uint8Array {
    return this.identity.privateKey.sign(own(message))
  }

  signed(keyId: number): Required<PublicPrekey> {
    const pair = PrivateKey.generate()
    const publicKey = pair.getPublicKey().serialize()
    const signature = this.sign(publicKey)
    this.signedPrekeys.set(keyId, SignedPreKeyRecord.new(keyId, Date.now(), pair.getPublicKey(), pair, own(signature)))
    return { keyId, publicKey, signature }
  }

  /** Ids first, first + 1, … */
  oneTime(first: number, count: number): PublicPrekey[] {
    return Array.from({ length: count }, (_, at) => {
      const pair = PrivateKey.generate()
      this.prekeys.set(first + at, PreKeyRecord.new(first + at, pair.getPublicKey(), pair))
      return { keyId: first + at, publicKey: pair.getPublicKey().serialize() }
    })
  }

  kyber(keyId: number, lastResort = false): Required<PublicPrekey> {
    const pair = KEMKeyPair.generate()
    const publicKey = pair.getPublicKey().serialize()
    const signature = this.sign(publicKey)
    this.kyberPrekeys.set(keyId, KyberPreKeyRecord.new(keyId, Date.now(), pair, own(signature)))
    if (lastResort) this.lastResorts.add(keyId)
    return { keyId, publicKey, signature }
  }

  /** Ids first, first + 1, …; one id space with last-resort keys. [K-2.3] */
  kybers(first: number, count: number): Required<PublicPrekey>[] {
    return Array.from({ length: count }, (_, at) => this.kyber(first + at))
  }

  /** identity_proof over these lasting keys. [I-2.1] */
  proof({ signed, lastResort }: Lasting, options: ProofOptions): { timestamp_ms: number; signature: string } {
    const { purpose, realm, code = '', nowMs = Date.now() } = options
    const keys = Buffer.concat([this.identityKey, be(this.registrationId, 2), ...lastingBytes({ signed, lastResort })])
    const message = Buffer.concat([
      utf8(`sealpost.v1 ${purpose}\0${realm}`),
      sha256(utf8(code)),
      sha256(keys),
      be(nowMs, 8),
    ])
    return { timestamp_ms: nowMs, signature: base64(this.sign(message)) }
  }

  /** What the relay should have of this device. [K-7.1] @param user 16 bytes. */
  digest(user: Uint8Array, deviceId: number, lasting: Lasting): Uint8Array {
    const head = [utf8('sealpost.v1 keys\0'), user, be(deviceId, 1), be(this.registrationId, 2), this.identityKey]
    return sha256(...head, ...lastingBytes(lasting))
  }
}

/** Signed prekey and last-resort key with their ids. [I-2.2] [K-7.1] */
const lastingBytes = ({ signed, lastResort }: Lasting): Uint8Array[] => [
  be(signed.keyId, 4),
  signed.publicKey,
  ...(lastResort ? [be(1, 1), be(lastResort.keyId, 4), lastResort.publicKey] : [be(0, 1)]),
]
