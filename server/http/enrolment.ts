// The part of a body that introduces a new device, shared by registration and linking. [H-4] [H-5]
import { z } from 'zod'
import { binary, prekeyFields, toDeviceKeys } from '../../keys/wire.ts'
import { invalid } from '../../proto/errors.ts'
import { NAME_MAX_CHARS, REGISTRATION_ID_MAX, REGISTRATION_ID_MIN } from '../../proto/limits.ts'
import type { Enrolled, Enrolment } from '../enrolment.ts'

/** 100 keys of each kind and the rest, bytes. */
export const ENROLMENT_MAX_BYTES = 1024 * 1024

/** For z.strictObject({ ...enrolmentFields }). */
export const enrolmentFields = {
  ...prekeyFields,
  identity_key: binary,
  registration_id: z.int().min(REGISTRATION_ID_MIN).max(REGISTRATION_ID_MAX),
  // PostgreSQL's text has no NUL, and other people's terminals show what is in a name.
  name: z
    .string()
    .max(NAME_MAX_CHARS)
    .regex(/^\P{Cc}*$/u, 'has control characters')
    .nullish(),
  identity_proof: z.strictObject({ timestamp_ms: z.int().min(0), signature: binary }),
}

const enrolmentObject = z.strictObject(enrolmentFields)

/** @throws RelayError INVALID_REQUEST: no signed prekey, without which nobody could write to the device. */
export function toEnrolment(body: z.output<typeof enrolmentObject>): Enrolment {
  const { signedPrekey, ...keys } = toDeviceKeys(body)
  if (!signedPrekey) throw invalid('signed_prekey is missing')
  return {
    name: body.name ?? '',
    registrationId: body.registration_id,
    identityKey: body.identity_key,
    keys: { ...keys, signedPrekey },
    identityProof: { timestampMs: body.identity_proof.timestamp_ms, signature: body.identity_proof.signature },
  }
}

/** The answer to a device that was let in; its secret is shown this once. */
export const enrolledAnswer = ({ userId, deviceId, deviceSecret }: Enrolled) => ({
  status: 201,
  headers: { 'Cache-Control': 'no-store' },
  body: { user_id: userId, device_id: deviceId, device_secret: deviceSecret },
})
