// Requests nobody meant: at every route of /openapi.json, any body, any path, any query; never 500, always a code of the list. I15
import { Agent, request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ERROR_CODES } from '../../proto/errors.ts'
import { Client } from '../support/client.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { type Asked, any, json, paths, RAW, type Schema, shaped, types } from './requests.ts'
import { runs, within } from './runs.ts'

type Declared = { method: string; path: string; schema: Schema | null; type: string }

let relay: TestRelay
let routes: Declared[]
let client: Client
const agent = new Agent({ keepAlive: true, maxSockets: 4 })
beforeAll(async () => {
  relay = await testRelay()
  client = await Client.register(relay)
  const { body } = await client.get('/openapi.json')
  routes = Object.entries<Record<string, { requestBody?: { content: Record<string, { schema: Schema }> } }>>(
    body.paths,
  ).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { requestBody }]) => {
      const [type, content] = Object.entries(requestBody?.content ?? {})[0] ?? ['application/json', null]
      return { method: method.toUpperCase(), path, schema: content?.schema ?? null, type }
    }),
  )
  expect(routes.length).toBeGreaterThan(20)
})
afterAll(async () => {
  agent.destroy()
  await relay.close()
})

type Answer = { status: number; type: string; text: string }

const ask = ({ method, path, body, headers }: Asked): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const { hostname, port } = new URL(relay.url)
    const sent = httpRequest({
      hostname,
      port,
      agent,
      method,
      path,
      headers: { ...headers, 'Content-Length': body.length },
    })
    sent.on('error', reject)
    sent.on('response', (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk) => chunks.push(chunk))
      response.on('end', () =>
        resolve({
          status: response.statusCode!,
          type: response.headers['content-type'] ?? '',
          text: Buffer.concat(chunks).toString(),
        }),
      )
    })
    sent.end(body)
  })

// RFC 6749 §5.2: the token endpoint answers in its own form.
const OAUTH_ERRORS = [
  'invalid_request',
  'invalid_client',
  'invalid_grant',
  'unauthorized_client',
  'unsupported_grant_type',
]

async function check(asked: Asked): Promise<void> {
  const answer = await ask(asked)
  const said = `${asked.method} ${asked.path}: ${answer.status} ${answer.text.slice(0, 300)}`
  expect(answer.status, said).toBeLessThan(500)
  // What is in it is the business of frames-http.test.ts.
  if (answer.status >= 400 && answer.type !== 'application/x-protobuf') {
    const { error } = JSON.parse(answer.text)
    if (typeof error === 'string') expect(OAUTH_ERRORS, said).toContain(error)
    else {
      expect(ERROR_CODES, said).toContain(error.code)
      expect(error.code, said).not.toBe('INTERNAL')
      expect(typeof error.message, said).toBe('string')
    }
  }
  // A fuzzed request may have unlinked the caller.
  if (answer.status === 401 && asked.headers.Authorization === `Bearer ${client.token}`)
    client = await Client.register(relay)
}
/** Nothing surprised the relay. */
const calm = (): void => expect(relay.logged.splice(0).filter((line) => JSON.parse(line).level >= 50)).toEqual([])

const headers = (type: string): Record<string, string> => ({
  Authorization: `Bearer ${client.token}`,
  ...(type && { 'Content-Type': encodeURI(type) }),
})

it(
  'bodies that nearly have the declared shape',
  async () => {
    for (const { method, path, schema, type } of routes) {
      if (!schema) continue
      const form = type !== 'application/json'
      const made = fc.tuple(paths(path), shaped(schema, client.userId)).map(([where, value]): Asked => {
        const text = form
          ? new URLSearchParams(
              Object.entries(value ?? {}).map(([k, v]): [string, string] => [k, String(v)]),
            ).toString()
          : null
        return { method, path: where, body: text === null ? json(value) : Buffer.from(text), headers: headers(type) }
      })
      await fc.assert(fc.asyncProperty(made, check), runs(25))
    }
    calm()
  },
  within(40_000),
)

it(
  'any JSON, random bytes, huge numbers, deep nesting, wrong content types',
  async () => {
    for (const { method, path } of routes) {
      const body = fc.oneof(
        fc.constantFrom(...RAW).map((text) => Buffer.from(text)),
        fc.uint8Array({ maxLength: 200 }),
        any.map(json),
      )
      const made = fc.tuple(paths(path), body, types).map(([where, bytes, type]): Asked => {
        const taken = method === 'GET' ? new Uint8Array(0) : bytes
        return { method, path: where, body: taken, headers: headers(type) }
      })
      await fc.assert(fc.asyncProperty(made, check), runs(15))
    }
    calm()
  },
  within(40_000),
)

it(
  'any method, any path, any Authorization',
  async () => {
    const made = fc.record({
      method: fc.constantFrom('GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'HEAD'),
      path: fc.oneof(
        fc.webPath().map((path) => `/${path}`),
        fc.constantFrom(...routes.map((each) => each.path)).map(encodeURI),
        fc.constantFrom(
          '/v1/ws',
          '/',
          '//',
          '/v1',
          '/v1/',
          '/v1/accounts/',
          '/V1/ACCOUNTS',
          '/v1/keys//',
          '/../v1/keys',
          '/v1/%2e%2e/keys',
        ),
      ),
      body: fc.constant(new Uint8Array(0)),
      headers: fc
        .oneof(
          fc.string({ unit: 'grapheme-ascii', maxLength: 30 }),
          fc.constantFrom('Bearer', 'Bearer ', 'Basic !!!', 'Basic Og==', 'bearer a.b.c'),
        )
        .map((Authorization) => ({ Authorization: Authorization.trim() })),
    })
    await fc.assert(
      fc.asyncProperty(made, async (asked) => {
        if (asked.method !== 'HEAD') return check(asked)
        expect((await ask(asked)).status).toBeLessThan(500)
      }),
      runs(200),
    )
    calm()
  },
  within(30_000),
)

it(
  'bodies beyond the limit of their route are TOO_LARGE, or cut off; the next request is answered',
  async () => {
    for (const { method, path, schema, type } of routes) {
      // Protobuf may be 16 MiB: test/server/frames-http.test.ts.
      if (!schema || type === 'application/x-protobuf') continue
      const body = Buffer.alloc(3 * 1024 * 1024, 0x20)
      const answer = await ask({
        method,
        path: path.replace(/\{\w+\}/g, 'x'),
        body,
        headers: headers('application/json'),
      }).catch(() => null)
      // 401 and 429 come before the body is looked at.
      if (answer) expect([path, [401, 413, 429].includes(answer.status)]).toEqual([path, true])
      await check({ method: 'GET', path: '/healthz', body: new Uint8Array(0), headers: {} })
    }
    calm()
  },
  within(30_000),
)

it(
  'bytes that are no HTTP: the connection may end, the relay goes on',
  async () => {
    const { hostname, port } = new URL(relay.url)
    const line = fc.constantFrom(
      'GET / HTTP/1.1\r\n',
      'GET /v1/ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n',
      `Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n`,
      `Authorization: Bearer ${client.token}\r\n`,
      'Content-Length: 5\r\n',
      'Content-Length: -1\r\n',
      'Content-Length: 99999999999999999999\r\n',
      'Transfer-Encoding: chunked\r\n',
      'Host: x\r\n',
      '\r\n',
      'ffffffffffffffff\r\n',
      'POST /v1/accounts HTTP/1.1\r\n',
      '\0',
    )
    const piece = fc.oneof(
      line.map((text) => Buffer.from(text)),
      fc.uint8Array({ maxLength: 100 }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { minLength: 1, maxLength: 12 }), async (pieces) => {
        const socket = connect(Number(port), hostname)
        const over = new Promise((resolve) => socket.once('close', resolve))
        socket.on('error', () => {})
        socket.resume()
        socket.end(Buffer.concat(pieces))
        // Half closed: uWebSockets closes the other half, too.
        await over
      }),
      runs(150),
    )
    await check({ method: 'GET', path: '/healthz', body: new Uint8Array(0), headers: {} })
    calm()
  },
  within(30_000),
)
