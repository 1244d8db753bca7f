// The shape of one HTTP route. Routes are declared beside their zod schemas, in server/http/ and keys/http.ts; the socket layer serves them.
import type { ZodType } from 'zod'
import type { RelayError } from './errors.ts'
import type { Uuid } from './ids.ts'

/** Who calls: taken from a verified access token whose device row exists, never from the request itself. [T-2] */
export type Caller = {
  userId: Uuid
  /** 1..127 */
  deviceId: number
  /** Surrogate key of the device row; never reused, unlike the device id. I9 */
  deviceKey: number
  /** The `dev` claim: UUID of the device row. */
  deviceUuid: Uuid
}

/** A body of bytes that nobody has read yet, for routes with `raw`. */
export type RawBody = {
  contentType: string
  /** As announced; null = not announced. */
  contentLength: number | null
  /** @throws RelayError TOO_LARGE, OVERLOADED, or INVALID_REQUEST when it was cut off. */
  read(): Promise<Buffer>
}

/** One request, body already parsed by the route's schema. */
export type RouteRequest<Body> = {
  params: Record<string, string>
  query: URLSearchParams
  body: Body
  /** Present exactly when the route's auth is 'device'. */
  caller: Caller
  /** When the caller's token ends, Unix milliseconds; 0 without a caller. */
  expiresAtMs: number
  /** Calls back, at most once, when the client is gone before its answer. */
  onGone(listener: () => void): void
  /** The raw bearer token, for routes whose auth is 'none' and that check one of their own. Never logged (I16). */
  bearer: string | null
  /** The Authorization header as it came, for the token endpoint's HTTP Basic. Never logged (I16). [T-3] */
  authorization: string | null
  /** Remote address, text form. */
  address: string
  nowMs: number
}

/** A refusal is thrown as a RelayError, never returned. @property body with a contentType text or bytes, otherwise JSON. */
export type RouteResponse = { status: number; body?: unknown; headers?: Record<string, string>; contentType?: string }

export type Route<Body = unknown> = {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** uWebSockets pattern: `/v1/keys/:userId/:deviceId`. */
  path: string
  /** One sentence for /openapi.json. */
  summary: string
  auth: 'device' | 'none'
  /** Absent = the route takes no body. Bodies are JSON unless `form` is set. */
  body?: ZodType<Body>
  /** The body is protobuf and handed on unread, as a RawBody; no schema. */
  raw?: boolean
  /** The body is application/x-www-form-urlencoded: an object of strings, a repeated name as an array of strings. */
  form?: boolean
  /** Requests of one user: burst at once, then one every everyMs; past it RATE_LIMITED. Absent = not bounded. Only with auth 'device'. */
  rate?: { burst: number; everyMs: number }
  /** Requests from one address count under this limit, before anything of them is read; past it RATE_LIMITED. Absent = not bounded. */
  perAddress?: 'registrations' | 'recoveries'
  /** Another form for refusals than [H-2]. */
  refuse?(error: RelayError): RouteResponse
  /** Bytes; default 64 KiB. */
  maxBodyBytes?: number
  handle(request: RouteRequest<Body>): Promise<RouteResponse> | RouteResponse
}

/** Keeps the body type of one route while lists hold `Route[]`. */
export const route = <Body>(declared: Route<Body>): Route => declared as unknown as Route
