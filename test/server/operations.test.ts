// What an operator's machines ask, on a whole relay.
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { RelayError } from '../../proto/errors.ts'
import { operationRoutes } from '../../server/http/operations.ts'
import { isLoopback } from '../../server/loopback.ts'
import { openObserve } from '../../server/observe.ts'
import { voidAfterRestore } from '../../server/operator.ts'
import { enrolmentJson } from '../support/enrolment.ts'
import { TestDevice } from '../support/keys.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { callRoute } from './routes.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

const register = () =>
  fetch(`${relay.url}/v1/accounts`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(enrolmentJson(new TestDevice(), relay.realm, { oneTime: 12, kyberOneTime: 8 })),
  })

test('alive and ready', async () => {
  const [alive, ready] = await Promise.all(['/healthz', '/readyz'].map((path) => fetch(relay.url + path)))
  expect([alive!.status, await alive!.json()]).toEqual([200, { alive: true }])
  expect([ready!.status, await ready!.json()]).toEqual([200, { ready: true, missing: [] }])
})

test('metrics are Prometheus text and count requests by route, never by path', async () => {
  await fetch(`${relay.url}/v1/keys/6f1cf7c8-0d35-4d7c-8b3e-a35fcf1c1f4d/1`)
  const answer = await fetch(`${relay.url}/metrics`)
  const text = await answer.text()
  expect(answer.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/)
  expect(text).toMatch(/^sealpost_connections 0$/m)
  expect(text).toMatch(/sealpost_http_requests_total\{.*route="\/v1\/keys\/:userId\/:deviceId".*status="401".*\} 1/)
  expect(text).not.toContain('6f1cf7c8')
})

test('metrics are for connections from this machine, or for who has the token; to others they do not exist', async () => {
  expect(['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1'].map(isLoopback)).toEqual([true, true, true, true])
  expect(
    ['0000:0000:0000:0000:0000:ffff:7f00:0001', '0000:0000:0000:0000:0000:0000:0000:0001'].map(isLoopback),
  ).toEqual([true, true])
  expect(['10.0.0.1', '128.0.0.1', '::2', '::ffff:10.0.0.1', '', 'localhost'].map(isLoopback)).not.toContain(true)

  const { sql } = relay.db.database
  const observe = openObserve({ level: 'silent', format: 'json' })
  const read = async (
    metricsToken: string | null,
    from: { address: string; bearer?: string },
  ): Promise<number | string> => {
    const routes = operationRoutes({
      sql,
      observe,
      routes: [],
      draining: () => false,
      metricsToken,
      isJoined: () => true,
    })
    return callRoute(routes, 'GET', '/metrics', from).then(
      ({ status }) => status,
      ({ code, message }: RelayError) => `${code}: ${message}`,
    )
  }
  const nowhere = (await (await fetch(`${relay.url}/nowhere`)).json()) as { error: { code: string; message: string } }
  const gone = `${nowhere.error.code}: ${nowhere.error.message}`
  const token = 'a-token-of-the-operator'
  expect(await read(null, { address: '127.0.0.1' })).toBe(200)
  expect(await read(null, { address: '10.0.0.1' })).toBe(gone)
  expect(await read(null, { address: '10.0.0.1', bearer: '' })).toBe(gone)
  expect(await read(token, { address: '10.0.0.1', bearer: token })).toBe(200)
  expect(await read(token, { address: '10.0.0.1', bearer: `${token}x` })).toBe(gone)
  expect(await read(token, { address: '127.0.0.1' })).toBe(gone)
})

test('openapi.json describes every route with its body', async () => {
  const { paths } = (await (await fetch(`${relay.url}/openapi.json`)).json()) as {
    paths: Record<string, Record<string, { requestBody?: unknown; security?: unknown }>>
  }
  expect(Object.keys(paths)).toEqual(expect.arrayContaining(['/v1/accounts', '/oauth/token', '/v1/keys', '/healthz']))
  expect(JSON.stringify(paths['/v1/accounts']!.post!.requestBody)).toContain('identity_proof')
  expect(paths['/v1/keys']!.put!.security).toEqual([{ device: [] }])
})

test('after a restore one command voids every one-time prekey and changes the epoch [K-9]', async () => {
  const { sql } = relay.db.database
  expect((await register()).status).toBe(201)
  const [before] = await sql`select epoch from relay_state`
  expect(await voidAfterRestore(sql)).toBe(20)
  const [after] = await sql`select epoch from relay_state`
  expect(after!.epoch).not.toBe(before!.epoch)
  expect(await voidAfterRestore(sql)).toBe(0)
})
