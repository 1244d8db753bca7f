// What a user's identity key says to the relay besides identity_proof (verify.ts): which key takes its place, and by which code
// it may be replaced when it is lost. Bytes only; whose key it is and whether it may say so is decided elsewhere.
import { invalid } from '../proto/errors.ts'
import { type Uuid, uuidToBytes } from '../proto/ids.ts'
import { IDENTITY_PROOF_SKEW_MS } from '../proto/limits.ts'

/** Who is meant: a user id, or the hash of the username he holds, 32 bytes. [I-6.8] */
export type NamedUser = { userId: Uuid } | { usernameHash: Uint8Array }

/** identityKey: the new one, 33 bytes. timestampMs: that of the identity_proof, Unix milliseconds. [I-6.1] */
export type Replacement = { realm: string; named: NamedUser; identityKey: Uint8Array; timestampMs: number }

/** The bytes under old_signature: prefix, realm, the user as he is named, then 41 bytes of fixed layout. [I-6.1] [I-6.8] */
export const replacementMessage = ({ realm, named, identityKey, timestampMs }: Replacement): Uint8Array =>
  Buffer.concat([
    Buffer.from(`sealpost.v1 replace\0${realm}`),
    'userId' in named ? uuidToBytes(named.userId) : named.usernameHash,
    identityKey,
    be64(timestampMs),
  ])

/** codeHash: SHA-256 of the code's text, 32 bytes; null = the stored one is removed. [I-6.3] */
export type RecoveryChoice = { realm: string; userId: Uuid; codeHash: Uint8Array | null; timestampMs: number }

/** The bytes under a recovery code's signature: prefix, realm, then 56 bytes of fixed layout. [I-6.3] */
export const recoveryMessage = ({ realm, userId, codeHash, timestampMs }: RecoveryChoice): Uint8Array =>
  Buffer.concat([
    Buffer.from(`sealpost.v1 recovery\0${realm}`),
    uuidToBytes(userId),
    codeHash ?? new Uint8Array(32),
    be64(timestampMs),
  ])

/**
 * Returns if the time lies within 10 minutes of the relay's clock. [I-2.3]
 * @param name of the field, for the refusal. @throws RelayError INVALID_REQUEST with the skew.
 */
export function checkClock(name: string, timestampMs: number, nowMs: number): void {
  if (!Number.isSafeInteger(timestampMs) || timestampMs < 0) throw invalid(`${name} is not Unix milliseconds`)
  const skewMs = timestampMs - nowMs
  if (Math.abs(skewMs) > IDENTITY_PROOF_SKEW_MS)
    throw invalid(`${name} is ${Math.abs(skewMs)} ms ${skewMs < 0 ? 'behind' : 'ahead of'} the relay's clock`)
}

function be64(value: number): Uint8Array {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}
