// What a web page that is served from elsewhere may do: the origins the operator listed, and no others. [H-11]
import { afterAll, beforeAll, describe, expect, it, test } from 'vitest'
import { readConfig, StartError } from '../../server/config.ts'
import { Client, request } from '../support/client.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const APP = 'https://app.example.org'
const SHELL = 'capacitor://localhost'

let open: TestRelay
let closed: TestRelay
let alice: Client
beforeAll(async () => {
  closed = await testRelay()
  open = await testRelay({ db: closed.db, config: { allowedOrigins: [APP, SHELL] } })
  alice = await Client.register(open)
})
afterAll(async () => {
  await open.close()
  await closed.close()
})

// Undici sends an Origin of our own; a browser would not let a page choose it.
const from = (origin: string, relay: TestRelay, method: string, path: string, token?: string) =>
  request(relay.url, method, path, { headers: { Origin: origin }, token })
const allowed = ({ headers }: { headers: Headers }) => headers.get('access-control-allow-origin')

const ASKED = {
  'Access-Control-Request-Method': 'PUT',
  'Access-Control-Request-Headers': 'authorization,content-type',
}
const preflight = (origin: string, relay: TestRelay, path = '/v1/keys') =>
  request(relay.url, 'OPTIONS', path, { headers: { Origin: origin, ...ASKED } })

describe('a listed origin', () => {
  it.each([APP, SHELL])('%s may read answers, refusals too', async (origin) => {
    const answers = [
      await from(origin, open, 'GET', '/v1/keys', alice.token),
      await from(origin, open, 'GET', '/v1/keys'),
      await from(origin, open, 'POST', '/oauth/token'),
      await from(origin, open, 'GET', '/.well-known/jwks.json'),
      await from(origin, open, 'GET', '/v1/no-such-endpoint'),
    ]
    expect(answers.map(({ status }) => status)).toEqual([200, 401, 400, 200, 404])
    expect(answers.map(allowed)).toEqual(answers.map(() => origin))
    for (const { headers } of answers) {
      expect(headers.get('vary')).toBe('Origin')
      expect(headers.get('access-control-expose-headers')).toBe('Retry-After, WWW-Authenticate')
      expect(headers.has('access-control-allow-credentials')).toBe(false)
    }
  })

  it('is told by a preflight that it may use every method, with a token and a body', async () => {
    for (const path of ['/v1/keys', '/v1/accounts', '/oauth/token', '/v1/no-such-endpoint']) {
      const { status, headers, body } = await preflight(APP, open, path)
      expect([status, body, headers.get('access-control-allow-origin')]).toEqual([204, '', APP])
      expect(headers.get('access-control-allow-methods')).toBe('GET, POST, PUT, PATCH, DELETE')
      expect(headers.get('access-control-allow-headers')).toBe('Authorization, Content-Type')
      expect(headers.get('access-control-max-age')).toBe('86400')
    }
  })

  it('may not read what is the operator’s', async () => {
    for (const path of ['/metrics', '/readyz', '/openapi.json'])
      expect(allowed(await from(APP, open, 'GET', path))).toBeNull()
    expect((await preflight(APP, open, '/metrics')).status).toBe(404)
  })
})

describe('any other origin', () => {
  it.each([
    'https://app.example.org.evil.example',
    'https://evil.example',
    'http://app.example.org',
    'https://app.example.org:8443',
    'https://APP.example.org',
    'null',
  ])('%s is answered like a program, which the browser keeps from the page', async (origin) => {
    const answer = await from(origin, open, 'GET', '/v1/keys', alice.token)
    expect([answer.status, allowed(answer), answer.headers.get('vary')]).toEqual([200, null, 'Origin'])
    const refused = await preflight(origin, open)
    expect([refused.status, refused.body.error.code, allowed(refused)]).toEqual([404, 'NOT_FOUND', null])
  })

  it('is what every origin is while none is listed', async () => {
    const answer = await from(APP, closed, 'GET', '/v1/keys', alice.token)
    expect([answer.status, allowed(answer), answer.headers.get('vary')]).toEqual([200, null, null])
    expect((await preflight(APP, closed)).status).toBe(404)
  })
})

test('programs without an origin see no difference, but caches are told', async () => {
  const { status, headers } = await alice.get('/v1/keys')
  expect([status, headers.get('access-control-allow-origin'), headers.get('vary')]).toEqual([200, null, 'Origin'])
})

describe('SEALPOST_ALLOWED_ORIGINS', () => {
  const read = (SEALPOST_ALLOWED_ORIGINS: string) => readConfig({ SEALPOST_ALLOWED_ORIGINS }).allowedOrigins

  it('is a list of origins as browsers write them', () => {
    expect(readConfig({}).allowedOrigins).toEqual([])
    expect(read(`${APP}, ${SHELL},http://localhost:5173,http://[::1]:8080`)).toEqual([
      APP,
      SHELL,
      'http://localhost:5173',
      'http://[::1]:8080',
    ])
  })

  it.each(['*', 'null', 'app.example.org', `${APP}/`, `${APP}/chat`, 'https://App.example.org', `${APP}:443`])(
    'refuses %s, which no browser sends or which is everybody',
    (origin) => {
      expect(() => read(`${APP},${origin}`)).toThrow(StartError)
      expect(() => read(origin)).toThrow(/SEALPOST_ALLOWED_ORIGINS=.* has an entry that is not scheme/)
    },
  )
})
