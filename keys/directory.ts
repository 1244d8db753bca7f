// The key directory: publish, count, check, hand out, enrol, remove. It composes; rules are in verify.ts and budget.ts, SQL in store.ts, publish.ts and claim.ts.
import { invalid, RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { BUNDLE_MAX_TARGETS, KEYS_LOW_BELOW, REGISTRATION_ID_MAX, REGISTRATION_ID_MIN } from '../proto/limits.ts'
import type { Caller } from '../proto/route.ts'
import type { Sql, Transaction } from '../server/database.ts'
import { type FetchBudget, usualFetchBudget } from './budget.ts'
import { type Claimed, claimBundles } from './claim.ts'
import { limited } from './meter.ts'
import type { BundleSorts, Counts, Target, Upload, UserBundles, VerifiedKeys } from './prekeys.ts'
import { lockDevice, setRegistrationId, storeKeys, voidDeviceStock } from './publish.ts'
import {
  deleteDevices,
  type FoundDevice,
  findDeviceIdentity,
  findDevices,
  findIdentity,
  insertDevice,
  type NewDevice,
  readCounts,
  readDigestInput,
  replaceIdentity,
  sameBytes,
  voidStock,
} from './store.ts'
import { isSameDigest, keyDigest, verifyKeys } from './verify.ts'

/** Who asks: the part of a caller the directory needs. */
export type KeyCaller = Pick<Caller, 'userId' | 'deviceId' | 'deviceKey'>

export type DirectoryOptions = {
  sql: Sql
  /** Unix milliseconds. */
  clock: () => number
  /** Default: in this process, the protocol's rates. */
  budget?: FetchBudget
  /** Which of the users share a conversation with the caller; default: none. [K-5.3] */
  sharesConversation?: (caller: Uuid, users: Uuid[]) => Promise<Set<Uuid>>
  /** Those of the users whose devices the caller may know; default: all. [K-4.8] */
  known?: (caller: Uuid, users: Uuid[]) => Promise<Set<Uuid>>
  /** Told after every claim that leaves fewer than 20 of a kind, and when a last-resort key left first. Must not throw. [K-6] */
  onStockLow?: (deviceKey: number, counts: Counts) => void
  /** Told of every bundle that leaves. Must not throw. */
  onBundle?: (sorts: BundleSorts) => void
}

export type Directory = {
  /** The identity key of a user, 33 bytes, or null. What a new device's keys are verified under. */
  identityOf(userId: Uuid): Promise<Uint8Array | null>
  /**
   * Adds a device with its first keys, inside the caller's transaction; the first device brings the user's identity. [I-1] [I-4]
   * @param device.deviceKey never used before (I9).
   * @param keys from verifyKeys, called before the transaction.
   * @throws RelayError CONFLICT (identity, address, signed or last-resort key taken), INVALID_REQUEST (no signed prekey,
   *   not the user's identity key); the transaction must be rolled back.
   */
  enrol(tx: Transaction, device: NewDevice, keys: VerifiedKeys): Promise<void>
  /** Deletes devices' keys and all memory of them, inside the caller's transaction. Unknown = no error. [I-3.2] */
  remove(tx: Transaction, deviceKeys: number[]): Promise<void>
  /**
   * Gives the user's identity key up for a new one, inside the caller's transaction, after all his devices were removed. [I-6]
   * @param identityKey 33 bytes, verified. @throws RelayError CONFLICT: it is, or was, any user's. [I-6.6]
   */
  renew(tx: Transaction, userId: Uuid, identityKey: Uint8Array): Promise<void>
  /**
   * Stores an upload, or nothing of it; the same upload again is a no-op. [K-2] [K-3] [K-8]
   * @returns the counts after it.
   * @throws RelayError INVALID_REQUEST naming the key, CONFLICT, NOT_FOUND (the device is gone).
   */
  publish(caller: KeyCaller, upload: Upload): Promise<Counts>
  /** @throws RelayError NOT_FOUND: the device is gone. [K-6] */
  counts(deviceKey: number): Promise<Counts>
  /** Whether the caller's digest of its own keys is the relay's. @param digest 32 bytes. @throws RelayError INVALID_REQUEST, NOT_FOUND. [K-7] */
  check(caller: KeyCaller, digest: Uint8Array): Promise<boolean>
  /**
   * Bundles of up to 100 targets, users in the order of their first target; targets without one are left out. [K-4] [K-5]
   * One-time keys are spent on every bundle whose budget allows it, in one statement. `*` of oneself leaves the caller's device out.
   * @throws RelayError INVALID_REQUEST (none or too many targets, a device twice, the caller's own device), RATE_LIMITED (no key was spent).
   */
  bundles(caller: KeyCaller, targets: Target[]): Promise<UserBundles[]>
  /** Voids all one-time keys of all devices: after a restore nobody knows which of them left. @returns how many. [K-9] */
  voidAll(tx: Transaction): Promise<number>
}

// Counts of a claim lack what ran beside it: this far above the limit it looks again. [K-6]
const LOOK_AGAIN_BELOW = 4 * KEYS_LOW_BELOW

/** A directory on this database: nothing is read until it is asked, and it keeps only budgets in memory. */
export function openDirectory(options: DirectoryOptions): Directory {
  const {
    sql,
    clock,
    budget = usualFetchBudget(clock),
    sharesConversation = async () => new Set<Uuid>(),
    known = async (_caller, users) => new Set(users),
    onStockLow,
    onBundle,
  } = options

  async function chargeCaller(caller: KeyCaller, devices: number): Promise<void> {
    const waitMs = await budget.charge(caller.userId, devices)
    if (waitMs > 0) throw limited('too many bundles asked for', waitMs)
  }

  async function admit(caller: KeyCaller, targets: Target[], found: FoundDevice[]): Promise<Set<number>> {
    const userOf = new Map(found.map((device) => [device.deviceKey, device.userId]))
    const admission = await budget.admit(
      caller.userId,
      targets.map((_, index) => ({
        deviceKeys: found.filter((device) => device.targetIndex === index).map((device) => device.deviceKey),
      })),
      async (deviceKeys) => {
        const users = [...new Set(deviceKeys.map((key) => userOf.get(key)!))].filter((user) => user !== caller.userId)
        const sharing = users.length === 0 ? new Set<Uuid>() : await sharesConversation(caller.userId, users)
        return new Set(deviceKeys.filter((key) => [caller.userId, ...sharing].includes(userOf.get(key)!)))
      },
    )
    if (admission.admitted) return admission.oneTime
    const { groupIndex, retryAfterMs } = admission
    throw limited(`targets[${groupIndex}] was asked for too often`, retryAfterMs)
  }

  async function tellLow({ deviceKey, oneTimeLeft, kyberOneTimeLeft, firstLastResort }: Claimed): Promise<void> {
    const nearly = [oneTimeLeft, kyberOneTimeLeft].some((left) => left !== null && left < LOOK_AGAIN_BELOW)
    if (!onStockLow || !(nearly || firstLastResort)) return
    // The keys have left: a failure here must not take the bundle from the caller. The next Hello has the counts.
    const counts = await readCounts(sql, deviceKey).catch(() => null)
    if (!counts) return
    const ecLow = oneTimeLeft !== null && counts.oneTime.count < KEYS_LOW_BELOW
    const kyberLow = kyberOneTimeLeft !== null && counts.kyberOneTime.count < KEYS_LOW_BELOW
    if (ecLow || kyberLow || firstLastResort) onStockLow(deviceKey, counts)
  }

  return {
    identityOf: (userId) => findIdentity(sql, userId),

    async enrol(tx, device, keys) {
      checkRegistrationId(device.registrationId)
      if (!keys.signedPrekey) throw invalid('signed_prekey is missing')
      await insertDevice(tx, device, keys.identityKey)
      await storeKeys(tx, device.deviceKey, keys, clock())
    },

    remove: deleteDevices,

    renew: (tx, userId, identityKey) => replaceIdentity(tx, userId, identityKey, clock()),

    async publish({ deviceKey }, upload) {
      const { replace, registrationId } = upload
      // [K-8.1]
      if (replace && !upload.signedPrekey) throw invalid('signed_prekey is missing: replace needs one')
      if (replace && registrationId !== null) checkRegistrationId(registrationId)
      const identityKey = await findDeviceIdentity(sql, deviceKey)
      if (!identityKey) throw gone()
      const keys = await verifyKeys(identityKey, upload)
      return sql.begin(async (tx) => {
        const lockedIdentity = await lockDevice(tx, deviceKey)
        if (!lockedIdentity) throw gone()
        if (!sameBytes(lockedIdentity, identityKey)) throw new RelayError('CONFLICT', 'the identity key changed')
        if (replace) await voidDeviceStock(tx, deviceKey)
        if (replace && registrationId !== null) await setRegistrationId(tx, deviceKey, registrationId)
        await storeKeys(tx, deviceKey, keys, clock())
        return (await readCounts(tx, deviceKey))!
      })
    },

    async counts(deviceKey) {
      const counts = await readCounts(sql, deviceKey)
      if (!counts) throw gone()
      return counts
    },

    async check({ deviceKey }, digest) {
      if (digest.length !== 32) throw invalid('digest is not 32 bytes')
      const input = await readDigestInput(sql, deviceKey)
      if (!input) throw gone()
      return isSameDigest(keyDigest(input), digest)
    },

    async bundles(caller, targets) {
      checkTargets(caller, targets)
      // [K-5.4] Paid before anything is looked up, and by unknown targets too: probing for users costs as much as asking.
      await chargeCaller(caller, targets.length)
      // Asked of every target, there or not: whose devices are not the caller's to know is nobody to him. I13
      const open = await known(caller.userId, [...new Set(targets.map((target) => target.userId))])
      const found = (await findDevices(sql, targets)).filter(
        (device) => device.deviceKey !== caller.deviceKey && open.has(device.userId),
      )
      const answered = new Set(found.map((device) => device.targetIndex)).size
      if (found.length > answered) await chargeCaller(caller, found.length - answered)
      if (found.length === 0) return []

      const oneTime = await admit(caller, targets, found)
      const claims = found.map(({ deviceKey }) => ({ deviceKey, oneTime: oneTime.has(deviceKey) }))
      const claimed = await claimBundles(sql, claims, clock())
      for (const each of claimed) onBundle?.(sortsOf(each))
      await Promise.all(claimed.map(tellLow))
      return byUser(targets, claimed)
    },

    voidAll: (tx) => voidStock(tx, clock()),
  }
}

function checkRegistrationId(id: number): void {
  if (!Number.isInteger(id) || id < REGISTRATION_ID_MIN || id > REGISTRATION_ID_MAX)
    throw invalid(`registration_id is not between ${REGISTRATION_ID_MIN} and ${REGISTRATION_ID_MAX}`)
}

function checkTargets(caller: KeyCaller, targets: Target[]): void {
  if (targets.length === 0) throw invalid('targets is empty')
  if (targets.length > BUNDLE_MAX_TARGETS) throw invalid(`targets has more than ${BUNDLE_MAX_TARGETS} entries`)
  const named = new Map<Uuid, Set<number | '*'>>()
  for (const [index, { userId, deviceId }] of targets.entries()) {
    // libsignal has no session with one's own address.
    if (userId === caller.userId && deviceId === caller.deviceId)
      throw invalid(`targets[${index}] is the device that asks`)
    const devices = named.get(userId) ?? new Set()
    // A device named twice would pay two keys for one session.
    if (devices.has(deviceId) || devices.has('*') || (deviceId === '*' && devices.size > 0))
      throw invalid(`targets[${index}] is named twice`)
    named.set(userId, devices.add(deviceId))
  }
}

const sortsOf = ({ bundle, kyberOneTimeLeft }: Claimed): BundleSorts => ({
  ec: bundle.oneTimePrekey ? 'one_time' : 'none',
  kyber: kyberOneTimeLeft !== null ? 'one_time' : bundle.kyberPrekey ? 'last_resort' : 'none',
})

function byUser(targets: Target[], claimed: Claimed[]): UserBundles[] {
  const users = new Map<Uuid, UserBundles>()
  for (const { userId, identityKey, bundle } of claimed) {
    const user = users.get(userId) ?? { userId, identityKey, devices: [] }
    user.devices.push(bundle)
    users.set(userId, user)
  }
  for (const user of users.values()) user.devices.sort((a, b) => a.deviceId - b.deviceId)
  return [...new Set(targets.map((target) => target.userId))].flatMap((userId) => users.get(userId) ?? [])
}

const gone = () => new RelayError('NOT_FOUND', 'the device is gone')
