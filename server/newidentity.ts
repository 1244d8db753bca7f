// A user begins anew: another identity key, one device, and nothing left of the former ones. One transaction; who hears of it
// afterwards is news.ts's. [I-6]
import type { Directory } from '../keys/directory.ts'
import { limited, type Meter, type OpenMeter } from '../keys/meter.ts'
import { type NamedUser, replacementMessage } from '../keys/statements.ts'
import { isSignedBy } from '../keys/verify.ts'
import { invalid, RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import type { Sql, Transaction } from './database.ts'
import { PRIMARY_DEVICE_ID } from './devices.ts'
import { createDevice, type Enrolled, type Enrolment, verifyEnrolment } from './enrolment.ts'
import type { Identity } from './identity.ts'
import type { News } from './news.ts'
import { isRecoveryCode } from './recoverycodes.ts'
import { lockDevices, retireDevices } from './retirement.ts'
import type { Tokens } from './tokens.ts'

/** What is said to authorise a new identity; none of it is trusted. [I-6.1] */
export type NewIdentityPermit =
  | { recoveryCode: string }
  /** 64 bytes, by the present identity key. */
  | { oldSignature: Uint8Array }
  | { outsideToken: string }

/** What it is built on, and whom it tells. */
export type NewIdentitySeams = {
  sql: Sql
  realm: string
  directory: Directory
  tokens: Tokens
  identity: Identity
  news: News
  /** Where attempts are counted. Fails open: a code of 128 bits is not guessed, and who lost everything must be able to come back. */
  meters: OpenMeter
  /** After commit: whoever is connected as this device is cut off, with 4401. [I-6.4] */
  onUnlinked(deviceKey: number): void
}

export type NewIdentity = {
  /**
   * Gives the user this identity key and this one device in place of all he had. All or nothing. [I-6]
   * @param named null only with a token of the outside issuer, whose subject names the user.
   * @throws RelayError FORBIDDEN (no permit that holds, unknown user: one answer), INVALID_REQUEST (proof, keys, the former
   *   primary's registration id), CONFLICT (a key that is or was another's), RATE_LIMITED.
   */
  begin(
    named: NamedUser | null,
    permit: NewIdentityPermit | null,
    enrolment: Enrolment,
    nowMs: number,
  ): Promise<Enrolled>
}

/** Attempts of one user at once, and how often one more. [I-6.5] */
export const ATTEMPTS = { burst: 5, everyMs: 12 * 60_000 }

/** Rules of [I-6], and one transaction. */
export function openNewIdentity(seams: NewIdentitySeams): NewIdentity {
  const { sql, realm, directory, tokens, identity, news, meters, onUnlinked } = seams
  const counted = (name: string): Meter => meters({ name: `identity.${name}`, rates: [ATTEMPTS], whenGone: 'open' })
  const [refusedAttempts, authorised] = [counted('refused'), counted('authorised')]

  return {
    async begin(named, permit, enrolment, nowMs) {
      const claim = await claimOf({ tokens, realm }, named, permit, enrolment, nowMs)
      // Before any lock: a stranger's request must neither hold a user's queues nor show, by waiting, that he exists. I13
      const userId = claim && (await authorisedUser(sql, claim))
      if (!userId) {
        if (named) await spend(refusedAttempts, nameOf(named))
        throw refused()
      }
      await spend(authorised, userId)
      // [I-6.2]
      const linkCode = permit !== null && 'recoveryCode' in permit ? permit.recoveryCode : ''
      const keys = await verifyEnrolment(enrolment, { purpose: 'identity', realm, linkCode, nowMs })
      const { name, registrationId, identityKey } = enrolment

      const { enrolled, former } = await sql.begin(async (tx) => {
        const devices = await lockDevices(tx, userId)
        // Again, under the lock: of two who come with one code, or against one old key, the second finds it used. [I-6.3]
        if (!devices || (await authorisedUser(tx, claim)) !== userId) throw refused()
        const primary = devices.find((each) => each.deviceId === PRIMARY_DEVICE_ID)
        // [I-6.4] Otherwise senders who knew the former device would not find it stale.
        if (registrationId === primary?.registrationId)
          throw invalid('registration_id was that of the previous device 1, draw another')
        await retireDevices(tx, directory, userId, devices, nowMs)
        await tx`delete from link_codes where user_id = ${userId}`
        // Whoever authorised it: a thief of the old primary may have left a code of his own. [I-6.3]
        await tx`update accounts set recovery_code_hash = null where user_id = ${userId}`
        await directory.renew(tx, userId, identityKey)
        const device = { userId, deviceId: PRIMARY_DEVICE_ID, name, registrationId, keys, nowMs }
        const { deviceSecret } = await createDevice(tx, directory, device)
        await news.put(tx, userId, identityKey, nowMs)
        return { enrolled: { userId, deviceId: PRIMARY_DEVICE_ID, deviceSecret }, former: devices }
      })
      for (const { deviceUuid, deviceKey } of former) {
        identity.forget(deviceUuid)
        onUnlinked(deviceKey)
      }
      news.tell()
      return enrolled
    },
  }
}

/** A permit with what it is checked against, the database left out. */
type Claim = { named: NamedUser | { subject: string }; holds(account: Account): boolean }

type Account = {
  identityKey: Uint8Array
  recoveryCodeHash: Uint8Array | null
  outsideSubject: string | null
}

/** @returns null: nothing that could authorise anything. */
async function claimOf(
  { tokens, realm }: Pick<NewIdentitySeams, 'tokens' | 'realm'>,
  named: NamedUser | null,
  permit: NewIdentityPermit | null,
  { identityKey, identityProof: { timestampMs } }: Enrolment,
  nowMs: number,
): Promise<Claim | null> {
  if (permit !== null && 'outsideToken' in permit) {
    const subject = await tokens.verifyOutside(permit.outsideToken, nowMs).then(
      (outside) => outside.subject,
      (error: unknown) => {
        if (error instanceof RelayError && error.code === 'UNAUTHENTICATED') return null
        throw error
      },
    )
    if (subject === null) return null
    return { named: named ?? { subject }, holds: (account) => account.outsideSubject === subject }
  }
  if (named === null) throw invalid('user_id is missing')
  if (permit === null) return null
  if ('recoveryCode' in permit)
    return { named, holds: (account) => isRecoveryCode(permit.recoveryCode, account.recoveryCodeHash) }
  const message = replacementMessage({ realm, named, identityKey, timestampMs })
  return { named, holds: (account) => isSignedBy(account.identityKey, message, permit.oldSignature) }
}

// Checked in place of a user who does not exist, so that both refusals take the same way; his key is the curve's base point. I13
const NOBODY: Account = {
  identityKey: Uint8Array.of(5, 9, ...new Uint8Array(31)),
  recoveryCodeHash: null,
  outsideSubject: null,
}

/** The user whom the claim names, if it holds for him as the database has him now. */
async function authorisedUser(sql: Sql | Transaction, { named, holds }: Claim): Promise<Uuid | null> {
  const who =
    'userId' in named
      ? sql`a.user_id = ${named.userId}`
      : 'subject' in named
        ? sql`a.outside_subject = ${named.subject}`
        : sql`a.user_id = (select user_id from usernames where username_hash = ${named.usernameHash})`
  const [row] = await sql<(Account & { userId: Uuid })[]>`
    select a.user_id as "userId", a.recovery_code_hash as "recoveryCodeHash", a.outside_subject as "outsideSubject",
      i.identity_key as "identityKey"
    from accounts a join keys.identities i using (user_id) where ${who}`
  return holds(row ?? NOBODY) && row ? row.userId : null
}

const nameOf = (named: NamedUser): string =>
  'userId' in named ? named.userId : Buffer.from(named.usernameHash).toString('base64')

async function spend(meter: Meter, key: string): Promise<void> {
  const waitMs = await meter.take(key, 1)
  if (waitMs > 0) throw limited('too many attempts for this user', waitMs)
}

const refused = () => new RelayError('FORBIDDEN', 'nothing in the request authorises a new identity for this user')
