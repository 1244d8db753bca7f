// A device of the kit with libsignal sessions: opens them from bundles as HTTP gives them, encrypts, decrypts. No network.
import {
  DecryptionErrorMessage,
  KEMPublicKey,
  PlaintextContent,
  PreKeyBundle,
  PreKeySignalMessage,
  ProtocolAddress,
  PublicKey,
  processPreKeyBundle,
  SignalMessage,
  signalDecrypt,
  signalDecryptPreKey,
  signalEncrypt,
} from '@signalapp/libsignal-client'
import { fromBase64, own } from './bytes.ts'
import type { DeviceKeys, PrekeyJson } from './keys.ts'
import { Identities, KyberPrekeys, Prekeys, Sessions, SignedPrekeys } from './stores.ts'

/** Who it is. */
export type Name = { userId: string; deviceId: number }

/** One user's bundles. [H-6] */
export type BundlesJson = {
  user_id: string
  identity_key: string
  devices: {
    device_id: number
    registration_id: number
    signed_prekey: PrekeyJson
    one_time_prekey: PrekeyJson | null
    kyber_prekey: PrekeyJson | null
  }[]
}

/** libsignal's numbers on the wire. [S-5] */
export const WHISPER = 2
export const PREKEY = 3
export const PLAINTEXT = 8

const key = (text: string): PublicKey => PublicKey.deserialize(fromBase64(text))
const addressOf = ({ userId, deviceId }: Name): ProtocolAddress => ProtocolAddress.new(userId, deviceId)

export class Peer {
  readonly keys: DeviceKeys
  readonly name: Name
  readonly sessions = new Sessions()
  private readonly identities: Identities

  constructor(keys: DeviceKeys, { userId, deviceId }: Name) {
    this.keys = keys
    this.name = { userId, deviceId }
    this.identities = new Identities(keys)
  }

  /** Opens a session from a bundle, or replaces it. @throws libsignal's error for one that does not verify. */
  async startSession(json: BundlesJson, deviceId: number): Promise<void> {
    const bundle = json.devices.find((each) => each.device_id === deviceId)
    if (!bundle) throw new Error(`no bundle of device ${deviceId}`)
    const { registration_id, signed_prekey: signed, one_time_prekey: oneTime, kyber_prekey: kyber } = bundle
    if (!kyber) throw new Error('a bundle without a Kyber key')
    const made = PreKeyBundle.new(
      ...([registration_id, deviceId, oneTime?.key_id ?? null, oneTime && key(oneTime.public_key)] as const),
      ...([signed.key_id, key(signed.public_key), fromBase64(signed.signature ?? ''), key(json.identity_key)] as const),
      ...([
        kyber.key_id,
        KEMPublicKey.deserialize(fromBase64(kyber.public_key)),
        fromBase64(kyber.signature ?? ''),
      ] as const),
    )
    const [to, from] = [addressOf({ userId: json.user_id, deviceId }), addressOf(this.name)]
    await processPreKeyBundle(made, to, from, this.sessions, this.identities)
  }

  hasSession(to: Name): boolean {
    return this.sessions.records.get(`${to.userId}.${to.deviceId}`)?.hasCurrentState(new Date()) ?? false
  }

  /** One call at a time: libsignal gives concurrent ones the same counter. */
  async encrypt(to: Name, plaintext: Uint8Array): Promise<{ type: number; content: Uint8Array }> {
    const [peer, self] = [addressOf(to), addressOf(this.name)]
    const message = await signalEncrypt(own(plaintext), peer, self, this.sessions, this.identities)
    return { type: message.type(), content: message.serialize() }
  }

  /** @throws libsignal's error for what cannot be read. */
  async decrypt(from: Name, type: number, content: Uint8Array): Promise<Uint8Array> {
    const common = [addressOf(from), addressOf(this.name), this.sessions, this.identities] as const
    if (type !== PREKEY) return signalDecrypt(SignalMessage.deserialize(own(content)), ...common)
    const stores = [new Prekeys(this.keys), new SignedPrekeys(this.keys), new KyberPrekeys(this.keys)] as const
    return signalDecryptPreKey(PreKeySignalMessage.deserialize(own(content)), ...common, ...stores)
  }

  /** A retry receipt for what could not be read: type 8. */
  complain(content: Uint8Array, type: number, sentAtMs: number, senderDeviceId: number): Uint8Array {
    return PlaintextContent.from(
      DecryptionErrorMessage.forOriginal(own(content), type, sentAtMs, senderDeviceId),
    ).serialize()
  }
}
