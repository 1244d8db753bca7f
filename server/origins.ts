// Web pages served from elsewhere, and which of them a browser lets read our answers (CORS). Knows no route in particular. [H-11]
import type { Answer, Head, HttpRoute } from './socket.ts'

type Handle = HttpRoute['handle']

/** What apps call; what operators look at is not for web pages. */
const SHARED_PATHS = /^\/(v1|oauth|\.well-known)\//
/** How long a browser may remember the answer to a preflight, seconds; no browser keeps it for more than a day. */
const PREFLIGHT_MAX_AGE_SECONDS = 86_400

const PREFLIGHT: Answer = {
  status: 204,
  headers: {
    'Access-Control-Allow-Methods': 'GET, POST, PUT, PATCH, DELETE',
    'Access-Control-Allow-Headers': 'Authorization, Content-Type',
    'Access-Control-Max-Age': String(PREFLIGHT_MAX_AGE_SECONDS),
  },
  body: '',
}

/**
 * Makes handlers answer the pages of these origins, preflights included. Cookies play no part: a page needs a token like anybody.
 * @param origins compared letter by letter with what browsers send; none = answers as if there were no browsers.
 */
export function openOrigins(origins: readonly string[]): (handle: Handle) => Handle {
  if (origins.length === 0) return (handle) => handle
  const allowed = new Set(origins)
  return (handle) => async (head, body, onGone) => {
    if (!SHARED_PATHS.test(head.path)) return handle(head, body, onGone)
    const headers = headersFor(head, allowed)
    const isPreflight = head.method === 'OPTIONS' && 'Access-Control-Allow-Origin' in headers
    const answer = isPreflight ? PREFLIGHT : await handle(head, body, onGone)
    return { ...answer, headers: { ...answer.headers, ...headers } }
  }
}

// Vary on every answer: what a cache between keeps for one origin is of no use to another.
const headersFor = ({ origin }: Head, allowed: Set<string>): Record<string, string> =>
  origin === null || !allowed.has(origin)
    ? { Vary: 'Origin' }
    : {
        Vary: 'Origin',
        'Access-Control-Allow-Origin': origin,
        'Access-Control-Expose-Headers': 'Retry-After, WWW-Authenticate',
      }
