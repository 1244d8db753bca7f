// HTTP requests to routes and back: authentication, bodies by their schema, errors by their code. Knows no route in particular.
import { limited, type Meter, type OpenMeter } from '../keys/meter.ts'
import { invalid, RelayError } from '../proto/errors.ts'
import type { Caller, RawBody, Route, RouteRequest, RouteResponse } from '../proto/route.ts'
import { refusal, toRelayError } from './errors.ts'
import type { Observe } from './observe.ts'
import type { Answer, Head, HttpRoute } from './socket.ts'
import { countSource } from './source.ts'

export type WebDeps = {
  /** @throws RelayError UNAUTHENTICATED. */
  authenticate(token: string): Promise<{ caller: Caller; expiresAtMs: number }>
  observe: Observe
  clock: () => number
  /** Counts what routes bound by user. They fail open: what they keep off costs work, nothing else. */
  meters: OpenMeter
  /** Those of addresses. */
  limits: Record<NonNullable<Route['perAddress']>, Meter>
  /** Told when a request begins and ends: a relay on its way down waits for them. */
  busy(by: 1 | -1): void
  /** At the end of the relay's way down: it answers about itself, and takes no more work. */
  draining(): boolean
}

const GOING_AWAY_RETRY_MS = 1_000
const DEFAULT_BODY_BYTES = 64 * 1024
/** Parts (entries, fields) of a JSON body and how deep they nest: far above 100 keys of each kind and 500 ids. */
const BODY_MAX_PARTS = 2048
const BODY_MAX_DEPTH = 8
/** Of a field's name that the client made up, in the answer. */
const NAMED_MAX_CHARS = 64

/** The bearer token of an Authorization header, or null. */
export const bearerOf = (authorization: string | null): string | null =>
  authorization ? (/^bearer +(\S+)$/i.exec(authorization)?.[1] ?? null) : null

/** Makes declared routes servable: what they throw becomes the answer of its code (I15). */
export const serveRoutes = (routes: Route[], deps: WebDeps): HttpRoute[] =>
  routes.map((each) => {
    const { method, path, rate } = each
    const byUser = rate && deps.meters({ name: `${method}.${path}`, rates: [rate], whenGone: 'open' })
    return {
      method,
      path,
      maxBodyBytes: each.maxBodyBytes ?? DEFAULT_BODY_BYTES,
      handle: (head, body, onGone) => answer(each, { head, body, onGone }, deps, byUser),
    }
  })

/** The answer to a path or method nobody serves. [H-2] */
export const notFound = async (): Promise<Answer> => refusal(new RelayError('NOT_FOUND', 'no such endpoint'))

/** A request as socket.ts has it. */
type Asked = { head: Head; body: () => Promise<Buffer>; onGone: (listener: () => void) => void }

async function answer(route: Route, asked: Asked, deps: WebDeps, byUser: Meter | undefined): Promise<Answer> {
  const { observe } = deps
  let result: Answer
  deps.busy(1)
  try {
    if (deps.draining() && /^\/(v1|oauth)\//.test(route.path))
      throw new RelayError('UNAVAILABLE', 'going away', { retryAfterMs: GOING_AWAY_RETRY_MS })
    result = toAnswer(await route.handle(await read(route, asked, deps, byUser)))
  } catch (error) {
    const refused = toRelayError(error, (unknown) =>
      observe.log.error({ err: unknown, route: route.path }, 'request failed'),
    )
    result = route.refuse ? toAnswer(route.refuse(refused)) : refusal(refused)
  } finally {
    // After the answer is written, which the caller does in the same turn.
    setImmediate(() => deps.busy(-1))
  }
  // Also what a route answers by itself: a wrong device secret.
  if (result.status === 401) {
    observe.metrics.unauthorized.inc()
    observe.events.unauthorized({ where: route.path, address: asked.head.address, code: 'UNAUTHENTICATED' })
  }
  observe.metrics.http.inc({ method: route.method, route: route.path, status: result.status })
  return result
}

const toAnswer = (response: RouteResponse): Answer => ({
  status: response.status,
  headers: { ...(response.contentType && { 'Content-Type': response.contentType }), ...response.headers },
  body: toBody(response),
})

function toBody({ body, contentType }: RouteResponse): string | Uint8Array {
  if (body instanceof Uint8Array) return body
  if (contentType) return String(body)
  return body === undefined ? '' : JSON.stringify(body)
}

async function read(
  route: Route,
  { head, body, onGone }: Asked,
  deps: WebDeps,
  byUser: Meter | undefined,
): Promise<RouteRequest<unknown>> {
  if (route.perAddress) await countSource(deps.limits[route.perAddress], head.address)
  const bearer = bearerOf(head.authorization)
  let caller: Caller | undefined
  let expiresAtMs = 0
  if (route.auth === 'device') {
    if (!bearer) throw new RelayError('UNAUTHENTICATED', 'an access token is required')
    const admitted = await deps.authenticate(bearer)
    caller = admitted.caller
    expiresAtMs = admitted.expiresAtMs
    const waitMs = (await byUser?.take(caller.userId, 1)) ?? 0
    if (waitMs > 0) throw limited('too many requests of this kind', waitMs)
  }
  const names = route.path.split('/').filter((part) => part.startsWith(':'))
  return {
    params: Object.fromEntries(names.map((name, i) => [name.slice(1), decodeURIComponentSafe(head.params[i] ?? '')])),
    query: new URLSearchParams(head.query),
    body: route.raw ? rawBody(head, body) : route.body ? parse(route, head, await body()) : undefined,
    caller: caller as Caller,
    expiresAtMs,
    onGone,
    bearer,
    authorization: head.authorization,
    address: head.address,
    nowMs: deps.clock(),
  }
}

const rawBody = ({ contentType, contentLength }: Head, read: () => Promise<Buffer>): RawBody => ({
  contentType,
  contentLength,
  read,
})

function decodeURIComponentSafe(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    throw invalid('the path is not valid percent-encoding')
  }
}

function parse(route: Route, head: Head, bytes: Buffer): unknown {
  let value: unknown
  if (route.form) {
    if (!head.contentType.startsWith('application/x-www-form-urlencoded'))
      throw invalid('Content-Type must be application/x-www-form-urlencoded')
    const fields = new URLSearchParams(bytes.toString())
    value = Object.fromEntries([...new Set(fields.keys())].map((name) => [name, one(fields.getAll(name))]))
  } else {
    if (hasTooManyParts(bytes)) throw invalid('the body has more parts than any request needs')
    try {
      // An empty body is an empty object: most requests may leave everything out.
      value = bytes.length === 0 ? {} : JSON.parse(bytes.toString())
    } catch {
      throw invalid('the body is not JSON')
    }
  }
  const parsed = route.body!.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]!
  const field = issue.code === 'unrecognized_keys' ? issue.keys[0]! : null
  const at = [...issue.path, ...(field === null ? [] : [field.slice(0, NAMED_MAX_CHARS)])]
    .map((part, i) => (typeof part === 'number' ? `[${part}]` : i ? `.${String(part)}` : String(part)))
    .join('')
  const message = field === null ? issue.message : 'is no field of this request'
  throw invalid(at ? `${at}: ${message}` : message)
}

/** Counts before anything is made of them: a schema makes an issue of every wrong part, and deep nesting is dear to parse. I14 */
function hasTooManyParts(json: Uint8Array): boolean {
  let parts = 0
  let depth = 0
  let quoted = false
  for (let at = 0; at < json.length; at++) {
    const byte = json[at]!
    if (quoted) {
      if (byte === 0x5c) at++
      else if (byte === 0x22) quoted = false
    } else if (byte === 0x22) quoted = true
    else if (byte === 0x2c) parts++
    else if (byte === 0x5b || byte === 0x7b) {
      parts++
      if (++depth > BODY_MAX_DEPTH) return true
    } else if (byte === 0x5d || byte === 0x7d) depth--
    if (parts > BODY_MAX_PARTS) return true
  }
  return false
}

const one = (values: string[]): string | string[] => (values.length === 1 ? values[0]! : values)
