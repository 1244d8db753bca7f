// The token endpoint (RFC 6749 §4.4) and the public keys. [T-3] [T-4]
import { z } from 'zod'
import { type Route, type RouteResponse, route } from '../../proto/route.ts'
import { verifyCredentials } from '../credentials.ts'
import type { Sql } from '../database.ts'
import { HTTP_STATUS } from '../errors.ts'
import type { Tokens } from '../tokens.ts'

// Anything goes in: what is wrong is answered in RFC 6749's form, not in ours.
const form = z.record(z.string(), z.unknown())

const NO_STORE = { 'Cache-Control': 'no-store', Pragma: 'no-cache' }
/** How long others may keep our public keys, seconds; far below the overlap of a rotation. */
const JWKS_MAX_AGE_SECONDS = 300

type Credentials = { id: string; secret: string }

/** `POST /oauth/token`, `GET /.well-known/jwks.json`. */
export const tokenRoutes = ({ sql, tokens }: { sql: Sql; tokens: Tokens }): Route[] => [
  route({
    method: 'POST',
    path: '/oauth/token',
    summary: 'Trade a device secret for an access token (RFC 6749 client_credentials).',
    auth: 'none',
    body: form,
    form: true,
    maxBodyBytes: 4096,
    // [T-3.1]
    refuse: ({ code, message }) => {
      const status = HTTP_STATUS[code]
      if (status < 500) return refused(status, 'invalid_request', message)
      return refused(status, status === 503 ? 'temporarily_unavailable' : 'server_error')
    },
    async handle({ body, authorization, nowMs }) {
      // RFC 6749 §3.2: parameters must not repeat; ones we do not know are ignored.
      const [grant, id, secret] = ['grant_type', 'client_id', 'client_secret'].map((name) => body[name])
      if ([grant, id, secret].some((each) => each !== undefined && typeof each !== 'string')) {
        return refused(400, 'invalid_request', 'a parameter is repeated')
      }
      if (!grant) return refused(400, 'invalid_request', 'grant_type is missing')
      if (grant !== 'client_credentials') return refused(400, 'unsupported_grant_type')

      // RFC 6749 §2.3: not more than one method of authentication in a request.
      if (authorization !== null && secret !== undefined) {
        return refused(400, 'invalid_request', 'credentials are given twice')
      }
      const given =
        authorization === null ? { id: String(id ?? ''), secret: String(secret ?? '') } : parseBasic(authorization)
      if (authorization !== null && id !== undefined && id !== given?.id) {
        return refused(400, 'invalid_request', 'client_id is given twice')
      }
      const device = given && (await verifyCredentials(sql, given.id, given.secret))
      if (!device) {
        const refusal = refused(401, 'invalid_client')
        if (authorization === null) return refusal
        // RFC 6749 §5.2: who tries the header is told the scheme.
        return { ...refusal, headers: { ...NO_STORE, 'WWW-Authenticate': 'Basic realm="sealpost"' } }
      }
      const { token, expiresInSeconds } = await tokens.issue(device, nowMs)
      const answer = { access_token: token, token_type: 'Bearer', expires_in: expiresInSeconds }
      return { status: 200, headers: NO_STORE, body: answer }
    },
  }),
  route({
    method: 'GET',
    path: '/.well-known/jwks.json',
    summary: 'The public keys that verify access tokens.',
    auth: 'none',
    async handle({ nowMs }) {
      const headers = { 'Cache-Control': `public, max-age=${JWKS_MAX_AGE_SECONDS}` }
      return { status: 200, headers, body: await tokens.jwks(nowMs) }
    },
  }),
]

const refused = (status: number, error: string, description?: string): RouteResponse => ({
  status,
  headers: NO_STORE,
  body: description ? { error, error_description: description } : { error },
})

// RFC 6749 §2.3.1: both halves are form-encoded before they are joined.
function parseBasic(authorization: string): Credentials | null {
  const encoded = /^basic +([A-Za-z0-9+/]+=*)$/i.exec(authorization)?.[1]
  if (!encoded) return null
  const [id = '', ...rest] = Buffer.from(encoded, 'base64').toString('utf8').split(':')
  try {
    return { id: decodeURIComponent(id), secret: decodeURIComponent(rest.join(':')) }
  } catch {
    return null
  }
}
