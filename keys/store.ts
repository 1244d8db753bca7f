// SQL of schema keys around a device: its row, its identity, removal, restore, counts. Writing keys is in publish.ts, handing them out in claim.ts.

import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { DEVICE_ID_MAX } from '../proto/limits.ts'
import type { Sql, Transaction } from '../server/database.ts'
import type { Counts, Target } from './prekeys.ts'
import type { DigestInput } from './verify.ts'

/** Kinds as tombstones and highest_ids write them. */
export const EC_KIND = 1
export const KYBER_KIND = 2

/** How long what left is remembered, milliseconds. [K-3.1] */
export const TOMBSTONE_TTL_MS = 365 * 24 * 3600 * 1000

/** The identity key of a user, 33 bytes, or null: unknown user. */
export async function findIdentity(sql: Sql | Transaction, userId: Uuid): Promise<Uint8Array | null> {
  const [row] = await sql<{ identity_key: Buffer }[]>`
    select identity_key from keys.identities where user_id = ${userId}`
  return row?.identity_key ?? null
}

/** The identity key a device publishes under, or null: unknown device. */
export async function findDeviceIdentity(sql: Sql | Transaction, deviceKey: number): Promise<Uint8Array | null> {
  const [row] = await sql<{ identity_key: Buffer }[]>`
    select i.identity_key from keys.devices d join keys.identities i using (user_id) where d.device_key = ${deviceKey}`
  return row?.identity_key ?? null
}

/** What enrol writes of a device besides its keys. */
export type NewDevice = { deviceKey: number; userId: Uuid; deviceId: number; registrationId: number }

/**
 * Inserts the device row, and the identity if the user has none yet. [I-1.2] [I-4.2]
 * @throws RelayError CONFLICT (the identity key is another user's, the address is taken), INVALID_REQUEST (not the user's identity key).
 */
export async function insertDevice(tx: Transaction, device: NewDevice, identityKey: Uint8Array): Promise<void> {
  const { deviceKey, userId, deviceId, registrationId } = device
  const first = await tx`insert into keys.identities (user_id, identity_key) values (${userId}, ${identityKey})
    on conflict (user_id) do nothing`.catch(refuseTaken)
  if (first.count > 0) await refuseGivenUp(tx, identityKey)
  const stored = await findIdentity(tx, userId)
  if (!stored || !sameBytes(stored, identityKey))
    throw new RelayError('INVALID_REQUEST', "identity_key is not the user's")
  await tx`insert into keys.devices (device_key, user_id, device_id, registration_id)
    values (${deviceKey}, ${userId}, ${deviceId}, ${registrationId})`.catch(refuseTaken)
}

/**
 * Puts a new identity in the place of the user's and gives the old one up. The user's devices were deleted before. [I-6]
 * @throws RelayError CONFLICT: the key is another user's, or was any user's before. [I-6.6]
 */
export async function replaceIdentity(
  tx: Transaction,
  userId: Uuid,
  identityKey: Uint8Array,
  nowMs: number,
): Promise<void> {
  await tx`insert into keys.given_up_identities (key_hash, given_up_at)
    select sha256(identity_key), ${new Date(nowMs)}::timestamptz from keys.identities where user_id = ${userId}`
  await tx`update keys.identities set identity_key = ${identityKey} where user_id = ${userId}`.catch(refuseTaken)
  await refuseGivenUp(tx, identityKey)
}

// After the write, which waits for whoever is giving this very key up: what he commits is seen here.
async function refuseGivenUp(tx: Transaction, identityKey: Uint8Array): Promise<void> {
  const [old] = await tx`select 1 from keys.given_up_identities where key_hash = sha256(${identityKey}::bytea)`
  if (old) throw new RelayError('CONFLICT', GIVEN_UP)
}

const GIVEN_UP = 'identity_key belongs to another account, or did'

const TAKEN: Record<string, string> = {
  identities_key_unique: GIVEN_UP,
  devices_address: 'the device id is in use',
  signed_prekeys_key_unique: 'signed_prekey.public_key is held by another device',
  kyber_prekeys_last_resort_key: 'last_resort_kyber_prekey.public_key is held by another device',
}

/** Turns a unique violation that means something into CONFLICT; anything else is thrown as it is. */
export function refuseTaken(error: unknown): never {
  const { constraint_name: name = '' } = error as { constraint_name?: string }
  const message = TAKEN[name]
  throw message ? new RelayError('CONFLICT', message) : error
}

/** Whether both hold the same bytes; not for secrets, the time it takes depends on them. */
export const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0

/**
 * Deletes devices and all they published, tombstones included. Unknown devices are no error.
 * Locks as publishing does, so an upload under way is either deleted too or finds no device; and stock in the order of claims,
 * table by table over all devices, so that this and a claim of all of a user's devices never wait for each other in a circle.
 */
export async function deleteDevices(tx: Transaction, deviceKeys: number[]): Promise<void> {
  // Not `for update`: a claim under way holds stock rows and checks its foreign key at its end.
  await tx`select 1 from keys.devices where device_key = any(${deviceKeys}::bigint[])
    order by device_key for no key update`
  await tx`select 1 from keys.one_time_prekeys where device_key = any(${deviceKeys}::bigint[])
    order by device_key, serial for update`
  await tx`delete from keys.one_time_prekeys where device_key = any(${deviceKeys}::bigint[])`
  await tx`select 1 from keys.kyber_prekeys where device_key = any(${deviceKeys}::bigint[])
    order by last_resort, device_key, serial for update`
  await tx`delete from keys.kyber_prekeys where device_key = any(${deviceKeys}::bigint[])`
  await tx`delete from keys.signed_prekeys where device_key = any(${deviceKeys}::bigint[])`
  await tx`delete from keys.tombstones where device_key = any(${deviceKeys}::bigint[])`
  await tx`delete from keys.highest_ids where device_key = any(${deviceKeys}::bigint[])`
  await tx`delete from keys.devices where device_key = any(${deviceKeys}::bigint[])`
}

/**
 * Voids all one-time keys of all devices: after a restore nobody knows which of them left since the backup. [K-9]
 * Each leaves a tombstone, so a device that uploads one again does not bring it back.
 * @returns how many keys were voided.
 */
export async function voidStock(tx: Transaction, nowMs: number): Promise<number> {
  // Claims lock single rows in an order that no delete of everything keeps.
  await tx`lock table keys.one_time_prekeys, keys.kyber_prekeys in exclusive mode`
  const [row] = await tx<{ voided: number }[]>`
    with ec as (delete from keys.one_time_prekeys returning device_key, key_id, public_key),
    kyber as (delete from keys.kyber_prekeys where not last_resort returning device_key, key_id, public_key),
    buried as (
      insert into keys.tombstones (device_key, kind, key_id, key_hash, created_at)
      select device_key, ${EC_KIND}::smallint, key_id, sha256(public_key), ${new Date(nowMs)}::timestamptz from ec
      union all
      select device_key, ${KYBER_KIND}::smallint, key_id, sha256(public_key), ${new Date(nowMs)} from kyber
      returning 1)
    select count(*) as voided from buried`
  return row!.voided
}

/** A device that can be asked for: it exists and has a signed prekey. [K-4.3] */
export type FoundDevice = { targetIndex: number; deviceKey: number; userId: Uuid; deviceId: number }

/** The devices behind targets, ascending by target and device id; targets without any are absent. */
export async function findDevices(sql: Sql, targets: Target[]): Promise<FoundDevice[]> {
  const users = targets.map((target) => target.userId)
  const devices = targets.map((target) => (target.deviceId === '*' ? 0 : target.deviceId))
  return sql<FoundDevice[]>`
    select t.ordinal::int - 1 as "targetIndex", d.device_key as "deviceKey", d.user_id as "userId", d.device_id as "deviceId"
    from unnest(${users}::uuid[], ${devices}::int[]) with ordinality as t (user_id, device_id, ordinal)
    cross join lateral (
      select d.device_key, d.user_id, d.device_id from keys.devices d
      where d.user_id = t.user_id and (t.device_id = 0 or d.device_id = t.device_id)
        and exists (select from keys.signed_prekeys s where s.device_key = d.device_key) limit ${DEVICE_ID_MAX}) d
    order by t.ordinal, d.device_id`
}

type CountsRow = Record<'ec' | 'kyber', { count: number; oldestId: number | null; highestId: number | null }> & {
  signed_id: number | null
  signed_at: Date
  last_resort_id: number | null
  last_resort_at: Date
  used: boolean
}

/** One snapshot of what the device has in stock, or null: unknown device. [K-6] */
export async function readCounts(sql: Sql | Transaction, deviceKey: number): Promise<Counts | null> {
  const [row] = await sql<CountsRow[]>`
    select
      json_build_object(
        'count', (select count(*) from keys.one_time_prekeys o where o.device_key = d.device_key),
        'oldestId', (select key_id from keys.one_time_prekeys o where o.device_key = d.device_key order by serial limit 1),
        'highestId', (select key_id from keys.highest_ids h where h.device_key = d.device_key and kind = ${EC_KIND})
      ) as ec,
      json_build_object(
        'count', (select count(*) from keys.kyber_prekeys k where k.device_key = d.device_key and not last_resort),
        'oldestId', (select key_id from keys.kyber_prekeys k where k.device_key = d.device_key and not last_resort
          order by serial limit 1),
        'highestId', (select key_id from keys.highest_ids h where h.device_key = d.device_key and kind = ${KYBER_KIND})
      ) as kyber,
      s.key_id as signed_id, s.created_at as signed_at,
      l.key_id as last_resort_id, l.created_at as last_resort_at, l.used
    from keys.devices d
    left join keys.signed_prekeys s using (device_key)
    left join keys.kyber_prekeys l on l.device_key = d.device_key and l.last_resort
    where d.device_key = ${deviceKey}`
  if (!row) return null
  return {
    oneTime: row.ec,
    kyberOneTime: row.kyber,
    signedPrekey: row.signed_id === null ? null : { keyId: row.signed_id, createdAtMs: row.signed_at.getTime() },
    lastResort:
      row.last_resort_id === null
        ? null
        : { keyId: row.last_resort_id, createdAtMs: row.last_resort_at.getTime(), used: row.used },
  }
}

/** What the relay believes of the device's lasting keys, or null: unknown device, or no signed prekey. [K-7] */
export async function readDigestInput(sql: Sql, deviceKey: number): Promise<DigestInput | null> {
  const [row] = await sql<DigestRow[]>`
    select d.user_id, d.device_id, d.registration_id, i.identity_key, s.key_id as signed_id, s.public_key as signed_key,
      l.key_id as last_id, l.public_key as last_key
    from keys.devices d
    join keys.identities i using (user_id)
    join keys.signed_prekeys s using (device_key)
    left join keys.kyber_prekeys l on l.device_key = d.device_key and l.last_resort
    where d.device_key = ${deviceKey}`
  if (!row) return null
  return {
    userId: row.user_id,
    deviceId: row.device_id,
    registrationId: row.registration_id,
    identityKey: row.identity_key,
    signedPrekey: { keyId: row.signed_id, publicKey: row.signed_key },
    lastResortKyberPrekey: row.last_id === null ? null : { keyId: row.last_id, publicKey: row.last_key },
  }
}

type DigestRow = {
  user_id: Uuid
  device_id: number
  registration_id: number
  identity_key: Buffer
  signed_id: number
  signed_key: Buffer
  last_id: number | null
  last_key: Buffer
}
