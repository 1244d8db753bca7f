// Bundles of the key directory as a client reads them, before it believes any of it.
import type { BundleParts } from './keys.ts'

/** Without a Kyber key: a device that speaks X3DH only. [K-4.2] */
export type Bundle = Omit<BundleParts, 'kyberPrekey'> & { kyberPrekey: BundleParts['kyberPrekey'] | null }

type PrekeyJson = { key_id: number; public_key: string; signature: string }

const binary = (text: string): Uint8Array => Buffer.from(text, 'base64')

const prekey = (json: PrekeyJson) => ({
  keyId: json.key_id,
  publicKey: binary(json.public_key),
  signature: binary(json.signature ?? ''),
})

/** The bundles in the answer of GET /v1/keys/{user_id}/{device_id or *}. [H-6] */
export function readBundles(body: {
  identity_key: string
  devices: {
    device_id: number
    registration_id: number
    signed_prekey: PrekeyJson
    one_time_prekey: PrekeyJson | null
    kyber_prekey: PrekeyJson | null
  }[]
}): Bundle[] {
  return body.devices.map((device) => ({
    registrationId: device.registration_id,
    deviceId: device.device_id,
    identityKey: binary(body.identity_key),
    signedPrekey: prekey(device.signed_prekey),
    oneTimePrekey: device.one_time_prekey && prekey(device.one_time_prekey),
    kyberPrekey: device.kyber_prekey && prekey(device.kyber_prekey),
  }))
}
