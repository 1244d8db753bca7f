// Frames as bytes and back, and the relay's answers as errors. The only importer of the generated frame code in the SDK.
import { ERROR_CODES, type ErrorCode, RelayError } from '../proto/errors.ts'
import { sealpost } from '../proto/generated/relay.js'
import { type Uuid, uuidFromBytes, uuidToBytes } from '../proto/ids.ts'

const v1 = sealpost.v1

/** The generated shapes, as everything else in the SDK names them. */
export type ServerFrame = sealpost.v1.ServerFrame
export type ClientFrame = sealpost.v1.ClientFrame
export type ClientBody = sealpost.v1.ClientFrame.$Properties
export type Hello = sealpost.v1.Hello.$Properties
export type Envelope = sealpost.v1.Envelope.$Properties
export type WireRecipient = sealpost.v1.Recipient.$Properties
export type SystemEvent = sealpost.v1.SystemEvent.$Properties
export type Limits = sealpost.v1.Limits.$Properties
export const { Scope, Withheld, ConversationChange, DeviceChange, GoingAwayReason, Role } = v1

/** libsignal's numbers on the wire. [S-5] */
export const CIPHERTEXT = { WHISPER: 2, PREKEY: 3, PLAINTEXT: 8 } as const

/** A device as addressed; the registration id is the one it is believed to have. */
export type Address = { userId: Uuid; deviceId: number; registrationId: number }

/** What a DEVICE_MISMATCH said. [S-4.3] */
export type Mismatch = { missing: Address[]; extra: Address[]; stale: Address[] }

/** @throws Error when the bytes are no ServerFrame. */
export const decodeFrame = (bytes: Uint8Array): ServerFrame => v1.ServerFrame.decode(bytes)
export const encodeFrame = (requestId: number, body: ClientBody): Uint8Array =>
  v1.ClientFrame.encode({ ...body, requestId }).finish()

/** The other direction, for transports that are no socket. @throws Error when the bytes are no ClientFrame. */
export const decodeRequest = (bytes: Uint8Array): ClientFrame => v1.ClientFrame.decode(bytes)
export const encodeAnswer = (frame: sealpost.v1.ServerFrame.$Properties): Uint8Array =>
  v1.ServerFrame.encode(frame).finish()

/** '' for no id. */
export const idOf = (bytes: Uint8Array | null | undefined): Uuid => (bytes?.length === 16 ? uuidFromBytes(bytes) : '')
export const idBytes = (id: Uuid): Uint8Array => uuidToBytes(id)

const addressOf = (each: sealpost.v1.DeviceAddress.$Properties): Address => ({
  userId: idOf(each.userId),
  deviceId: each.deviceId ?? 0,
  registrationId: each.registrationId ?? 0,
})

/** `<user>.<device>`: libsignal's own form. */
export const nameOf = (each: { userId: Uuid; deviceId: number }): string => `${each.userId}.${each.deviceId}`

/** The refusal in an Error frame. A code not known here counts as INTERNAL. [E-1] */
export function refusal(error: sealpost.v1.Error.$Properties): RelayError {
  const name = v1.ErrorCode[error.code ?? 0]?.replace('ERROR_CODE_', '') as ErrorCode
  const code = ERROR_CODES.includes(name) ? name : 'INTERNAL'
  const wire = error.deviceMismatch
  const mismatch = wire && {
    missing: (wire.missing ?? []).map(addressOf),
    extra: (wire.extra ?? []).map(addressOf),
    stale: (wire.stale ?? []).map(addressOf),
  }
  return new RelayError(code, error.message ?? '', {
    retryAfterMs: error.retryAfterMs ?? 0,
    ...(mismatch && { mismatch }),
  })
}
