// What the database holds of one device, table by table.
import type { Caller } from '../../proto/route.ts'
import type { Sql } from '../../server/database.ts'

/** Rows of one device in every table that knows it. */
export async function footprint(sql: Sql, { deviceKey, userId, deviceId }: Caller) {
  const [row] = await sql`select
    (select count(*) from devices where device_key = ${deviceKey}) as device,
    (select count(*) from device_locks where device_key = ${deviceKey}) as lock,
    (select count(*) from device_sequences where device_key = ${deviceKey}) as sequence,
    (select count(*) from message_deliveries_waiting where device_key = ${deviceKey}) as waiting,
    (select count(*) from dead_letters where device_key = ${deviceKey}) as dead,
    (select count(*) from gaps where device_key = ${deviceKey}) as gaps,
    (select count(*) from keys.devices where device_key = ${deviceKey}) as key_device,
    (select count(*) from keys.signed_prekeys where device_key = ${deviceKey}) as signed,
    (select count(*) from keys.one_time_prekeys where device_key = ${deviceKey}) as one_time,
    (select count(*) from keys.kyber_prekeys where device_key = ${deviceKey}) as kyber,
    (select count(*) from retired_devices where user_id = ${userId} and device_id = ${deviceId}) as retired`
  return { ...row } as Record<string, number>
}
/** A linked device fresh from its enrolment. */
export const ALIVE = { device: 1, lock: 1, sequence: 1, key_device: 1, signed: 1, one_time: 1, kyber: 2, retired: 0 }
/** Nothing left but the memory of its number. */
export const GONE = {
  ...{ device: 0, lock: 0, sequence: 0, waiting: 0, dead: 0, gaps: 0, key_device: 0, signed: 0, one_time: 0, kyber: 0 },
  retired: 1,
}

/** Something waiting, something dead and a gap: a queue that has seen life. */
export async function fillQueue(sql: Sql, { deviceKey }: Caller) {
  await sql`insert into message_deliveries_waiting (device_key, sequence, message_id, content)
    select ${deviceKey}, s, gen_random_uuid(), '\\x00' from generate_series(1, 50) s`
  await sql`insert into dead_letters (device_key, message_id, reason)
    values (${deviceKey}, gen_random_uuid(), 'overflow')`
  await sql`insert into gaps (device_key, overflowed) values (${deviceKey}, 1)`
}
