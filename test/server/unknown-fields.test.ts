// One rule for fields nobody knows, on every route: refused, by name. [H-1]
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Client, type HttpAnswer, request } from '../support/client.ts'
import { enrolmentJson, prekeyJson } from '../support/enrolment.ts'
import { TestDevice } from '../support/keys.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

let relay: TestRelay
let client: Client
let peer: Client
beforeAll(async () => {
  relay = await testRelay()
  ;[client, peer] = await Promise.all([Client.register(relay), Client.register(relay)])
})
afterAll(() => relay?.close())

type Schema = { type?: string; additionalProperties?: unknown; [key: string]: unknown }

/** Objects of a JSON schema that let unknown fields in, by their path. */
function open(schema: unknown, at: string): string[] {
  if (typeof schema !== 'object' || schema === null) return []
  const { type, additionalProperties } = schema as Schema
  const inside = Object.entries(schema).flatMap(([name, value]) => open(value, `${at}/${name}`))
  return type === 'object' && additionalProperties !== false ? [at, ...inside] : inside
}

test('every JSON body of every route is closed, at every depth', async () => {
  const { paths } = (await (await fetch(`${relay.url}/openapi.json`)).json()) as {
    paths: Record<string, Record<string, { requestBody?: { content: Record<string, { schema: unknown }> } }>>
  }
  const bodies = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { requestBody }]) => ({
      route: `${method} ${path}`,
      schema: requestBody?.content['application/json']?.schema,
    })),
  )
  expect(bodies.filter(({ schema }) => schema)).toHaveLength(16)
  expect(bodies.flatMap(({ route, schema }) => open(schema, route))).toEqual([])
})

const enrolment = () => enrolmentJson(new TestDevice(), relay.realm)

test.each<[string, string, () => Promise<HttpAnswer>]>([
  [
    'registration',
    'colour',
    () => request(relay.url, 'POST', '/v1/accounts', { json: { ...enrolment(), colour: 'red' } }),
  ],
  [
    'a field of linking at registration',
    'link_code',
    () => request(relay.url, 'POST', '/v1/accounts', { json: { ...enrolment(), link_code: 'x' } }),
  ],
  [
    'inside identity_proof',
    'identity_proof.purpose',
    () => {
      const json = enrolment()
      const identity_proof = { ...json.identity_proof, purpose: 'register' }
      return request(relay.url, 'POST', '/v1/accounts', { json: { ...json, identity_proof } })
    },
  ],
  [
    'inside a key of a list',
    'one_time_prekeys[1].signature',
    () => {
      const [first, second] = client.device.makeOneTimePrekeys(2, 100)
      const one_time_prekeys = [prekeyJson(first!), { ...prekeyJson(second!), signature: '' }]
      return client.put('/v1/keys', { one_time_prekeys })
    },
  ],
  ['the digest check', 'algorithm', () => client.post('/v1/keys/check', { digest: 'AAAA', algorithm: 'sha256' })],
  [
    'a target of bundles',
    'targets[0].registration_id',
    () => client.post('/v1/keys/bundles', { targets: [{ user_id: peer.userId, device_id: 1, registration_id: 1 }] }),
  ],
  [
    'a conversation',
    'user_ids',
    () => client.post('/v1/conversations', { kind: 'direct', user_id: peer.userId, user_ids: [] }),
  ],
  ['a name from JavaScript', '__proto__', () => client.put('/v1/keys', JSON.parse('{"__proto__": {"a": 1}}'))],
])('%s: %s', async (_, field, ask) => {
  const { status, body } = await ask()
  expect([status, body.error.code]).toEqual([400, 'INVALID_REQUEST'])
  expect(body.error.message).toBe(`${field}: is no field of this request`)
})

test('nothing of such a request is stored', async () => {
  const before = (await client.get('/v1/keys')).body
  const [key] = client.device.makeOneTimePrekeys(1, 200)
  const body = { one_time_prekeys: [prekeyJson(key!)], one_time_keys: [] }
  expect((await client.put('/v1/keys', body)).status).toBe(400)
  expect((await client.get('/v1/keys')).body).toEqual(before)
})

test('a long name is answered shortened', async () => {
  const { body } = await client.post('/v1/keys/check', { digest: 'AAAA', ['x'.repeat(50_000)]: 1 })
  expect(body.error.message).toBe(`${'x'.repeat(64)}: is no field of this request`)
})

test('the token endpoint ignores what it does not know (RFC 6749 §3.2) [T-3]', async () => {
  const form = new URLSearchParams({
    ...{ grant_type: 'client_credentials', client_id: `${client.userId}.${client.deviceId}` },
    ...{ client_secret: client.secret, colour: 'red' },
  })
  const headers = { 'Content-Type': 'application/x-www-form-urlencoded' }
  expect((await request(relay.url, 'POST', '/oauth/token', { body: form.toString(), headers })).status).toBe(200)
})
