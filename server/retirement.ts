// The end of a device: its row, its keys and its queue go in one transaction, and its number is remembered. Also the locks
// under which a user's devices may change. Who may end a device is decided in devices.ts and accounts.ts.
import type { Directory } from '../keys/directory.ts'
import type { Uuid } from '../proto/ids.ts'
import { DEVICE_ID_MAX, DEVICE_ID_MIN } from '../proto/limits.ts'
import type { Transaction } from './database.ts'

/** A device row, under lock. */
export type LockedDevice = { deviceKey: number; deviceUuid: Uuid; deviceId: number; registrationId: number }

/**
 * Locks a user's account and all his queues: until the transaction ends, none of his devices comes or goes elsewhere, and
 * a send either was committed before or sees what comes after. I8
 * @returns his devices, ascending by device key; null: no such account.
 */
export async function lockDevices(tx: Transaction, userId: Uuid): Promise<LockedDevice[] | null> {
  const account = await tx`select 1 from accounts where user_id = ${userId} for update`
  if (account.length === 0) return null
  await tx`select 1 from device_locks
    where device_key = any(array(select device_key from devices where user_id = ${userId}))
    order by device_key for no key update`
  return tx<LockedDevice[]>`
    select d.device_key as "deviceKey", d.device_uuid as "deviceUuid", d.device_id as "deviceId",
      k.registration_id as "registrationId"
    from devices d join keys.devices k using (device_key) where d.user_id = ${userId} order by d.device_key`
}

/**
 * Deletes devices of a user with everything that is their own. What they sent stays. The caller holds lockDevices. [I-3.2] [I-6]
 * After commit the caller has their connections closed.
 */
export async function retireDevices(
  tx: Transaction,
  directory: Directory,
  userId: Uuid,
  devices: LockedDevice[],
  nowMs: number,
): Promise<void> {
  const keys = devices.map((device) => device.deviceKey)
  // A queue just emptied looks empty to the planner, which would then walk every dead row of the table.
  await tx`select set_config('enable_seqscan', 'off', true)`
  // All at once by ctid, the order in which acks delete (acks.ts): otherwise one of them and this could wait for each other.
  await tx`delete from message_deliveries_waiting where ctid = any(array(
    select w.ctid from unnest(${keys}::bigint[]) k cross join lateral (
      select ctid from message_deliveries_waiting where device_key = k) w))`
  await tx`delete from device_sequences where device_key = any(${keys}::bigint[])`
  await tx`delete from device_consumers where device_key = any(${keys}::bigint[])`
  await tx`delete from dead_letters where device_key = any(${keys}::bigint[])`
  await tx`delete from gaps where device_key = any(${keys}::bigint[])`
  await tx`delete from stranger_deliveries where device_key = any(${keys}::bigint[])`
  await directory.remove(tx, keys)
  await tx`delete from devices where device_key = any(${keys}::bigint[])`
  await tx`delete from device_locks where device_key = any(${keys}::bigint[])`
  const numbers = devices.map((device) => device.deviceId)
  const registrationIds = devices.map((device) => device.registrationId)
  await tx`insert into retired_devices (user_id, device_id, registration_id, retired_at)
    select ${userId}, n, r, ${new Date(nowMs)} from unnest(${numbers}::smallint[], ${registrationIds}::smallint[]) x(n, r)
    on conflict (user_id, device_id) do update
      set registration_id = excluded.registration_id, retired_at = excluded.retired_at`
}

/** The number a new device gets, and the registration id it must not have; null where the number was never held. */
export type FreeNumber = { deviceId: number; predecessor: number | null }

/**
 * The lowest number never held; once all were, the one free for longest. [I-3.1]
 * @param devices what lockDevices returned, fewer than 127.
 */
export async function nextNumber(tx: Transaction, userId: Uuid, devices: LockedDevice[]): Promise<FreeNumber> {
  const held = new Set(devices.map((device) => device.deviceId))
  const retired = await tx<{ device_id: number; registration_id: number }[]>`
    select device_id, registration_id from retired_devices where user_id = ${userId} order by retired_at, device_id`
  const used = new Set([...held, ...retired.map((row) => row.device_id)])
  for (let deviceId = DEVICE_ID_MIN; deviceId <= DEVICE_ID_MAX; deviceId++) {
    if (!used.has(deviceId)) return { deviceId, predecessor: null }
  }
  const longest = retired.find((row) => !held.has(row.device_id))
  if (!longest) throw new RangeError('the user holds every device number')
  return { deviceId: longest.device_id, predecessor: longest.registration_id }
}
