// The devices of a user: link, list, unlink. The first one is made in accounts.ts.
import type { Directory } from '../keys/directory.ts'
import { isSameDigest, keyDigest } from '../keys/verify.ts'
import { invalid, RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { DEVICES_MAX_PER_USER } from '../proto/limits.ts'
import type { Caller } from '../proto/route.ts'
import { newSecret } from './credentials.ts'
import type { Sql, Transaction } from './database.ts'
import { createDevice, type Enrolled, type Enrolment, verifyEnrolment } from './enrolment.ts'
import type { SystemEventInput } from './events.ts'
import type { Committed } from './frames.ts'
import type { Identity } from './identity.ts'
import {
  createLinkCode,
  type LinkCodeUse,
  lockLinkCode,
  peekLinkCode,
  refusedLinkCode,
  spendLinkCode,
} from './linkcodes.ts'
import { type LockedDevice, lockDevices, nextNumber, retireDevices } from './retirement.ts'
import type { Tokens } from './tokens.ts'

/** The device that links and unlinks the others. [I-3] */
export const PRIMARY_DEVICE_ID = 1

/** Puts SystemEvents into queues (events.ts) and, after commit, before connected devices. */
export type Events = {
  enqueue(tx: Transaction, input: SystemEventInput): Promise<Committed[]>
  fanOut(committed: Committed[]): void
}

/** What linking and unlinking are built on, and whom they tell. */
export type DeviceSeams = {
  sql: Sql
  realm: string
  directory: Directory
  tokens: Tokens
  identity: Identity
  events: Events
  /** After commit: whoever is connected as this device is cut off, with 4401. [C-6.3] */
  onUnlinked(deviceKey: number): void
}

/** What lets a device in: a code of the primary, or an outside issuer's token for the account's own subject. [I-4] [T-5] */
export type LinkPermit = { linkCode: string } | { outsideToken: string }

/** As the user's own devices see it. */
export type ListedDevice = { deviceId: number; registrationId: number; name: string; createdAtMs: number }

export type Devices = {
  /** @throws RelayError FORBIDDEN (not the primary), UNAUTHENTICATED (the device was just unlinked). */
  linkCode(caller: Caller, nowMs: number): Promise<{ code: string; expiresAtMs: number }>
  /**
   * Adds a device under the user's identity key; his other devices are told. All or nothing, the code included. The same device
   * once more, under the same code, gets another secret. [I-4] [I-4.5]
   * @throws RelayError FORBIDDEN (the permit), INVALID_REQUEST (proof, keys, identity key, the predecessor's registration id),
   *   CONFLICT (10 devices already, a key another device holds).
   */
  link(named: Uuid | null, permit: LinkPermit, enrolment: Enrolment, nowMs: number): Promise<Enrolled>
  /** Ascending by device id. */
  list(caller: Caller): Promise<ListedDevice[]>
  /**
   * Ends a device with its keys and its queue; the others are told. [I-3]
   * @throws RelayError FORBIDDEN (the primary, or another device by a linked one), NOT_FOUND, UNAUTHENTICATED.
   */
  unlink(caller: Caller, deviceId: number, nowMs: number): Promise<void>
}

/** The one place where a device after the first comes or goes. */
export function openDevices(seams: DeviceSeams): Devices {
  const { sql, realm, directory, tokens, identity, events, onUnlinked } = seams

  const tell = (
    tx: Transaction,
    change: 'LINKED' | 'UNLINKED',
    device: { deviceId: number; registrationId: number },
    others: LockedDevice[],
    nowMs: number,
  ) => {
    const event = { devicesChanged: { change, deviceId: device.deviceId, registrationId: device.registrationId } }
    return events.enqueue(tx, { conversationId: null, event, deviceKeys: others.map((each) => each.deviceKey), nowMs })
  }

  return {
    async linkCode(caller, nowMs) {
      if (caller.deviceId !== PRIMARY_DEVICE_ID) throw onlyPrimary()
      return createLinkCode(sql, caller, nowMs)
    },

    async link(named, permit, enrolment, nowMs) {
      const linkCode = 'linkCode' in permit ? permit.linkCode : ''
      let subject: string | null = null
      let userId = named
      if ('linkCode' in permit) {
        if (userId === null) throw invalid('user_id is missing')
        await peekLinkCode(sql, linkCode, userId, nowMs)
      } else {
        // Before any lock: a stranger's request must neither hold a user's queues nor show, by waiting, that he exists. I13
        subject = (await tokens.verifyOutside(permit.outsideToken, nowMs)).subject
        userId = await userOfSubject(sql, subject, named)
      }
      const keys = await verifyEnrolment(enrolment, { purpose: 'link', realm, linkCode, nowMs })
      const { enrolled, committed } = await sql.begin(async (tx) => {
        const devices = await lockDevices(tx, userId)
        if (!devices) throw refusedLinkCode()
        if (subject !== null) await userOfSubject(tx, subject, userId)
        const use = subject === null ? await lockLinkCode(tx, linkCode, userId, nowMs) : null
        // The answer was lost, and the same device asks again.
        if (use) return { enrolled: await admitAgain(tx, { userId, devices, use, linkCode, enrolment }), committed: [] }
        if (devices.length >= DEVICES_MAX_PER_USER)
          throw new RelayError('CONFLICT', `the user has ${devices.length} devices, the most there may be`)
        const { deviceId, predecessor } = await nextNumber(tx, userId, devices)
        const { name, registrationId } = enrolment
        // [I-4.2] Otherwise senders who knew the predecessor would not find the number stale.
        if (registrationId === predecessor)
          throw invalid('registration_id was that of the previous device of this number, draw another')
        const device = { userId, deviceId, name, registrationId, keys, nowMs }
        const { deviceKey, ...made } = await createDevice(tx, directory, device)
        if (subject === null) await spendLinkCode(tx, linkCode, spentBy(userId, { deviceKey, deviceId }, enrolment))
        return { enrolled: made, committed: await tell(tx, 'LINKED', device, devices, nowMs) }
      })
      events.fanOut(committed)
      return enrolled
    },

    async list(caller) {
      const rows = await sql<(Omit<ListedDevice, 'createdAtMs'> & { createdAt: Date })[]>`
        select d.device_id as "deviceId", k.registration_id as "registrationId", d.name, d.created_at as "createdAt"
        from devices d join keys.devices k using (device_key) where d.user_id = ${caller.userId} order by d.device_id`
      return rows.map(({ createdAt, ...row }) => ({ ...row, createdAtMs: createdAt.getTime() }))
    },

    async unlink(caller, deviceId, nowMs) {
      if (caller.deviceId !== PRIMARY_DEVICE_ID && deviceId !== caller.deviceId) throw onlyPrimary()
      if (deviceId === PRIMARY_DEVICE_ID) throw new RelayError('FORBIDDEN', 'the primary device cannot be unlinked')
      const { gone, committed } = await sql.begin(async (tx) => {
        const devices = (await lockDevices(tx, caller.userId)) ?? []
        // The caller was looked up up to 5 s ago; since then its number may have become another device's. [T-2]
        if (!devices.some((each) => each.deviceKey === caller.deviceKey)) throw callerGone()
        const target = devices.find((each) => each.deviceId === deviceId)
        if (!target) throw new RelayError('NOT_FOUND', 'no such device')
        await retireDevices(tx, directory, caller.userId, [target], nowMs)
        const others = devices.filter((each) => each !== target)
        return { gone: target, committed: await tell(tx, 'UNLINKED', target, others, nowMs) }
      })
      identity.forget(gone.deviceUuid)
      onUnlinked(gone.deviceKey)
      events.fanOut(committed)
    },
  }
}

const spentBy = (userId: Uuid, device: { deviceKey: number; deviceId: number }, enrolment: Enrolment): LinkCodeUse => {
  const { registrationId, identityKey, keys, identityProof } = enrolment
  const { signedPrekey, lastResortKyberPrekey } = keys
  const lasting = { registrationId, identityKey, signedPrekey, lastResortKyberPrekey }
  const keysDigest = keyDigest({ userId, deviceId: device.deviceId, ...lasting })
  return { deviceKey: device.deviceKey, keysDigest, provenAtMs: identityProof.timestampMs }
}

/**
 * A new secret for the device that a code let in, if it is that device. A proof no later than the last may be a recorded one. [I-4.5]
 * @throws RelayError FORBIDDEN, as for any used code.
 */
async function admitAgain(
  tx: Transaction,
  again: { userId: Uuid; devices: LockedDevice[]; use: LinkCodeUse; linkCode: string; enrolment: Enrolment },
): Promise<Enrolled> {
  const { userId, devices, use, linkCode, enrolment } = again
  const device = devices.find((each) => each.deviceKey === use.deviceKey)
  if (!device) throw refusedLinkCode()
  const now = spentBy(userId, device, enrolment)
  if (!isSameDigest(now.keysDigest, use.keysDigest) || now.provenAtMs <= use.provenAtMs) throw refusedLinkCode()
  await spendLinkCode(tx, linkCode, now)
  const { secret, secretHash } = newSecret()
  await tx`update devices set secret_hash = ${secretHash} where device_key = ${device.deviceKey}`
  return { userId, deviceId: device.deviceId, deviceSecret: secret }
}

// Whoever lost the answer to his registration does not know his user id: his subject is enough. [I-4.4]
async function userOfSubject(tx: Sql | Transaction, subject: string, named: Uuid | null): Promise<Uuid> {
  const [own] = await tx<{ user_id: Uuid }[]>`select user_id from accounts where outside_subject = ${subject}`
  if (!own || (named !== null && named !== own.user_id)) throw refusedLinkCode()
  return own.user_id
}

const onlyPrimary = () => new RelayError('FORBIDDEN', 'only the primary device may do this')
const callerGone = () => new RelayError('UNAUTHENTICATED', 'the token is missing, invalid or expired')
