// The shapes keys have inside the directory: raw bytes, camelCase. Their JSON is in wire.ts.
import type { Uuid } from '../proto/ids.ts'

/** keyId 0 to 2^31 - 1, 0 is an id like any other; publicKey 33 bytes. */
export type Prekey = { keyId: number; publicKey: Uint8Array }

/** publicKey 33 (EC) or 1,569 bytes (Kyber); signature 64 bytes, by the identity key over publicKey. */
export type SignedPrekey = Prekey & { signature: Uint8Array }

/** What a device publishes at once. Nothing is verified yet. [K-2] */
export type DeviceKeys = {
  signedPrekey: SignedPrekey | null
  lastResortKyberPrekey: SignedPrekey | null
  oneTimePrekeys: Prekey[]
  oneTimeKyberPrekeys: SignedPrekey[]
}

/** Keys that passed verifyKeys, with the identity key they passed under. Made there and nowhere else. */
export type VerifiedKeys = DeviceKeys & { identityKey: Uint8Array; readonly verified: unique symbol }

/** An upload of a device that exists. registrationId counts only with replace. [K-2] [K-8] */
export type Upload = DeviceKeys & { replace: boolean; registrationId: number | null }

/** What a caller needs to open a session with one device; null where there is none to give. [K-4] */
export type DeviceBundle = {
  deviceId: number
  registrationId: number
  signedPrekey: SignedPrekey
  oneTimePrekey: Prekey | null
  kyberPrekey: SignedPrekey | null
}

/** The bundles of one user's devices, ascending by device id. */
export type UserBundles = { userId: Uuid; identityKey: Uint8Array; devices: DeviceBundle[] }

/** Which sorts of key a bundle took: what depletes a stock, and what is left when it is empty. */
export type BundleSorts = { ec: 'one_time' | 'none'; kyber: 'one_time' | 'last_resort' | 'none' }

/** One device of a user, or all of them. */
export type Target = { userId: Uuid; deviceId: number | '*' }

/** Ids are null when there is none: oldestId is the next to leave, highestId the highest ever uploaded. */
export type StockCounts = { count: number; oldestId: number | null; highestId: number | null }

/** A device's own view of its keys; highestId of kyberOneTime covers last-resort keys too, they share the id space. [K-6] */
export type Counts = {
  oneTime: StockCounts
  kyberOneTime: StockCounts
  signedPrekey: { keyId: number; createdAtMs: number } | null
  lastResort: { keyId: number; createdAtMs: number; used: boolean } | null
}
