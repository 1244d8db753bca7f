// Calls a route as the HTTP layer does: finds it by path, parses the body by its schema, hands over a request. No socket.
import { invalid } from '../../proto/errors.ts'
import type { Caller, Route, RouteRequest, RouteResponse } from '../../proto/route.ts'

type Given = Partial<Omit<RouteRequest<unknown>, 'caller'>> & { caller?: Caller }

/** @throws what the route throws; INVALID_REQUEST when the schema refuses the body; Error when there is no such route. */
export async function callRoute(
  routes: Route[],
  method: Route['method'],
  path: string,
  given: Given = {},
): Promise<RouteResponse> {
  for (const route of routes) {
    const params = route.method === method ? match(route.path, path) : null
    if (!params) continue
    if (route.auth === 'device' && !given.caller) throw new Error(`${method} ${path} needs a caller`)
    const parsed = route.body?.safeParse(given.body)
    if (parsed && !parsed.success) throw invalid(parsed.error.issues.map((each) => each.path.join('.')).join(', '))
    return route.handle({
      query: new URLSearchParams(),
      bearer: null,
      authorization: null,
      address: '127.0.0.1',
      nowMs: Date.now(),
      expiresAtMs: 0,
      onGone: () => {},
      ...given,
      params,
      body: parsed?.data,
      caller: given.caller as Caller,
    })
  }
  throw new Error(`no route ${method} ${path}`)
}

function match(pattern: string, path: string): Record<string, string> | null {
  const wanted = pattern.split('/')
  const found = path.split('/')
  if (wanted.length !== found.length) return null
  const params: Record<string, string> = {}
  for (const [i, part] of wanted.entries()) {
    if (part.startsWith(':')) params[part.slice(1)] = found[i]!
    else if (part !== found[i]) return null
  }
  return params
}
