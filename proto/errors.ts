// The closed list of error codes (I15) and the one error class that carries them. Mapping to frames and HTTP is in server/errors.ts.

/** Codes are API and never reused; texts are not API. [E-1] */
export const ERROR_CODES = [
  'INVALID_REQUEST',
  'UNAUTHENTICATED',
  'FORBIDDEN',
  'NOT_FOUND',
  'CONFLICT',
  'DEVICE_MISMATCH',
  'RATE_LIMITED',
  'TOO_LARGE',
  'QUEUE_FULL',
  'OVERLOADED',
  'UNAVAILABLE',
  'INTERNAL',
] as const

/** One of the closed list. [E-1] */
export type ErrorCode = (typeof ERROR_CODES)[number]

/** A device as mismatch answers name it; registrationId is the current one where there is one. */
export type DeviceAddress = { userId: string; deviceId: number; registrationId: number }

/** How the addressed devices differ from the current ones. [S-4] */
export type DeviceMismatch = { missing: DeviceAddress[]; extra: DeviceAddress[]; stale: DeviceAddress[] }

/**
 * A refusal the caller is told: the request changed nothing.
 * The message goes to the wire as it is: no secrets, no content, nothing another user may not know (I13, I16).
 */
export class RelayError extends Error {
  readonly code: ErrorCode
  /** Milliseconds; 0 = do not retry unchanged. */
  readonly retryAfterMs: number
  readonly mismatch: DeviceMismatch | null

  constructor(code: ErrorCode, message: string, more: { retryAfterMs?: number; mismatch?: DeviceMismatch } = {}) {
    super(message)
    this.name = 'RelayError'
    this.code = code
    this.retryAfterMs = more.retryAfterMs ?? 0
    this.mismatch = more.mismatch ?? null
  }
}

/** Short form for the most common refusal. */
export const invalid = (message: string): RelayError => new RelayError('INVALID_REQUEST', message)
