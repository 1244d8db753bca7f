// Hands out bundles: the one statement that takes one-time keys out of stock. Who may have them is decided before (budget.ts).
import type { Uuid } from '../proto/ids.ts'
import type { Sql } from '../server/database.ts'
import type { DeviceBundle } from './prekeys.ts'
import { EC_KIND, KYBER_KIND } from './store.ts'

/** A device to make a bundle of; oneTime = it may cost one-time keys. */
export type Claim = { deviceKey: number; oneTime: boolean }

/**
 * A complete bundle and what it took. The counts are those of the statement's snapshot less what it took itself:
 * claims that ran meanwhile are not in them.
 */
export type Claimed = {
  deviceKey: number
  userId: Uuid
  identityKey: Uint8Array
  bundle: DeviceBundle
  /** Null = it took none of this kind. */
  oneTimeLeft: number | null
  kyberOneTimeLeft: number | null
  /** The last-resort key left for the first time. */
  firstLastResort: boolean
}

type Row = {
  device_key: number
  user_id: Uuid
  device_id: number
  registration_id: number
  identity_key: Buffer
  signed_id: number
  signed_key: Buffer
  signed_signature: Buffer
  ec_id: number | null
  ec_key: Buffer
  ec_left: number
  kyber_id: number | null
  kyber_key: Buffer
  kyber_signature: Buffer
  kyber_left: number
  last_id: number | null
  last_key: Buffer
  last_signature: Buffer
  first_use: boolean
}

/**
 * The bundles of the devices, ascending by device key; a device without a signed prekey is absent and loses nothing.
 * One statement, so it all happens or nothing does. [K-4.1] [K-4.2] [K-4.3] I7
 */
export async function claimBundles(sql: Sql, claims: Claim[], nowMs: number): Promise<Claimed[]> {
  // Ascending: claims of several devices then wait for each other in one order and never deadlock.
  const sorted = claims.toSorted((a, b) => a.deviceKey - b.deviceKey)
  const rows = await claimStatement(sql, sorted, nowMs)
  return rows.map(fromRow)
}

/**
 * Takes the oldest row of each kind under a lock that waits, without `skip locked`: whoever skips the last row while
 * another claim holds it would fall to the last-resort key, and be wrong if that claim then fails. A waiter whose row
 * was taken goes on to the next one. The wait is one commit long, and the budget bounds how many can queue up.
 * Exported for the test that reads its plan.
 */
export const claimStatement = (sql: Sql, claims: Claim[], nowMs: number) => sql<Row[]>`
  with complete as materialized (
    select d.*, d.device_key = any(${claims.filter((claim) => claim.oneTime).map((claim) => claim.deviceKey)}::bigint[]) as one_time
    from unnest(${claims.map((claim) => claim.deviceKey)}::bigint[]) as w (device_key)
    -- limit: one look-up by index per device, whatever the planner thinks of joining a hundred.
    cross join lateral (
      select d.device_key, d.user_id, d.device_id, d.registration_id, i.identity_key,
        s.key_id as signed_id, s.public_key as signed_key, s.signature as signed_signature
      from keys.devices d
      join keys.identities i using (user_id)
      join keys.signed_prekeys s using (device_key)
      where d.device_key = w.device_key limit 1) d
    order by d.device_key
  ), ec_picked as materialized (
    select p.id from complete c cross join lateral (
      select o.ctid as id from keys.one_time_prekeys o
      where o.device_key = c.device_key order by o.serial limit 1 for update) p
    where c.one_time
  ), ec as (
    delete from keys.one_time_prekeys where ctid = any(array(select id from ec_picked))
    returning device_key, key_id, public_key
  ), kyber_picked as materialized (
    select p.id from complete c cross join lateral (
      select k.ctid as id from keys.kyber_prekeys k
      where k.device_key = c.device_key and not k.last_resort order by k.serial limit 1 for update) p
    -- Reads ec first: one-time keys before Kyber keys, the lock order.
    where c.one_time and (select count(*) from ec) >= 0
  ), kyber as (
    delete from keys.kyber_prekeys where ctid = any(array(select id from kyber_picked))
    returning device_key, key_id, public_key, signature
  ), last as materialized (
    select k.device_key, k.key_id, k.public_key, k.signature
    from complete c join keys.kyber_prekeys k on k.device_key = c.device_key and k.last_resort
  ), first_picked as materialized (
    select k.ctid as id from keys.kyber_prekeys k
    where k.last_resort and not k.used
      and k.device_key = any(array(select device_key from last except select device_key from kyber))
    order by k.device_key for no key update
  ), first_use as (
    update keys.kyber_prekeys set used = true where ctid = any(array(select id from first_picked)) returning device_key
  ), buried as (
    insert into keys.tombstones (device_key, kind, key_id, key_hash, created_at)
    select device_key, ${EC_KIND}::smallint, key_id, sha256(public_key), ${new Date(nowMs)}::timestamptz from ec
    union all
    select device_key, ${KYBER_KIND}::smallint, key_id, sha256(public_key), ${new Date(nowMs)} from kyber
  )
  select c.device_key, c.user_id, c.device_id, c.registration_id, c.identity_key, c.signed_id, c.signed_key, c.signed_signature,
    ec.key_id as ec_id, ec.public_key as ec_key,
    (select count(*) from keys.one_time_prekeys o where o.device_key = c.device_key) - (ec.key_id is not null)::int as ec_left,
    kyber.key_id as kyber_id, kyber.public_key as kyber_key, kyber.signature as kyber_signature,
    (select count(*) from keys.kyber_prekeys k where k.device_key = c.device_key and not k.last_resort)
      - (kyber.key_id is not null)::int as kyber_left,
    last.key_id as last_id, last.public_key as last_key, last.signature as last_signature,
    first_use.device_key is not null as first_use
  from complete c
  left join ec using (device_key)
  left join kyber using (device_key)
  left join last using (device_key)
  left join first_use using (device_key)
  order by c.device_key`

function fromRow(row: Row): Claimed {
  const lastResort =
    row.last_id === null ? null : { keyId: row.last_id, publicKey: row.last_key, signature: row.last_signature }
  const kyber =
    row.kyber_id === null ? null : { keyId: row.kyber_id, publicKey: row.kyber_key, signature: row.kyber_signature }
  return {
    deviceKey: row.device_key,
    userId: row.user_id,
    identityKey: row.identity_key,
    bundle: {
      deviceId: row.device_id,
      registrationId: row.registration_id,
      signedPrekey: { keyId: row.signed_id, publicKey: row.signed_key, signature: row.signed_signature },
      // [K-1.5] Null tells absence: id 0 is a key.
      oneTimePrekey: row.ec_id === null ? null : { keyId: row.ec_id, publicKey: row.ec_key },
      kyberPrekey: kyber ?? lastResort,
    },
    oneTimeLeft: row.ec_id === null ? null : row.ec_left,
    kyberOneTimeLeft: row.kyber_id === null ? null : row.kyber_left,
    firstLastResort: row.first_use,
  }
}
