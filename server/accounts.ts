// Registration: a user with an identity key and a first device, in one transaction. Further devices are in devices.ts.
import { randomUUID } from 'node:crypto'
import type { Directory } from '../keys/directory.ts'
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import type { Sql, Transaction } from './database.ts'
import { PRIMARY_DEVICE_ID } from './devices.ts'
import { createDevice, type Enrolled, type Enrolment, verifyEnrolment } from './enrolment.ts'
import { consumeInvitation, peekInvitation } from './invitations.ts'
import type { Tokens } from './tokens.ts'

/** Who may register: anybody, holders of an invitation, or subjects of the outside issuer. [I-1.1] */
export type RegistrationMode = 'open' | 'invite' | 'issuer'

/** What registration is built on; realm is the one its proofs name. */
export type AccountSeams = {
  sql: Sql
  realm: string
  directory: Directory
  tokens: Tokens
  registration: RegistrationMode
}

/** What the stranger brings besides keys; only what the mode asks for is looked at. */
export type RegistrationPermit = { invitation: string | null; outsideToken: string | null }

export type Accounts = {
  /**
   * Makes a user and its device 1, or nothing; an invitation is used up with it. [I-1]
   * @throws RelayError FORBIDDEN (invitation), UNAUTHENTICATED (outside token), INVALID_REQUEST (proof, keys),
   *   CONFLICT (the identity key or the outside subject has an account, a key another device holds).
   */
  register(enrolment: Enrolment, permit: RegistrationPermit, nowMs: number): Promise<Enrolled>
}

/** Registration in the mode the operator chose. */
export function openAccounts({ sql, realm, directory, tokens, registration }: AccountSeams): Accounts {
  return {
    async register(enrolment, permit, nowMs) {
      if (registration === 'invite') await peekInvitation(sql, permit.invitation, nowMs)
      const subject = registration === 'issuer' ? await subjectOf(tokens, permit.outsideToken, nowMs) : null
      const keys = await verifyEnrolment(enrolment, { purpose: 'register', realm, linkCode: '', nowMs })
      return sql.begin(async (tx) => {
        const userId = randomUUID()
        if (registration === 'invite') await consumeInvitation(tx, permit.invitation, userId, nowMs)
        await insertAccount(tx, userId, subject, nowMs)
        const { name, registrationId } = enrolment
        const device = { userId, deviceId: PRIMARY_DEVICE_ID, name, registrationId, keys, nowMs }
        const { deviceId, deviceSecret } = await createDevice(tx, directory, device)
        return { userId, deviceId, deviceSecret }
      })
    },
  }
}

async function subjectOf(tokens: Tokens, token: string | null, nowMs: number): Promise<string> {
  if (token === null) throw new RelayError('UNAUTHENTICATED', 'registration needs a token of the configured issuer')
  return (await tokens.verifyOutside(token, nowMs)).subject
}

async function insertAccount(tx: Transaction, userId: Uuid, subject: string | null, nowMs: number): Promise<void> {
  const made = await tx`insert into accounts (user_id, outside_subject, created_at)
    values (${userId}, ${subject}, ${new Date(nowMs)})
    on conflict on constraint accounts_outside_subject do nothing returning 1`
  if (made.length === 0) throw new RelayError('CONFLICT', "the token's subject has an account")
}
