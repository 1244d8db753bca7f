// Writes an upload: sorts its one-time keys into known, contradicting and new, and stores the new ones. Runs inside the
// caller's transaction, after the device row was locked; verification happened before (verify.ts).
import { createHash } from 'node:crypto'
import { invalid, RelayError } from '../proto/errors.ts'
import { KEYS_MAX_IN_STOCK } from '../proto/limits.ts'
import type { Transaction } from '../server/database.ts'
import type { Prekey, SignedPrekey, VerifiedKeys } from './prekeys.ts'
import { EC_KIND, KYBER_KIND, refuseTaken, sameBytes, TOMBSTONE_TTL_MS } from './store.ts'

/** What the relay knows of a key id of the device: in stock, left, or the current last-resort key. */
type Known = { key_id: number; key_hash: string; in_stock: boolean; last_resort: boolean }

/**
 * Locks the device against other uploads and against removal. Claims go on.
 * @returns the identity key it publishes under, or null: the device is gone.
 */
export async function lockDevice(tx: Transaction, deviceKey: number): Promise<Uint8Array | null> {
  const [row] = await tx<{ identity_key: Buffer }[]>`
    select i.identity_key from keys.devices d join keys.identities i using (user_id)
    where d.device_key = ${deviceKey} for no key update of d`
  return row?.identity_key ?? null
}

/** Voids the device's one-time stock. What left before stays remembered, so its ids stay used. [K-8] */
export async function voidDeviceStock(tx: Transaction, deviceKey: number): Promise<void> {
  await tx`delete from keys.one_time_prekeys where device_key = ${deviceKey}`
  await tx`delete from keys.kyber_prekeys where device_key = ${deviceKey} and not last_resort`
}

/** Gives the device another registration id: senders that use the old one are told it is stale. [K-8.1] */
export async function setRegistrationId(tx: Transaction, deviceKey: number, registrationId: number): Promise<void> {
  await tx`update keys.devices set registration_id = ${registrationId} where device_key = ${deviceKey}`
}

/**
 * Stores what is new of the keys; what is known stays as it is. [K-2] [K-3]
 * @throws RelayError CONFLICT (a known id or key in another pairing, an id at or below the stored one, a key of another device),
 *   INVALID_REQUEST (too many in stock, one-time Kyber keys without a last-resort key); the transaction must be rolled back.
 */
export async function storeKeys(tx: Transaction, deviceKey: number, keys: VerifiedKeys, nowMs: number): Promise<void> {
  const forgotten = new Date(nowMs - TOMBSTONE_TTL_MS)
  await tx`delete from keys.tombstones where device_key = ${deviceKey} and created_at < ${forgotten}`
  if (keys.signedPrekey) await storeSigned(tx, deviceKey, keys.signedPrekey, nowMs)
  await storeEc(tx, deviceKey, keys.oneTimePrekeys)
  await storeKyber(tx, deviceKey, keys, nowMs)
}

async function storeSigned(tx: Transaction, deviceKey: number, key: SignedPrekey, nowMs: number): Promise<void> {
  const [stored] = await tx<{ key_id: number; public_key: Buffer }[]>`
    select key_id, public_key from keys.signed_prekeys where device_key = ${deviceKey}`
  if (stored && !isRotation('signed_prekey', key, stored.key_id, sameBytes(stored.public_key, key.publicKey))) return
  await tx`insert into keys.signed_prekeys (device_key, key_id, public_key, signature, created_at)
    values (${deviceKey}, ${key.keyId}, ${key.publicKey}, ${key.signature}, ${new Date(nowMs)})
    on conflict (device_key) do update set key_id = excluded.key_id, public_key = excluded.public_key,
      signature = excluded.signature, created_at = excluded.created_at`.catch(refuseTaken)
}

// [K-2.4] False: the same key again. A known key under a new id would only look like a rotation.
function isRotation(name: string, key: Prekey, storedId: number, sameKey: boolean): boolean {
  if (sameKey && key.keyId === storedId) return false
  if (key.keyId <= storedId)
    throw new RelayError('CONFLICT', `${name}.key_id ${key.keyId} is not above the stored ${storedId}`)
  if (sameKey) throw new RelayError('CONFLICT', `${name}.public_key is already published under key_id ${storedId}`)
  return true
}

async function storeEc(tx: Transaction, deviceKey: number, keys: Prekey[]): Promise<void> {
  if (keys.length === 0) return
  const hashes = keys.map(hashOf)
  // Stock and tombstones in one statement: a key that a claim moves meanwhile is seen in one of them.
  const known = await tx<Known[]>`
    select key_id, encode(sha256(public_key), 'hex') as key_hash, true as in_stock, false as last_resort
    from keys.one_time_prekeys where device_key = ${deviceKey}
    union all ${tombstones(tx, deviceKey, EC_KIND, keys, hashes)}`
  const fresh = sortOut('one_time_prekeys', keys, hashes, known)
  await tx`insert into keys.one_time_prekeys (device_key, key_id, public_key)
    select ${deviceKey}, key_id, decode(public_key, 'hex')
    from unnest(${fresh.map((key) => key.keyId)}::int[], ${fresh.map((key) => hex(key.publicKey))}::text[])
      with ordinality as u (key_id, public_key, ordinal) order by ordinal`
  await raiseHighest(tx, deviceKey, EC_KIND, keys)
}

async function storeKyber(tx: Transaction, deviceKey: number, keys: VerifiedKeys, nowMs: number): Promise<void> {
  const { oneTimeKyberPrekeys: oneTime, lastResortKyberPrekey: lastResort } = keys
  if (oneTime.length === 0 && !lastResort) return
  const all = lastResort ? [...oneTime, lastResort] : oneTime
  const hashes = all.map(hashOf)
  const known = await tx<Known[]>`
    select key_id, encode(sha256(public_key), 'hex') as key_hash, not last_resort as in_stock, last_resort
    from keys.kyber_prekeys where device_key = ${deviceKey}
    union all ${tombstones(tx, deviceKey, KYBER_KIND, all, hashes)}`
  // [K-2.8]
  const storedLastResort = known.find((each) => each.last_resort)
  if (!lastResort && !storedLastResort)
    throw invalid('one_time_kyber_prekeys need a last_resort_kyber_prekey, stored or in the same upload')

  const fresh = sortOut('one_time_kyber_prekeys', oneTime, hashes, known)
  await tx`insert into keys.kyber_prekeys (device_key, key_id, public_key, signature, last_resort, created_at)
    select ${deviceKey}, key_id, decode(public_key, 'hex'), decode(signature, 'hex'), false, ${new Date(nowMs)}
    from unnest(${fresh.map((key) => key.keyId)}::int[], ${fresh.map((key) => hex(key.publicKey))}::text[],
      ${fresh.map((key) => hex(key.signature))}::text[])
      with ordinality as u (key_id, public_key, signature, ordinal) order by ordinal`
  if (lastResort) await storeLastResort(tx, deviceKey, lastResort, known, storedLastResort ?? null, nowMs)
  await raiseHighest(tx, deviceKey, KYBER_KIND, all)
}

async function storeLastResort(
  tx: Transaction,
  deviceKey: number,
  key: SignedPrekey,
  known: Known[],
  stored: Known | null,
  nowMs: number,
): Promise<void> {
  const name = 'last_resort_kyber_prekey'
  const hash = hashOf(key)
  if (stored && !isRotation(name, key, stored.key_id, stored.key_hash === hash)) return
  // [K-2.3] Neither id nor key may be, or have been, a one-time key's or a replaced last-resort key's.
  if (known.some((each) => each.key_id === key.keyId))
    throw new RelayError('CONFLICT', `${name}.key_id ${key.keyId} is already another Kyber key`)
  const under = known.find((each) => each.key_hash === hash)
  if (under) throw new RelayError('CONFLICT', `${name}.public_key is already published under key_id ${under.key_id}`)
  if (stored) {
    await tx`with replaced as (
        delete from keys.kyber_prekeys where device_key = ${deviceKey} and last_resort returning key_id, public_key)
      insert into keys.tombstones (device_key, kind, key_id, key_hash, created_at)
      select ${deviceKey}, ${KYBER_KIND}, key_id, sha256(public_key), ${new Date(nowMs)} from replaced`
  }
  await tx`insert into keys.kyber_prekeys (device_key, key_id, public_key, signature, last_resort, created_at)
    values (${deviceKey}, ${key.keyId}, ${key.publicKey}, ${key.signature}, true, ${new Date(nowMs)})`.catch(
    refuseTaken,
  )
}

/** The keys of the upload that are new, in its order. Pure but for what it throws. [K-2.2] [K-3] */
function sortOut<Key extends Prekey>(list: string, keys: Key[], hashes: string[], known: Known[]): Key[] {
  const byId = new Map(known.map((each) => [each.key_id, each]))
  const byHash = new Map(known.map((each) => [each.key_hash, each]))
  const fresh = keys.filter((key, at) => {
    const holder = byId.get(key.keyId)
    if (holder && (holder.key_hash !== hashes[at] || holder.last_resort))
      throw new RelayError('CONFLICT', `${list}[${at}].key_id ${key.keyId} is already another key`)
    const under = byHash.get(hashes[at]!)
    // [K-3.2] One key under two ids would leave twice.
    if (under && under.key_id !== key.keyId)
      throw new RelayError('CONFLICT', `${list}[${at}].public_key is already published under key_id ${under.key_id}`)
    return !holder
  })
  const inStock = known.filter((each) => each.in_stock).length + fresh.length
  if (inStock > KEYS_MAX_IN_STOCK) throw invalid(`${list}: ${inStock} would be in stock, at most ${KEYS_MAX_IN_STOCK}`)
  return fresh
}

const tombstones = (tx: Transaction, deviceKey: number, kind: number, keys: Prekey[], hashes: string[]) => tx`
  select key_id, encode(key_hash, 'hex'), false, false from keys.tombstones
  where device_key = ${deviceKey} and kind = ${kind} and (key_id = any(${keys.map((key) => key.keyId)}::int[])
    or key_hash in (select decode(h, 'hex') from unnest(${hashes}::text[]) h))`

async function raiseHighest(tx: Transaction, deviceKey: number, kind: number, keys: Prekey[]): Promise<void> {
  const highest = keys.reduce((most, key) => Math.max(most, key.keyId), 0)
  await tx`insert into keys.highest_ids as h (device_key, kind, key_id) values (${deviceKey}, ${kind}, ${highest})
    on conflict (device_key, kind) do update set key_id = greatest(h.key_id, excluded.key_id)`
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')

const hashOf = (key: Prekey): string => createHash('sha256').update(key.publicKey).digest('hex')
