// The routes: JSON in, JSON out, as the socket layer calls them. [H-6]
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { KeyCaller } from '../../keys/directory.ts'
import { keyRoutes } from '../../keys/http.ts'
import { keyDigest } from '../../keys/verify.ts'
import type { Route, RouteResponse } from '../../proto/route.ts'
import { prekeyJson as json } from '../support/enrolment.ts'
import { TestDevice } from '../support/keys.ts'
import { openWorld, stranger, type World } from './world.ts'

let world: World
let routes: Route[]
beforeAll(async () => {
  world = await openWorld()
  routes = keyRoutes(world.directory)
})
afterAll(() => world.close())

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')

/** Finds the route, parses the body with its schema and calls it. A body that does not parse throws zod's error. */
async function call(
  caller: KeyCaller,
  request: `${Route['method']} /${string}`,
  options: { params?: Record<string, string>; body?: unknown } = {},
): Promise<RouteResponse> {
  const found = routes.find((route) => `${route.method} ${route.path}` === request)!
  expect(found.auth).toBe('device')
  return found.handle({
    params: options.params ?? {},
    query: new URLSearchParams(),
    body: found.body?.parse(options.body),
    caller: { ...caller, deviceUuid: randomUUID() },
    ...{ bearer: null, authorization: null, address: '127.0.0.1', nowMs: world.clock.nowMs },
    ...{ expiresAtMs: 0, onGone: () => {} },
  })
}

test('PUT and GET /v1/keys answer the counts', async () => {
  const caller = await world.enrol()
  const { device } = caller
  const body = {
    signed_prekey: json(device.makeSignedPrekey(2)),
    last_resort_kyber_prekey: json(device.makeLastResort(1001)),
    one_time_prekeys: device.makeOneTimePrekeys(2).map(json),
    one_time_kyber_prekeys: device.makeKyberPrekeys(2).map(json),
  }
  const answer = await call(caller, 'PUT /v1/keys', { body })
  expect(answer).toEqual({
    status: 200,
    body: {
      one_time: { count: 2, oldest_id: 0, highest_id: 1 },
      kyber_one_time: { count: 2, oldest_id: 0, highest_id: 1001 },
      signed_prekey: { key_id: 2, created_at_ms: world.clock.nowMs },
      last_resort: { key_id: 1001, created_at_ms: world.clock.nowMs, used: false },
    },
  })
  expect(await call(caller, 'GET /v1/keys')).toEqual(answer)
  expect(await call(caller, 'PUT /v1/keys', { body: {} })).toEqual(answer)
  const x3dh = await world.enrol({ keys: (device) => ({ signedPrekey: device.makeSignedPrekey(1) }) })
  expect((await call(x3dh, 'GET /v1/keys')).body).toMatchObject({
    ...{ one_time: { count: 0, oldest_id: null, highest_id: null }, last_resort: null },
  })
})

test('PUT /v1/keys with replace', async () => {
  const caller = await world.enrol()
  await call(caller, 'PUT /v1/keys', { body: { one_time_prekeys: caller.device.makeOneTimePrekeys(2).map(json) } })
  const body = { replace: true, registration_id: 5, signed_prekey: json(caller.device.makeSignedPrekey(2)) }
  const answer = await call(caller, 'PUT /v1/keys', { body })
  expect(answer.body).toMatchObject({ one_time: { count: 0, oldest_id: null, highest_id: 1 } })
  const params = { userId: caller.userId, deviceId: '1' }
  const bundle = await call(stranger(), 'GET /v1/keys/:userId/:deviceId', { params })
  expect(bundle.body).toMatchObject({ devices: [{ registration_id: 5 }] })
})

test('bodies of the wrong form do not parse', () => {
  const schema = routes.find((route) => route.method === 'PUT')!.body!
  const key = json(new TestDevice().makeSignedPrekey(1))
  const wrong = [
    ...[null, [], 'x', { signed_prekey: {} }, { one_time_prekeys: {} }, { one_time_prekeys: [null] }, { replace: 1 }],
    ...[{ signed_prekey: { ...key, key_id: '1' } }, { signed_prekey: { ...key, public_key: 7 } }],
    ...[{ signed_prekey: { ...key, signature: `${key.signature}=` } }, { signed_prekey: { ...key, signature: 'ab' } }],
    { signed_prekey: { ...key, signature: `${key.signature!.slice(0, 4)}\n${key.signature!.slice(4)}` } },
  ]
  for (const body of wrong) expect(schema.safeParse(body).success, JSON.stringify(body)).toBe(false)
})

test('the largest upload fits the body limit', () => {
  const device = new TestDevice()
  const body = JSON.stringify({
    signed_prekey: json(device.makeSignedPrekey(2 ** 31 - 1)),
    one_time_prekeys: device.makeOneTimePrekeys(100, 2 ** 31 - 101).map(json),
    one_time_kyber_prekeys: device.makeKyberPrekeys(100, 2 ** 31 - 101).map(json),
  })
  expect(body.length).toBeLessThan(routes.find((route) => route.method === 'PUT')!.maxBodyBytes! / 2)
})

test('POST /v1/keys/check', async () => {
  const caller = await world.enrol({ keys: (device) => ({ signedPrekey: device.makeSignedPrekey(1) }) })
  const [signed] = await world.sql`select public_key from keys.signed_prekeys where device_key = ${caller.deviceKey}`
  const digest = keyDigest({
    ...{ userId: caller.userId, deviceId: 1, registrationId: 4711, identityKey: caller.device.identityKey },
    ...{ signedPrekey: { keyId: 1, publicKey: signed!.public_key }, lastResortKyberPrekey: null },
  })
  const check = (bytes: Uint8Array) => call(caller, 'POST /v1/keys/check', { body: { digest: base64(bytes) } })
  expect(await check(digest)).toEqual({ status: 200, body: { match: true } })
  expect(await check(digest.map((byte) => byte ^ 1))).toEqual({ status: 200, body: { match: false } })
  await expect(check(digest.subarray(1))).rejects.toMatchObject({ code: 'INVALID_REQUEST' })
})

test('GET /v1/keys/{user_id}/{device_id} and *', async () => {
  const target = await world.enrol()
  const keys = {
    one_time_prekeys: target.device.makeOneTimePrekeys(1).map(json),
    one_time_kyber_prekeys: target.device.makeKyberPrekeys(1).map(json),
  }
  await call(target, 'PUT /v1/keys', { body: keys })
  const get = (deviceId: string, userId = target.userId) =>
    call(stranger(), 'GET /v1/keys/:userId/:deviceId', { params: { userId, deviceId } })
  const answer = await get('1')
  expect(answer).toMatchObject({ status: 200, headers: { 'Cache-Control': 'no-store' } })
  expect(answer.body).toEqual({
    user_id: target.userId,
    identity_key: base64(target.device.identityKey),
    devices: [
      {
        device_id: 1,
        registration_id: 4711,
        signed_prekey: { key_id: 1, public_key: expect.any(String), signature: expect.any(String) },
        one_time_prekey: keys.one_time_prekeys[0],
        kyber_prekey: keys.one_time_kyber_prekeys[0],
      },
    ],
  })
  expect((await get('*')).body).toMatchObject({ devices: [{ one_time_prekey: null, kyber_prekey: { key_id: 1000 } }] })

  for (const deviceId of ['0', '128', '01', '+1', '1.0', '', 'x', '**', '999'])
    await expect(get(deviceId), deviceId).rejects.toMatchObject({ code: 'INVALID_REQUEST' })
  await expect(get('1', target.userId.toUpperCase())).rejects.toMatchObject({ code: 'INVALID_REQUEST' })
  await expect(get('1', "' or 1=1 --")).rejects.toMatchObject({ code: 'INVALID_REQUEST' })
  const notFound = { code: 'NOT_FOUND', message: 'no such device' }
  await expect(get('2')).rejects.toMatchObject(notFound)
  await expect(get('1', randomUUID())).rejects.toMatchObject(notFound)
  await expect(get('*', randomUUID())).rejects.toMatchObject(notFound)
})

test('POST /v1/keys/bundles', async () => {
  const targets = [await world.enrol(), await world.enrol()]
  const named = targets.map((target) => ({ user_id: target.userId, device_id: 1 }))
  const body = { targets: [...named, { user_id: randomUUID(), device_id: 1 }] }
  const answer = await call(stranger(), 'POST /v1/keys/bundles', { body })
  expect(answer).toMatchObject({ status: 200, headers: { 'Cache-Control': 'no-store' } })
  expect(answer.body).toMatchObject({
    bundles: targets.map((target) => ({ user_id: target.userId, devices: [{ device_id: 1 }] })),
  })
  const schema = routes.find((route) => route.path === '/v1/keys/bundles')!.body!
  for (const target of [
    { user_id: 'x', device_id: 1 },
    { user_id: randomUUID(), device_id: 0 },
    { user_id: randomUUID() },
  ])
    expect(schema.safeParse({ targets: [target] }).success).toBe(false)
})
