// The one place where errors become answers (I15): RelayError as it is, database trouble as UNAVAILABLE, everything else logged in full and sent as INTERNAL.
import { type ErrorCode, RelayError } from '../proto/errors.ts'

/** HTTP status of a code. [E-1] */
export const HTTP_STATUS: Record<ErrorCode, number> = {
  INVALID_REQUEST: 400,
  UNAUTHENTICATED: 401,
  FORBIDDEN: 403,
  NOT_FOUND: 404,
  CONFLICT: 409,
  DEVICE_MISMATCH: 409,
  RATE_LIMITED: 429,
  TOO_LARGE: 413,
  QUEUE_FULL: 429,
  OVERLOADED: 503,
  UNAVAILABLE: 503,
  INTERNAL: 500,
}

/** How long a client waits when the database is away, milliseconds. */
const UNAVAILABLE_RETRY_MS = 1000

const DRIVER_CODES = new Set([
  'CONNECTION_CLOSED',
  'CONNECTION_ENDED',
  'CONNECTION_DESTROYED',
  'CONNECT_TIMEOUT',
  'ECONNREFUSED',
  'ECONNRESET',
  'ENOENT',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
])

const codeOf = (error: unknown): string =>
  typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : ''

/** The connection is gone or the server is not ready: whether the statement took effect is unknown. */
export const isLostConnection = (error: unknown): boolean => {
  const code = codeOf(error)
  return DRIVER_CODES.has(code) || code.startsWith('08') || code.startsWith('57P') || code === '25P03'
}

/** The statement took no effect and may succeed unchanged: serialization, deadlock, lock timeout, cancelled, out of resources. */
export const isTransient = (error: unknown): boolean => {
  const code = codeOf(error)
  return code.startsWith('40') || code.startsWith('53') || code === '55P03' || code === '57014'
}

/** The statement failed on its data: another batch without the bad row succeeds. */
export const isBadData = (error: unknown): boolean => /^2[23]/.test(codeOf(error))

/**
 * What the caller is told.
 * @param report receives errors nobody expected, in full; the caller learns only INTERNAL.
 */
export function toRelayError(error: unknown, report: (error: unknown) => void): RelayError {
  if (error instanceof RelayError) return error
  if (isLostConnection(error) || isTransient(error))
    return new RelayError('UNAVAILABLE', 'the database is not reachable right now', {
      retryAfterMs: UNAVAILABLE_RETRY_MS,
    })
  report(error)
  return new RelayError('INTERNAL', 'internal error')
}

/** A refusal as an HTTP answer. [H-2] [H-3] */
export function refusal(error: RelayError): { status: number; headers: Record<string, string>; body: string } {
  return { ...refusalHead(error), body: JSON.stringify(errorBody(error)) }
}

/** Status and headers of a refusal, whatever its body. [E-1] [H-2] [H-3] */
export function refusalHead(error: RelayError): { status: number; headers: Record<string, string> } {
  const headers: Record<string, string> = {}
  if (error.retryAfterMs > 0) headers['Retry-After'] = String(Math.ceil(error.retryAfterMs / 1000))
  if (error.code === 'UNAUTHENTICATED') headers['WWW-Authenticate'] = 'Bearer'
  return { status: HTTP_STATUS[error.code], headers }
}

/** The JSON body of a refusal. [H-2] */
export const errorBody = (error: RelayError): unknown => ({
  error: {
    code: error.code,
    message: error.message,
    retry_after_ms: error.retryAfterMs,
  },
})
