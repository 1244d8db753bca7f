// The account side of a relay on a real database, without sockets: tokens, directory, accounts, devices, usernames.
import type { IdentityKeyPair } from '@signalapp/libsignal-client'
import { expect } from 'vitest'
import { type Directory, openDirectory } from '../../keys/directory.ts'
import { type IdentityClaim, identityProofMessage } from '../../keys/verify.ts'
import type { Caller } from '../../proto/route.ts'
import { openAccounts, type RegistrationMode } from '../../server/accounts.ts'
import type { Database } from '../../server/database.ts'
import { type DeviceSeams, type Events, openDevices } from '../../server/devices.ts'
import type { Enrolled, Enrolment } from '../../server/enrolment.ts'
import { enqueueEvent } from '../../server/events.ts'
import type { Committed } from '../../server/frames.ts'
import { openIdentity } from '../../server/identity.ts'
import { type OutsideIssuer, openTokens } from '../../server/tokens.ts'
import { TestDevice } from '../support/keys.ts'

export const REALM = 'https://relay.test'
export const NOW = 1_800_000_000_000

export type World = Awaited<ReturnType<typeof openWorld>>

/** Everything on one database; what was fanned out and who was unlinked is kept in lists. */
export async function openWorld(
  database: Database,
  more: { registration?: RegistrationMode; outside?: OutsideIssuer; events?: Partial<Events> } = {},
) {
  const { sql } = database
  const tokens = await openTokens({ sql, realm: REALM, outside: more.outside ?? null, nowMs: NOW })
  const identity = openIdentity({ sql, tokens })
  const directory: Directory = openDirectory({ sql, clock: () => NOW })
  const fannedOut: Committed[] = []
  const unlinked: number[] = []
  const events: Events = { enqueue: enqueueEvent, fanOut: (committed) => fannedOut.push(...committed), ...more.events }
  const seams: DeviceSeams = {
    ...{ sql, realm: REALM, directory, tokens, identity, events },
    onUnlinked: (deviceKey) => unlinked.push(deviceKey),
  }
  const devices = openDevices(seams)
  const accounts = openAccounts({ ...seams, registration: more.registration ?? 'open' })

  const callerOf = async (enrolled: Enrolled): Promise<Caller> => {
    const [row] = await sql`select device_key, device_uuid from devices
      where user_id = ${enrolled.userId} and device_id = ${enrolled.deviceId}`
    const { userId, deviceId } = enrolled
    return { userId, deviceId, deviceKey: row!.device_key, deviceUuid: row!.device_uuid }
  }
  const register = async (device = new TestDevice()) => {
    const enrolled = await accounts.register(enrolment(device), { invitation: null, outsideToken: null }, NOW)
    return { device, enrolled, caller: await callerOf(enrolled) }
  }
  /** Links one more device under the primary's identity. */
  const link = async (primary: { caller: Caller; device: TestDevice }, device = sibling(primary.device)) => {
    const { code } = await devices.linkCode(primary.caller, NOW)
    const proof = enrolment(device, { purpose: 'link', linkCode: code })
    const enrolled = await devices.link(primary.caller.userId, { linkCode: code }, proof, NOW)
    return { device, enrolled, caller: await callerOf(enrolled) }
  }
  const newCode = async (user: { caller: Caller }, nowMs = NOW) => (await devices.linkCode(user.caller, nowMs)).code
  /** Asks to be let in with this code, as a client does. */
  const join = (
    user: { caller: Caller; device: TestDevice },
    code: string,
    { device = sibling(user.device), nowMs = NOW }: { device?: TestDevice; nowMs?: number } = {},
  ) => {
    const request = enrolment(device, { purpose: 'link', linkCode: code, timestampMs: nowMs })
    return devices.link(user.caller.userId, { linkCode: code }, request, nowMs)
  }
  const numbers = async (user: { caller: Caller }) => (await devices.list(user.caller)).map((each) => each.deviceId)
  const parts = { sql, tokens, identity, directory, accounts, devices }
  return { ...parts, fannedOut, unlinked, callerOf, register, link, newCode, join, numbers }
}

/** Another device with the same identity key. */
export const sibling = (device: TestDevice, registrationId?: number): TestDevice =>
  new TestDevice({ identity: device.identity, ...(registrationId && { registrationId }) })

/** What a refusal looks like, for rejects.toEqual. */
export const refusal = (code: string, message?: RegExp): unknown =>
  expect.objectContaining({ code, ...(message && { message: expect.stringMatching(message) }) })

type EnrolmentOptions = Partial<IdentityClaim> & {
  /** Who signs the proof; default: the device's own identity. */
  signer?: IdentityKeyPair
  name?: string
  oneTime?: number
}

/** What a client sends to be let in: real keys and a real proof over them, for registration unless told otherwise. */
export function enrolment(device: TestDevice, options: EnrolmentOptions = {}): Enrolment {
  const { signer = device.identity, name = '', oneTime = 1, ...claimed } = options
  const signedPrekey = device.makeSignedPrekey(1)
  const lastResortKyberPrekey = device.makeLastResort(1)
  const claim: IdentityClaim = {
    purpose: 'register',
    realm: REALM,
    linkCode: '',
    registrationId: device.registrationId,
    identityKey: device.identityKey,
    signedPrekey,
    lastResortKyberPrekey,
    timestampMs: NOW,
    ...claimed,
  }
  const message = Uint8Array.from(identityProofMessage(claim))
  return {
    name,
    registrationId: device.registrationId,
    identityKey: device.identityKey,
    keys: {
      signedPrekey,
      lastResortKyberPrekey,
      oneTimePrekeys: device.makeOneTimePrekeys(oneTime),
      oneTimeKyberPrekeys: device.makeKyberPrekeys(oneTime, 2),
    },
    identityProof: { timestampMs: claim.timestampMs, signature: signer.privateKey.sign(message) },
  }
}
