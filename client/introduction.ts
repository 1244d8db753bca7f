// What a new device says of itself to the relay, with the proof that it holds the identity key; and how refusals are read. [I-2]
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { base64, bigEndian, concat, utf8 } from './bytes.ts'
import type { Core } from './core.ts'
import type { KeyOrder, MadeKeys } from './crypto.ts'
import { deviceKeysBytes, keysJson } from './prekeys.ts'

/** Published once and counted on from there: EC 1 to 100, Kyber 2 to 101 beside the last-resort key 1. */
export const FIRST_KEYS: KeyOrder = {
  signed: 1,
  lastResort: 1,
  oneTime: { first: 1, count: 100 },
  kyberOneTime: { first: 2, count: 100 },
}

/** The relay's answer to a device that was let in. [H-4] */
export type Enrolled = { user_id: Uuid; device_id: number; device_secret: string }

/** Who proves: an identity key, 33 bytes, and its XEdDSA. */
export type Prover = { identityKey: Uint8Array; sign(message: Uint8Array): Uint8Array }

/** A device's keys under a proof. @param what.code the link or recovery code as its text, '' for none. [I-2.1] */
export function introduction(
  core: Pick<Core, 'crypto' | 'account'>,
  { identityKey, sign }: Prover,
  { registrationId, keys }: { registrationId: number; keys: MadeKeys },
  what: { purpose: 'register' | 'link' | 'identity'; code: string; timestampMs: number },
): Record<string, unknown> {
  const { hash } = core.crypto
  const { signed, lastResort } = keys
  if (!signed) throw new Error('a device without a signed prekey')
  const message = concat(
    utf8(`sealpost.v1 ${what.purpose}\0${core.account.realm}`),
    hash(utf8(what.code)),
    hash(deviceKeysBytes({ identityKey, registrationId, signed, lastResort })),
    bigEndian(what.timestampMs, 8),
  )
  return {
    ...keysJson(keys),
    registration_id: registrationId,
    identity_key: base64(identityKey),
    identity_proof: { timestamp_ms: what.timestampMs, signature: base64(sign(message)) },
  }
}

/** Whether the relay has said no, and the same request would be refused again. Otherwise it may have been done. [E-2.3] */
export const isRefused = (error: unknown): error is RelayError =>
  error instanceof RelayError && !['UNAVAILABLE', 'INTERNAL', 'RATE_LIMITED', 'OVERLOADED'].includes(error.code)
