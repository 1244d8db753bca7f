// HTTP requests to routes and back: authentication, bodies by their schema, errors by their code. Knows no route in particular.
import { invalid, RelayError } from '../proto/errors.ts'
import type { Caller, Route, RouteRequest } from '../proto/route.ts'
import { errorBody, HTTP_STATUS, toRelayError } from './errors.ts'
import type { Observe } from './observe.ts'
import type { Answer, Head, HttpRoute } from './socket.ts'

export type WebDeps = {
  /** @throws RelayError UNAUTHENTICATED. */
  authenticate(token: string): Promise<Caller>
  observe: Observe
  clock: () => number
  /** Told when a request begins and ends: a relay on its way down waits for them. */
  busy(by: 1 | -1): void
}

/** Requests under way. */
export class Requests {
  private open = 0
  private waiting: (() => void)[] = []

  /** One more, or one less. */
  count(by: 1 | -1): void {
    this.open += by
    if (this.open === 0) for (const resolve of this.waiting.splice(0)) resolve()
  }

  /** Resolves when none is under way, or after that time. */
  async over(mostMs: number): Promise<void> {
    if (this.open === 0) return
    await new Promise<void>((resolve) => {
      this.waiting.push(resolve)
      setTimeout(resolve, mostMs)
    })
  }
}

const DEFAULT_BODY_BYTES = 64 * 1024
/** Of a field's name that the client made up, in the answer. */
const NAMED_MAX_CHARS = 64

/** The bearer token of an Authorization header, or null. */
export const bearerOf = (authorization: string | null): string | null =>
  authorization ? (/^bearer +(\S+)$/i.exec(authorization)?.[1] ?? null) : null

/** Makes declared routes servable: what they throw becomes the answer of its code (I15). */
export const serveRoutes = (routes: Route[], deps: WebDeps): HttpRoute[] =>
  routes.map((each) => ({
    method: each.method,
    path: each.path,
    maxBodyBytes: each.maxBodyBytes ?? DEFAULT_BODY_BYTES,
    handle: (head, body) => answer(each, head, body, deps),
  }))

/** The answer to a path or method nobody serves. [H-2] */
export const notFound = async (): Promise<Answer> => refusal(new RelayError('NOT_FOUND', 'no such endpoint'))

async function answer(route: Route, head: Head, body: () => Promise<Buffer>, deps: WebDeps): Promise<Answer> {
  const { observe } = deps
  let result: Answer
  deps.busy(1)
  try {
    const response = await route.handle(await read(route, head, body, deps))
    result = {
      status: response.status,
      headers: { ...(response.contentType && { 'Content-Type': response.contentType }), ...response.headers },
      body: response.contentType
        ? String(response.body)
        : response.body === undefined
          ? ''
          : JSON.stringify(response.body),
    }
  } catch (error) {
    const refused = toRelayError(error, (unknown) =>
      observe.log.error({ err: unknown, route: route.path }, 'request failed'),
    )
    if (refused.code === 'UNAUTHENTICATED') {
      observe.metrics.unauthorized.inc()
      observe.events.unauthorized({ where: route.path, address: head.address, code: refused.code })
    }
    result = refusal(refused)
  } finally {
    // After the answer is written, which the caller does in the same turn.
    setImmediate(() => deps.busy(-1))
  }
  observe.metrics.http.inc({ method: route.method, route: route.path, status: result.status })
  return result
}

async function read(
  route: Route,
  head: Head,
  body: () => Promise<Buffer>,
  deps: WebDeps,
): Promise<RouteRequest<unknown>> {
  const bearer = bearerOf(head.authorization)
  let caller: Caller | undefined
  if (route.auth === 'device') {
    if (!bearer) throw new RelayError('UNAUTHENTICATED', 'an access token is required')
    caller = await deps.authenticate(bearer)
  }
  const names = route.path.split('/').filter((part) => part.startsWith(':'))
  return {
    params: Object.fromEntries(names.map((name, i) => [name.slice(1), decodeURIComponentSafe(head.params[i] ?? '')])),
    query: new URLSearchParams(head.query),
    body: route.body ? parse(route, head, await body()) : undefined,
    caller: caller as Caller,
    bearer,
    authorization: head.authorization,
    address: head.address,
    nowMs: deps.clock(),
  }
}

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

const one = (values: string[]): string | string[] => (values.length === 1 ? values[0]! : values)

function refusal(error: RelayError): Answer {
  const headers: Record<string, string> = {}
  if (error.retryAfterMs > 0) headers['Retry-After'] = String(Math.ceil(error.retryAfterMs / 1000))
  if (error.code === 'UNAUTHENTICATED') headers['WWW-Authenticate'] = 'Bearer'
  return { status: HTTP_STATUS[error.code], headers, body: JSON.stringify(errorBody(error)) }
}
