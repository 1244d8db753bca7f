// Linking: link codes, proofs, races and the outside issuer, on the real database and over the routes.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { LINK_CODE_TTL_MS } from '../../proto/limits.ts'
import type { Caller } from '../../proto/route.ts'
import { deviceRoutes } from '../../server/http/devices.ts'
import { LINK_CODES_MAX_LIVE } from '../../server/linkcodes.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { enrolmentJson } from '../support/enrolment.ts'
import { TestDevice } from '../support/keys.ts'
import { holdLocks } from './barrier.ts'
import { ALIVE, footprint } from './device-rows.ts'
import { startOutsideIssuer } from './outside-issuer.ts'
import { enrolment, NOW, openWorld, REALM, refusal, sibling, type World } from './relay-world.ts'
import { callRoute } from './routes.ts'

let db: TestDatabase
let world: World
beforeAll(async () => {
  db = await testDatabase({ lockMs: 60_000 })
  world = await openWorld(db.database)
})
afterAll(() => db?.close())

describe('linking', () => {
  test('adds a device under the same identity, which then has its own token', async () => {
    const user = await world.register()
    const { device, enrolled, caller } = await world.link(user)
    expect(enrolled).toMatchObject({ userId: user.caller.userId, deviceId: 2 })
    expect(await footprint(world.sql, caller)).toMatchObject({ ...ALIVE, waiting: 0 })
    expect(await world.devices.list(caller)).toEqual([
      { deviceId: 1, registrationId: user.device.registrationId, name: '', createdAtMs: NOW },
      { deviceId: 2, registrationId: device.registrationId, name: '', createdAtMs: NOW },
    ])
    const { token } = await world.tokens.issue(caller, NOW)
    expect(await world.identity.authenticate(token, NOW)).toEqual(caller)
  })

  test('reaches the other devices as an event in their queues, and not the new one', async () => {
    const user = await world.register()
    const second = await world.link(user)
    world.fannedOut.length = 0
    const third = await world.link(user)
    expect(world.fannedOut.map((each) => each.deviceKey)).toEqual([user.caller.deviceKey, second.caller.deviceKey])
    const rows = await world.sql`select device_key, sequence from message_deliveries_waiting
      where device_key = any(${[user, second, third].map((each) => each.caller.deviceKey)}::bigint[]) order by 1, 2`
    expect([...rows]).toEqual([
      { device_key: user.caller.deviceKey, sequence: 1 },
      { device_key: user.caller.deviceKey, sequence: 2 },
      { device_key: second.caller.deviceKey, sequence: 1 },
    ])
    expect(world.fannedOut[0]!.delivery).toMatchObject({ conversationId: null, sender: null, sequence: 2 })
  })

  test('a code is good once, for ten minutes, for its user, and all refusals are one answer', async () => {
    const [user, other] = [await world.register(), await world.register()]
    const used = await world.newCode(user)
    await world.join(user, used)
    const nobody = { ...user, caller: { ...user.caller, userId: '6f1f6d0e-6c1b-4f5e-9a0e-0d9a5f3f6b01' } }
    const tries = await Promise.allSettled([
      world.join(user, used),
      world.join(user, 'guess'),
      world.join(user, ''),
      world.newCode(other).then((code) => world.join(user, code)),
      world.newCode(user).then((code) => world.join(user, code, { nowMs: NOW + LINK_CODE_TTL_MS })),
      world.newCode(user).then((code) => world.join(nobody, code)),
    ])
    for (const each of tries) expect(each).toEqual({ status: 'rejected', reason: refusal('FORBIDDEN') })
    expect(new Set(tries.map((each) => (each as PromiseRejectedResult).reason.message)).size).toBe(1)
    await world.join(user, await world.newCode(user), { nowMs: NOW + LINK_CODE_TTL_MS - 1 })
  })

  test('of two devices that race for one code, one gets in', async () => {
    const user = await world.register()
    const code = await world.newCode(user)
    const barrier = await holdLocks(
      db.database.reader,
      (tx) => tx`select 1 from accounts where user_id = ${user.caller.userId} for update`,
    )
    const racing = Promise.allSettled([world.join(user, code), world.join(user, code), world.join(user, code)])
    await barrier.waiting(3)
    await barrier.release()
    const tries = await racing
    expect(tries.filter((each) => each.status === 'fulfilled')).toHaveLength(1)
    for (const each of tries) if (each.status === 'rejected') expect(each.reason).toEqual(refusal('FORBIDDEN'))
    expect(await world.numbers(user)).toEqual([1, 2])
  })

  test('of many with codes of their own, all get in under different numbers', async () => {
    const user = await world.register()
    const codes = await Promise.all([1, 2, 3].map(() => world.newCode(user)))
    const linked = await Promise.all(codes.map((code) => world.join(user, code)))
    expect(linked.map((each) => each.deviceId).sort()).toEqual([2, 3, 4])
  })

  test('a proof made for another code, purpose or time is refused, and the code stays good', async () => {
    const user = await world.register()
    const code = await world.newCode(user)
    const first = await world.newCode(user)
    const recorded = enrolment(sibling(user.device), { purpose: 'link', linkCode: first })
    await world.devices.link(user.caller.userId, { linkCode: first }, recorded, NOW)
    // Replayed as it was, and with a fresh code beside it.
    await expect(world.devices.link(user.caller.userId, { linkCode: first }, recorded, NOW)).rejects.toEqual(
      refusal('FORBIDDEN'),
    )
    const bad = [
      [recorded, /signature/],
      [enrolment(sibling(user.device), { linkCode: code }), /signature/],
      [enrolment(sibling(user.device), { purpose: 'link' }), /signature/],
      [enrolment(sibling(user.device), { purpose: 'link', linkCode: code, timestampMs: NOW - 600_001 }), /behind/],
    ] as const
    for (const [request, message] of bad) {
      await expect(world.devices.link(user.caller.userId, { linkCode: code }, request, NOW)).rejects.toEqual(
        refusal('INVALID_REQUEST', message),
      )
    }
    await world.join(user, code)
  })

  test('under another identity key is refused, and the code stays good', async () => {
    const user = await world.register()
    const code = await world.newCode(user)
    await expect(world.join(user, code, { device: new TestDevice() })).rejects.toEqual(
      refusal('INVALID_REQUEST', /identity_key/),
    )
    await world.join(user, code)
  })

  test('stops at ten devices, and the code stays good', async () => {
    const user = await world.register()
    const linked = []
    for (let i = 0; i < 9; i++) linked.push(await world.link(user))
    const code = await world.newCode(user)
    await expect(world.join(user, code)).rejects.toEqual(refusal('CONFLICT', /10 devices/))
    expect(await world.numbers(user)).toHaveLength(10)
    await world.devices.unlink(user.caller, 5, NOW)
    await world.join(user, code)
    expect(await world.numbers(user)).toEqual([1, 2, 3, 4, 6, 7, 8, 9, 10, 11])
  })

  test('waits for a send that holds a queue of the user', async () => {
    const user = await world.register()
    const code = await world.newCode(user)
    const order: string[] = []
    const barrier = await holdLocks(
      db.database.reader,
      (tx) => tx`select 1 from device_locks where device_key = ${user.caller.deviceKey} for no key update`,
    )
    const linking = world.join(user, code).then(() => order.push('linked'))
    await barrier.waiting(1)
    order.push('sent')
    await barrier.release()
    await linking
    expect(order).toEqual(['sent', 'linked'])
  })

  test('fails whole when the event cannot be queued', async () => {
    const broken = await openWorld(db.database, {
      events: {
        enqueue: async () => {
          throw new Error('no room')
        },
      },
    })
    const user = await world.register()
    const code = await world.newCode(user)
    const request = enrolment(sibling(user.device), { purpose: 'link', linkCode: code })
    await expect(broken.devices.link(user.caller.userId, { linkCode: code }, request, NOW)).rejects.toThrow('no room')
    expect(await world.numbers(user)).toEqual([1])
    await world.join(user, code)
  })
})

describe('link codes', () => {
  test('are made by the primary only', async () => {
    const user = await world.register()
    const linked = await world.link(user)
    await expect(world.devices.linkCode(linked.caller, NOW)).rejects.toEqual(refusal('FORBIDDEN'))
  })

  test('are not made for a device that is gone though it was seen a moment ago', async () => {
    const user = await world.register()
    await expect(world.devices.linkCode({ ...user.caller, deviceKey: 1e9 }, NOW)).rejects.toEqual(
      refusal('UNAUTHENTICATED'),
    )
  })

  test('are few: one too many voids the oldest', async () => {
    const user = await world.register()
    const codes = []
    for (let i = 0; i <= LINK_CODES_MAX_LIVE; i++) codes.push(await world.newCode(user, NOW + i))
    await expect(world.join(user, codes[0]!)).rejects.toEqual(refusal('FORBIDDEN'))
    for (const code of codes.slice(1)) await world.join(user, code)
  })

  test('have 128 bits and are stored hashed', async () => {
    const user = await world.register()
    const code = await world.newCode(user)
    expect(Buffer.from(code, 'base64url')).toHaveLength(16)
    const rows = JSON.stringify(await world.sql`select link_codes::text from link_codes`)
    expect(rows).not.toContain(code)
    expect(rows).not.toContain(Buffer.from(code).toString('hex'))
    expect(rows).not.toContain(Buffer.from(code, 'base64url').toString('hex'))
  })
})

describe('an outside issuer', () => {
  test('vouches for registration and for linking of its own subject', async () => {
    const issuer = await startOutsideIssuer(NOW)
    const guarded = await openWorld(db.database, { registration: 'issuer', outside: issuer.config })
    const register = (device: TestDevice, outsideToken: string | null) =>
      guarded.accounts.register(enrolment(device), { invitation: null, outsideToken }, NOW)

    const device = new TestDevice()
    await expect(register(device, null)).rejects.toEqual(refusal('UNAUTHENTICATED'))
    await expect(register(device, await issuer.sign({ aud: 'other' }))).rejects.toEqual(refusal('UNAUTHENTICATED'))
    const { userId } = await register(device, await issuer.sign())
    await expect(register(new TestDevice(), await issuer.sign())).rejects.toEqual(refusal('CONFLICT', /subject/))

    const link = (outsideToken: string) =>
      guarded.devices.link(userId, { outsideToken }, enrolment(sibling(device), { purpose: 'link' }), NOW)
    await expect(link(await issuer.sign({ sub: 'person-2' }))).rejects.toEqual(refusal('FORBIDDEN'))
    await expect(link('x.y.z')).rejects.toEqual(refusal('UNAUTHENTICATED'))
    expect(await link(await issuer.sign())).toMatchObject({ userId, deviceId: 2 })
    // Where none is configured, its tokens open nothing.
    const token = await issuer.sign()
    const request = enrolment(sibling(device), { purpose: 'link' })
    await expect(world.devices.link(userId, { outsideToken: token }, request, NOW)).rejects.toEqual(
      refusal('UNAUTHENTICATED'),
    )
    issuer.close()
  })
})

describe('over HTTP', () => {
  test('a device is linked, listed and unlinked', async () => {
    const user = await world.register()
    const routes = deviceRoutes({ devices: world.devices })
    const as = (caller: Caller) => ({ caller, nowMs: NOW })
    const answer = await callRoute(routes, 'POST', '/v1/devices/link-code', as(user.caller))
    expect(answer).toEqual({
      status: 201,
      headers: { 'Cache-Control': 'no-store' },
      body: { link_code: expect.any(String), expires_at_ms: NOW + LINK_CODE_TTL_MS },
    })
    const { link_code } = answer.body as { link_code: string }
    const device = sibling(user.device)
    const linking = { linkCode: link_code, userId: user.caller.userId, nowMs: NOW, name: 'Ann’s laptop' }
    const body = enrolmentJson(device, REALM, linking)
    const unlinkable = { ...body, link_code: undefined }
    await expect(callRoute(routes, 'POST', '/v1/devices', { body: unlinkable, nowMs: NOW })).rejects.toEqual(
      refusal('FORBIDDEN', /link_code/),
    )
    expect(await callRoute(routes, 'POST', '/v1/devices', { body, nowMs: NOW })).toEqual({
      status: 201,
      headers: { 'Cache-Control': 'no-store' },
      body: { user_id: user.caller.userId, device_id: 2, device_secret: expect.stringMatching(/^[\w-]{43}$/) },
    })
    expect(await callRoute(routes, 'GET', '/v1/devices', as(user.caller))).toEqual({
      status: 200,
      body: {
        devices: [
          { device_id: 1, registration_id: user.device.registrationId, name: '', created_at_ms: NOW },
          { device_id: 2, registration_id: device.registrationId, name: 'Ann’s laptop', created_at_ms: NOW },
        ],
      },
    })
    for (const bad of ['0', '128', '01', '1.5', 'x', '-1', '2 ']) {
      await expect(callRoute(routes, 'DELETE', `/v1/devices/${bad}`, as(user.caller)), bad).rejects.toEqual(
        refusal('INVALID_REQUEST', /device_id/),
      )
    }
    expect(await callRoute(routes, 'DELETE', '/v1/devices/2', as(user.caller))).toEqual({ status: 204 })
    expect(await world.numbers(user)).toEqual([1])
  })
})
