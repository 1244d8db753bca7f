// Device secrets: what a device trades for access tokens. Only a hash is stored; the tokens are tokens.ts's.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { isUuid, type Uuid } from '../proto/ids.ts'
import { DEVICE_ID_MAX, DEVICE_ID_MIN } from '../proto/limits.ts'
import type { Sql } from './database.ts'
import type { TokenDevice } from './tokens.ts'

/** Device secret, bytes; 43 characters of base64url on the wire. [I-1.3] */
const SECRET_BYTES = 32

const hash = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()
// Compared against when there is no such device, so that both refusals take the same way. I13
const NOBODY = hash(randomBytes(SECRET_BYTES))

/** A new device secret: base64url for the device, SHA-256 of its 32 bytes for table devices. */
export function newSecret(): { secret: string; secretHash: Buffer } {
  const bytes = randomBytes(SECRET_BYTES)
  return { secret: bytes.toString('base64url'), secretHash: hash(bytes) }
}

/**
 * The device whose secret this is, or null: an unknown device, a malformed client id and a wrong secret are one answer (I13).
 * @param clientId `<user id>.<device id>`. @throws the database's error.
 */
export async function verifyCredentials(sql: Sql, clientId: string, clientSecret: string): Promise<TokenDevice | null> {
  const address = parseClientId(clientId)
  const [row] = address
    ? await sql<{ device_uuid: Uuid; secret_hash: Uint8Array }[]>`select device_uuid, secret_hash from devices
        where user_id = ${address.userId} and device_id = ${address.deviceId}`
    : []
  const bytes = Buffer.from(clientSecret, 'base64url')
  const canonical = bytes.length === SECRET_BYTES && bytes.toString('base64url') === clientSecret
  const equal = timingSafeEqual(hash(bytes), row?.secret_hash ?? NOBODY)
  return address && row && canonical && equal ? { ...address, deviceUuid: row.device_uuid } : null
}

function parseClientId(clientId: string): { userId: Uuid; deviceId: number } | null {
  const userId = clientId.slice(0, 36)
  const digits = clientId.slice(36)
  const deviceId = Number(digits.slice(1))
  const canonical = isUuid(userId) && digits === `.${deviceId}`
  return canonical && Number.isInteger(deviceId) && deviceId >= DEVICE_ID_MIN && deviceId <= DEVICE_ID_MAX
    ? { userId, deviceId }
    : null
}
