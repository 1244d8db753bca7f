// Keys as JSON: snake_case, binary in base64. Only form is checked here; what the bytes mean is checked in verify.ts. [H-1] [H-6]
import { z } from 'zod'
import { isUuid } from '../proto/ids.ts'
import { DEVICE_ID_MAX, DEVICE_ID_MIN, KEY_ID_MAX } from '../proto/limits.ts'
import type { Counts, DeviceBundle, DeviceKeys, Prekey, SignedPrekey, StockCounts, UserBundles } from './prekeys.ts'

/** Standard base64 with padding, any length; another spelling of the same bytes is refused. [H-1] */
export const binary = z.string().transform((text, context): Uint8Array => {
  const bytes = Buffer.from(text, 'base64')
  if (bytes.toString('base64') === text) return bytes
  context.addIssue({ code: 'custom', message: 'is not base64' })
  return z.NEVER
})

const prekey = z
  .strictObject({ key_id: z.int().min(0).max(KEY_ID_MAX), public_key: binary })
  .transform((key): Prekey => ({ keyId: key.key_id, publicKey: key.public_key }))

const signedPrekey = z
  .strictObject({ key_id: z.int().min(0).max(KEY_ID_MAX), public_key: binary, signature: binary })
  .transform((key): SignedPrekey => ({ keyId: key.key_id, publicKey: key.public_key, signature: key.signature }))

/** The fields of a body that bring keys, for z.strictObject({ ...prekeyFields }): uploads, registration, linking. */
export const prekeyFields = {
  signed_prekey: signedPrekey.nullish(),
  last_resort_kyber_prekey: signedPrekey.nullish(),
  one_time_prekeys: z.array(prekey).nullish(),
  one_time_kyber_prekeys: z.array(signedPrekey).nullish(),
}

const prekeyObject = z.strictObject(prekeyFields)

/** The keys of a parsed body with prekeyFields; absent ones become null or empty. Not verified. */
export const toDeviceKeys = (body: z.output<typeof prekeyObject>): DeviceKeys => ({
  signedPrekey: body.signed_prekey ?? null,
  lastResortKyberPrekey: body.last_resort_kyber_prekey ?? null,
  oneTimePrekeys: body.one_time_prekeys ?? [],
  oneTimeKyberPrekeys: body.one_time_kyber_prekeys ?? [],
})

/** Body of PUT /v1/keys. */
export const uploadBody = z.strictObject({
  ...prekeyFields,
  replace: z.boolean().nullish(),
  registration_id: z.int().nullish(),
})

/** Body of POST /v1/keys/check. */
export const checkBody = z.strictObject({ digest: binary })

/** Body of POST /v1/keys/bundles. How many targets is the directory's to say. */
export const bundlesBody = z.strictObject({
  targets: z.array(
    z
      .strictObject({
        user_id: z.string().refine(isUuid, 'is not a canonical UUID'),
        device_id: z.int().min(DEVICE_ID_MIN).max(DEVICE_ID_MAX),
      })
      .transform((target) => ({ userId: target.user_id, deviceId: target.device_id })),
  ),
})

const text = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')

const prekeyJson = (key: Prekey) => ({ key_id: key.keyId, public_key: text(key.publicKey) })

const signedPrekeyJson = (key: SignedPrekey) => ({ ...prekeyJson(key), signature: text(key.signature) })

const deviceJson = (device: DeviceBundle) => ({
  device_id: device.deviceId,
  registration_id: device.registrationId,
  signed_prekey: signedPrekeyJson(device.signedPrekey),
  one_time_prekey: device.oneTimePrekey && prekeyJson(device.oneTimePrekey),
  kyber_prekey: device.kyberPrekey && signedPrekeyJson(device.kyberPrekey),
})

/** Answer of GET /v1/keys/{user_id}/{device_id}, and an entry of POST /v1/keys/bundles. */
export const bundlesJson = (user: UserBundles) => ({
  user_id: user.userId,
  identity_key: text(user.identityKey),
  devices: user.devices.map(deviceJson),
})

const stockJson = (stock: StockCounts) => ({
  count: stock.count,
  oldest_id: stock.oldestId,
  highest_id: stock.highestId,
})

/** Answer of GET and PUT /v1/keys. [K-6] */
export const countsJson = ({ oneTime, kyberOneTime, signedPrekey: signed, lastResort }: Counts) => ({
  one_time: stockJson(oneTime),
  kyber_one_time: stockJson(kyberOneTime),
  signed_prekey: signed && { key_id: signed.keyId, created_at_ms: signed.createdAtMs },
  last_resort: lastResort && {
    key_id: lastResort.keyId,
    created_at_ms: lastResort.createdAtMs,
    used: lastResort.used,
  },
})
