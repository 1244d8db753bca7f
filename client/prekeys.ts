// The public side of a device's prekeys: their JSON, the bytes that name them in proofs and digests, and what was published.
import { base64, bigEndian, concat, fromBase64 } from './bytes.ts'
import type { Bundle, MadeKeys, PublicKey, SignedPublicKey } from './crypto.ts'
import { Table } from './tables.ts'

/** What the relay has of this device as far as it knows; highest ids are ever used, pending uploads included. */
export type Published = {
  signed: SignedPublicKey
  lastResort: SignedPublicKey | null
  rotatedAtMs: number
  highestOneTime: number
  highestKyber: number
}

/** One row, `self`. */
export const published = new Table<Published>('published')

/** The first row, from what was enrolled with. */
export const publishedFrom = (keys: MadeKeys, nowMs: number): Published => ({
  signed: keys.signed!,
  lastResort: keys.lastResort,
  rotatedAtMs: nowMs,
  highestOneTime: keys.oneTime.at(-1)?.keyId ?? -1,
  highestKyber: Math.max(keys.lastResort?.keyId ?? -1, keys.kyberOneTime.at(-1)?.keyId ?? -1),
})

const plain = ({ keyId, publicKey }: PublicKey) => ({ key_id: keyId, public_key: base64(publicKey) })
const signed = (key: SignedPublicKey) => ({ ...plain(key), signature: base64(key.signature) })

/** The body of an upload or an enrolment. [H-6] */
export const keysJson = (keys: MadeKeys) => ({
  ...(keys.signed && { signed_prekey: signed(keys.signed) }),
  ...(keys.lastResort && { last_resort_kyber_prekey: signed(keys.lastResort) }),
  one_time_prekeys: keys.oneTime.map(plain),
  one_time_kyber_prekeys: keys.kyberOneTime.map(signed),
})

const lastBytes = (key: PublicKey | null): Uint8Array =>
  key ? concat(Uint8Array.of(1), bigEndian(key.keyId, 4), key.publicKey) : Uint8Array.of(0)

/** What proof and digest both say of the lasting keys. [I-2.2] [K-7.1] */
export const deviceKeysBytes = (keys: {
  identityKey: Uint8Array
  registrationId: number
  signed: PublicKey
  lastResort: PublicKey | null
}): Uint8Array =>
  concat(
    keys.identityKey,
    bigEndian(keys.registrationId, 2),
    bigEndian(keys.signed.keyId, 4),
    keys.signed.publicKey,
    lastBytes(keys.lastResort),
  )

type KeyJson = { key_id: number; public_key: string; signature?: string }
/** One user's answer of the key directory. [H-6] */
export type BundleJson = {
  user_id: string
  identity_key: string
  devices: {
    device_id: number
    registration_id: number
    signed_prekey: KeyJson
    one_time_prekey: KeyJson | null
    kyber_prekey: KeyJson | null
  }[]
}

const readKey = ({ key_id, public_key, signature = '' }: KeyJson): SignedPublicKey => ({
  keyId: key_id,
  publicKey: fromBase64(public_key),
  signature: fromBase64(signature),
})

/** The bundles of one reply: one identity key for all of them. @throws Error when a field is missing or malformed. */
export const readBundles = (json: BundleJson): Bundle[] =>
  json.devices.map((device) => ({
    deviceId: device.device_id,
    registrationId: device.registration_id,
    identityKey: fromBase64(json.identity_key),
    signed: readKey(device.signed_prekey),
    oneTime: device.one_time_prekey && readKey(device.one_time_prekey),
    kyber: device.kyber_prekey && readKey(device.kyber_prekey),
  }))
