// What is left when a user lost his devices: a recovery code stored before, and beginning anew. [H-10] [I-6]
import { z } from 'zod'
import { binary } from '../../keys/wire.ts'
import { invalid } from '../../proto/errors.ts'
import { isUuid } from '../../proto/ids.ts'
import { type Route, route } from '../../proto/route.ts'
import type { NewIdentity, NewIdentityPermit } from '../newidentity.ts'
import type { RecoveryCodes } from '../recoverycodes.ts'
import { base64Bytes } from './binary.ts'
import { ENROLMENT_MAX_BYTES, enrolledAnswer, enrolmentFields, toEnrolment } from './enrolment.ts'

const wish = z.strictObject({
  recovery_code_hash: base64Bytes(32).nullable(),
  timestamp_ms: z.int().min(0),
  signature: binary,
})

const beginning = z.strictObject({
  ...enrolmentFields,
  user_id: z.string().refine(isUuid, 'is not a canonical UUID').nullish(),
  username_hash: base64Bytes(32).nullish(),
  recovery_code: z.string().max(64).nullish(),
  old_signature: base64Bytes(64).nullish(),
})

/** `PUT /v1/recovery-code` and `PUT /v1/identity`. */
export const recoveryRoutes = (recovery: { codes: RecoveryCodes; newIdentity: NewIdentity }): Route[] => [
  route({
    method: 'PUT',
    path: '/v1/recovery-code',
    summary: "Store the hash of a recovery code, signed by the user's identity key, or remove it; primary device only.",
    auth: 'device',
    body: wish,
    async handle({ caller, body, nowMs }) {
      const { recovery_code_hash: codeHash, timestamp_ms: timestampMs, signature } = body
      await recovery.codes.store(caller, { codeHash, timestampMs, signature }, nowMs)
      return { status: 204 }
    },
  }),
  route({
    method: 'PUT',
    path: '/v1/identity',
    summary: 'Begin anew with another identity key on one device; all former devices end.',
    auth: 'none',
    perAddress: 'recoveries',
    body: beginning,
    maxBodyBytes: ENROLMENT_MAX_BYTES,
    async handle({ body, bearer, nowMs }) {
      const { user_id: userId, username_hash: usernameHash } = body
      if (userId && usernameHash) throw invalid('user_id and username_hash name one user twice')
      const named = userId ? { userId } : usernameHash ? { usernameHash } : null
      const enrolled = await recovery.newIdentity.begin(named, permitOf(body, bearer), toEnrolment(body), nowMs)
      return { ...enrolledAnswer(enrolled), status: 200 }
    },
  }),
]

function permitOf(body: z.output<typeof beginning>, bearer: string | null): NewIdentityPermit | null {
  const { recovery_code: recoveryCode, old_signature: oldSignature } = body
  if (recoveryCode && oldSignature) throw invalid('recovery_code and old_signature are in one request')
  if (recoveryCode) return { recoveryCode }
  if (oldSignature) return { oldSignature }
  return bearer === null ? null : { outsideToken: bearer }
}
