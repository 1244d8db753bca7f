// What registering and linking have in common: the proof and the keys of a new device, checked, and the rows it gets.
// Who may have a new device is decided in accounts.ts and devices.ts.
import { randomUUID } from 'node:crypto'
import type { Directory } from '../keys/directory.ts'
import type { DeviceKeys, SignedPrekey, VerifiedKeys } from '../keys/prekeys.ts'
import { type ProofPurpose, verifyIdentityProof, verifyKeys } from '../keys/verify.ts'
import type { Uuid } from '../proto/ids.ts'
import { newSecret } from './credentials.ts'
import type { Transaction } from './database.ts'

/** A new device as it introduces itself; nothing in it is trusted. */
export type Enrolment = {
  /** For the user's own list, up to NAME_MAX_CHARS characters. */
  name: string
  /** 1..16383 */
  registrationId: number
  /** 33 bytes */
  identityKey: Uint8Array
  keys: DeviceKeys & { signedPrekey: SignedPrekey }
  identityProof: { timestampMs: number; signature: Uint8Array }
}

/** What the new device is told, once. */
export type Enrolled = {
  userId: Uuid
  deviceId: number
  /** base64url, 43 characters. */
  deviceSecret: string
}

/**
 * Whether whoever asks holds the identity key and made these keys. Touches no state.
 * @param linkCode '' where there is none.
 * @throws RelayError INVALID_REQUEST naming what is wrong. [I-2] [K-1]
 */
export async function verifyEnrolment(
  enrolment: Enrolment,
  context: { purpose: ProofPurpose; realm: string; linkCode: string; nowMs: number },
): Promise<VerifiedKeys> {
  const { registrationId, identityKey, keys, identityProof } = enrolment
  const { purpose, realm, linkCode, nowMs } = context
  const { signedPrekey, lastResortKyberPrekey } = keys
  const { timestampMs, signature } = identityProof
  // One signature before the up to 102 of the keys: strangers ask this.
  const claim = {
    purpose,
    realm,
    linkCode,
    registrationId,
    identityKey,
    signedPrekey,
    lastResortKyberPrekey,
    timestampMs,
  }
  verifyIdentityProof(claim, signature, nowMs)
  return verifyKeys(identityKey, keys)
}

/**
 * Writes a device with its queue and its keys, in the transaction that decided it may exist.
 * @param device keys passed verifyEnrolment; the account's row exists and deviceId is free.
 * @throws RelayError CONFLICT or INVALID_REQUEST from the directory; the transaction must be rolled back.
 */
export async function createDevice(
  tx: Transaction,
  directory: Directory,
  device: { userId: Uuid; deviceId: number; name: string; registrationId: number; keys: VerifiedKeys; nowMs: number },
): Promise<Enrolled & { deviceKey: number }> {
  const { userId, deviceId, name, registrationId, keys, nowMs } = device
  const { secret, secretHash } = newSecret()
  const [row] = await tx<{ device_key: number }[]>`
    insert into devices (device_uuid, user_id, device_id, name, secret_hash, created_at)
    values (${randomUUID()}, ${userId}, ${deviceId}, ${name}, ${secretHash}, ${new Date(nowMs)}) returning device_key`
  const deviceKey = row!.device_key
  await tx`insert into device_locks (device_key) values (${deviceKey})`
  await tx`insert into device_sequences (device_key, last) values (${deviceKey}, 0)`
  await directory.enrol(tx, { deviceKey, userId, deviceId, registrationId }, keys)
  return { userId, deviceId, deviceKey, deviceSecret: secret }
}
