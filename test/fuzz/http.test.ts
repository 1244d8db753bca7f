// Requests nobody meant: at every route of /openapi.json, any body, any path, any query; never 500, always a code of the list. I15
import { Agent, request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ERROR_CODES } from '../../proto/errors.ts'
import { Client } from '../support/client.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { runs, within } from './runs.ts'

type Schema = {
  type?: string
  properties?: Record<string, Schema>
  items?: Schema
  anyOf?: Schema[]
  const?: unknown
  enum?: unknown[]
}
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

type Asked = { method: string; path: string; body: Uint8Array; headers: Record<string, string> }
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
  if (answer.status >= 400) {
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

const uuid = fc.uuid()
const base64 = fc.uint8Array({ maxLength: 70 }).map((bytes) => Buffer.from(bytes).toString('base64'))
const odd = fc.constantFrom<unknown>(
  ...[
    null,
    true,
    false,
    0,
    -0,
    -1,
    1e308,
    2 ** 53,
    2 ** 31,
    0.5,
    '',
    ' ',
    '\0',
    '\ud800',
    '*',
    '../..',
    '__proto__',
    [],
    {},
  ],
)
const any = fc.oneof(
  odd,
  uuid,
  base64,
  fc.string({ unit: 'binary', maxLength: 60 }),
  fc.integer(),
  fc.jsonValue({ maxDepth: 3 }),
)

/** Values that have the declared shape nearly everywhere. */
function shaped(schema: Schema, depth = 0): fc.Arbitrary<unknown> {
  const right = ((): fc.Arbitrary<unknown> => {
    if (schema.const !== undefined) return fc.constant(schema.const)
    if (schema.enum) return fc.constantFrom(...schema.enum)
    if (schema.anyOf) return fc.oneof(...schema.anyOf.map((each) => shaped(each, depth + 1)))
    if (schema.properties) {
      const known = Object.fromEntries(
        Object.entries(schema.properties).map(([name, each]) => [name, shaped(each, depth + 1)]),
      )
      return fc.record(known, { requiredKeys: [] })
    }
    if (schema.type === 'array') return fc.array(shaped(schema.items ?? {}, depth + 1), { maxLength: 4 })
    if (schema.type === 'integer' || schema.type === 'number')
      return fc.oneof(fc.nat(300), fc.integer(), fc.maxSafeNat())
    if (schema.type === 'boolean') return fc.boolean()
    if (schema.type === 'string')
      return fc.oneof(uuid, base64, fc.constant(client.userId), fc.string({ maxLength: 40 }))
    return any
  })()
  return fc.oneof({ weight: 12, arbitrary: right }, { weight: 1, arbitrary: any })
}

const deep = (depth: number, open: string, close: string): string => open.repeat(depth) + close.repeat(depth)
const RAW = [
  ...[
    '',
    '{',
    '[',
    '"',
    'nul',
    '{"a":1e400}',
    `{"a":${'9'.repeat(400)}}`,
    '{"a":-1e-400}',
    '\ufeff{}',
    '{"__proto__":{"a":1}}',
  ],
  ...[deep(20_000, '[', ']'), `${deep(10_000, '{"a":', '')}1${'}'.repeat(10_000)}`, `{"constructor":{"prototype":{}}}`],
  ...['{"kind":"group","kind":"direct"}', '{"a":"\\ud800"}', '{"a":"\\u0000"}', 'a=1&a=2&b', '%', '&&&=', '=%00'],
]
const types = fc.constantFrom(
  'application/json',
  'text/plain',
  'application/x-www-form-urlencoded',
  '',
  'multipart/form-data; boundary=x',
  '\u00e9',
)

/** The path with its places filled. */
const paths = (path: string): fc.Arbitrary<string> => {
  const place = fc.oneof(
    fc.constantFrom(
      '*',
      '0',
      '1',
      '127',
      '128',
      '-1',
      '1e2',
      '%',
      '%00',
      '%2e%2e',
      '%ff',
      '+',
      'x'.repeat(300),
      '%F0%9F%92%A9',
    ),
    uuid,
    base64.map(encodeURIComponent),
    fc.string({ unit: 'grapheme', maxLength: 12 }).map((text) => encodeURIComponent(text)),
  )
  const query = fc.oneof(
    fc.constant(''),
    fc.constantFrom(
      '?',
      '?limit=1',
      '?limit=-1&limit=x',
      '?after=%00',
      '?a=%',
      '?cursor=%F0',
      `?q=${'y'.repeat(2000)}`,
    ),
    fc
      .dictionary(fc.constantFrom('limit', 'after', 'before', 'cursor', 'x'), fc.string({ maxLength: 12 }))
      .map((all) => `?${new URLSearchParams(all)}`),
  )
  const names = [...path.matchAll(/\{\w+\}/g)].length
  return fc.tuple(fc.array(place, { minLength: names, maxLength: names }), query).map(([places, tail]) => {
    let next = 0
    return path.replace(/\{\w+\}/g, () => places[next++]!) + tail
  })
}

const headers = (type: string): Record<string, string> => ({
  Authorization: `Bearer ${client.token}`,
  ...(type && { 'Content-Type': encodeURI(type) }),
})
const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value) ?? '')

it(
  'bodies that nearly have the declared shape',
  async () => {
    for (const { method, path, schema, type } of routes) {
      if (!schema) continue
      const form = type !== 'application/json'
      const made = fc.tuple(paths(path), shaped(schema)).map(([where, value]): Asked => {
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
    for (const { method, path, schema } of routes) {
      if (!schema) continue
      const body = Buffer.alloc(3 * 1024 * 1024, 0x20)
      const answer = await ask({
        method,
        path: path.replace(/\{\w+\}/g, 'x'),
        body,
        headers: headers('application/json'),
      }).catch(() => null)
      if (answer) expect([path, answer.status]).toEqual([path, answer.status === 401 ? 401 : 413])
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
