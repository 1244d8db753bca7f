import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { LINK_CODE_TTL_MS } from '../../proto/limits.ts'
import type { Caller } from '../../proto/route.ts'
import { deviceRoutes } from '../../server/http/devices.ts'
import { LINK_CODES_MAX_LIVE } from '../../server/linkcodes.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { TestDevice } from '../support/keys.ts'
import { holdLocks } from './barrier.ts'
import { startOutsideIssuer } from './outside-issuer.ts'
import { enrolment, enrolmentJson, NOW, openWorld, sibling, type World } from './relay-world.ts'
import { callRoute } from './routes.ts'

type User = Awaited<ReturnType<World['register']>>

const refusal = (code: string, message?: RegExp) =>
  expect.objectContaining({ code, ...(message && { message: expect.stringMatching(message) }) })

let db: TestDatabase
let world: World
beforeAll(async () => {
  db = await testDatabase()
  world = await openWorld(db.database)
})
afterAll(() => db?.close())

/** Asks to be let in with this code, as a client does. */
function join(user: User, code: string, more: { device?: TestDevice; nowMs?: number; codeInProof?: string } = {}) {
  const { device = sibling(user.device), nowMs = NOW, codeInProof = code } = more
  const request = enrolment(device, { purpose: 'link', linkCode: codeInProof, timestampMs: nowMs })
  return world.devices.link(user.caller.userId, { linkCode: code }, request, nowMs)
}
const newCode = async (user: User, nowMs = NOW) => (await world.devices.linkCode(user.caller, nowMs)).code
const numbers = async (user: User) => (await world.devices.list(user.caller)).map((device) => device.deviceId)

/** Rows of one device in every table that knows it. */
async function footprint({ deviceKey, userId, deviceId }: Caller) {
  const [row] = await world.sql`select
    (select count(*) from devices where device_key = ${deviceKey}) as device,
    (select count(*) from device_locks where device_key = ${deviceKey}) as lock,
    (select count(*) from device_sequences where device_key = ${deviceKey}) as sequence,
    (select count(*) from message_deliveries_waiting where device_key = ${deviceKey}) as waiting,
    (select count(*) from dead_letters where device_key = ${deviceKey}) as dead,
    (select count(*) from gaps where device_key = ${deviceKey}) as gaps,
    (select count(*) from keys.devices where device_key = ${deviceKey}) as key_device,
    (select count(*) from keys.signed_prekeys where device_key = ${deviceKey}) as signed,
    (select count(*) from keys.one_time_prekeys where device_key = ${deviceKey}) as one_time,
    (select count(*) from keys.kyber_prekeys where device_key = ${deviceKey}) as kyber,
    (select count(*) from retired_devices where user_id = ${userId} and device_id = ${deviceId}) as retired`
  return { ...row } as Record<string, number>
}
const ALIVE = { device: 1, lock: 1, sequence: 1, key_device: 1, signed: 1, one_time: 1, kyber: 2, retired: 0 }
const GONE = {
  ...{ device: 0, lock: 0, sequence: 0, waiting: 0, dead: 0, gaps: 0, key_device: 0, signed: 0, one_time: 0, kyber: 0 },
  retired: 1,
}

/** Something waiting, something dead and a gap: a queue that has seen life. */
async function fillQueue({ deviceKey }: Caller) {
  await world.sql`insert into message_deliveries_waiting (device_key, sequence, message_id, content)
    select ${deviceKey}, s, gen_random_uuid(), '\\x00' from generate_series(1, 50) s`
  await world.sql`insert into dead_letters (device_key, message_id, reason)
    values (${deviceKey}, gen_random_uuid(), 'overflow')`
  await world.sql`insert into gaps (device_key, overflowed) values (${deviceKey}, 1)`
}

/** As if all other numbers had been held before, 3 the longest ago. */
async function exhaustNumbers({ caller }: User) {
  await world.sql`insert into retired_devices (user_id, device_id, registration_id, retired_at)
    select ${caller.userId}, n, 7, ${new Date(NOW - 1e9)}::timestamptz + n * interval '1 second'
    from generate_series(3, 127) n`
}

describe('linking', () => {
  test('adds a device under the same identity, which then has its own token', async () => {
    const user = await world.register()
    const { device, enrolled, caller } = await world.link(user)
    expect(enrolled).toMatchObject({ userId: user.caller.userId, deviceId: 2 })
    expect(await footprint(caller)).toMatchObject({ ...ALIVE, waiting: 0 })
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
    const used = await newCode(user)
    await join(user, used)
    const nobody = { ...user, caller: { ...user.caller, userId: '6f1f6d0e-6c1b-4f5e-9a0e-0d9a5f3f6b01' } }
    const tries = await Promise.allSettled([
      join(user, used),
      join(user, 'guess'),
      join(user, ''),
      newCode(other).then((code) => join(user, code)),
      newCode(user).then((code) => join(user, code, { nowMs: NOW + LINK_CODE_TTL_MS })),
      newCode(user).then((code) => join(nobody, code)),
    ])
    for (const each of tries) expect(each).toEqual({ status: 'rejected', reason: refusal('FORBIDDEN') })
    expect(new Set(tries.map((each) => (each as PromiseRejectedResult).reason.message)).size).toBe(1)
    await join(user, await newCode(user), { nowMs: NOW + LINK_CODE_TTL_MS - 1 })
  })

  test('of two devices that race for one code, one gets in', async () => {
    const user = await world.register()
    const code = await newCode(user)
    const barrier = await holdLocks(
      db.database.reader,
      (tx) => tx`select 1 from accounts where user_id = ${user.caller.userId} for update`,
    )
    const racing = Promise.allSettled([join(user, code), join(user, code), join(user, code)])
    await barrier.waiting(3)
    await barrier.release()
    const tries = await racing
    expect(tries.filter((each) => each.status === 'fulfilled')).toHaveLength(1)
    for (const each of tries) if (each.status === 'rejected') expect(each.reason).toEqual(refusal('FORBIDDEN'))
    expect(await numbers(user)).toEqual([1, 2])
  })

  test('of many with codes of their own, all get in under different numbers', async () => {
    const user = await world.register()
    const codes = await Promise.all([1, 2, 3].map(() => newCode(user)))
    const linked = await Promise.all(codes.map((code) => join(user, code)))
    expect(linked.map((each) => each.deviceId).sort()).toEqual([2, 3, 4])
  })

  test('a proof made for another code, purpose or time is refused, and the code stays good', async () => {
    const user = await world.register()
    const code = await newCode(user)
    const first = await newCode(user)
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
    await join(user, code)
  })

  test('under another identity key is refused, and the code stays good', async () => {
    const user = await world.register()
    const code = await newCode(user)
    await expect(join(user, code, { device: new TestDevice() })).rejects.toEqual(
      refusal('INVALID_REQUEST', /identity_key/),
    )
    await join(user, code)
  })

  test('stops at ten devices, and the code stays good', async () => {
    const user = await world.register()
    const linked = []
    for (let i = 0; i < 9; i++) linked.push(await world.link(user))
    const code = await newCode(user)
    await expect(join(user, code)).rejects.toEqual(refusal('CONFLICT', /10 devices/))
    expect(await numbers(user)).toHaveLength(10)
    await world.devices.unlink(user.caller, 5, NOW)
    await join(user, code)
    expect(await numbers(user)).toEqual([1, 2, 3, 4, 6, 7, 8, 9, 10, 11])
  })

  test('waits for a send that holds a queue of the user', async () => {
    const user = await world.register()
    const code = await newCode(user)
    const order: string[] = []
    const barrier = await holdLocks(
      db.database.reader,
      (tx) => tx`select 1 from device_locks where device_key = ${user.caller.deviceKey} for no key update`,
    )
    const linking = join(user, code).then(() => order.push('linked'))
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
    const code = await newCode(user)
    const request = enrolment(sibling(user.device), { purpose: 'link', linkCode: code })
    await expect(broken.devices.link(user.caller.userId, { linkCode: code }, request, NOW)).rejects.toThrow('no room')
    expect(await numbers(user)).toEqual([1])
    await join(user, code)
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
    for (let i = 0; i <= LINK_CODES_MAX_LIVE; i++) codes.push(await newCode(user, NOW + i))
    await expect(join(user, codes[0]!)).rejects.toEqual(refusal('FORBIDDEN'))
    for (const code of codes.slice(1)) await join(user, code)
  })

  test('have 128 bits and are stored hashed', async () => {
    const user = await world.register()
    const code = await newCode(user)
    expect(Buffer.from(code, 'base64url')).toHaveLength(16)
    const rows = JSON.stringify(await world.sql`select link_codes::text from link_codes`)
    expect(rows).not.toContain(code)
    expect(rows).not.toContain(Buffer.from(code).toString('hex'))
    expect(rows).not.toContain(Buffer.from(code, 'base64url').toString('hex'))
  })
})

describe('device numbers', () => {
  test('are not given again while unused ones are left', async () => {
    const user = await world.register()
    const { enrolled } = await world.link(user)
    await world.devices.unlink(user.caller, enrolled.deviceId, NOW)
    expect((await world.link(user)).enrolled.deviceId).toBe(3)
  })

  test('once all were used, the one free for longest comes back, not under its predecessor’s registration id', async () => {
    const user = await world.register()
    const old = await world.link(user)
    await exhaustNumbers(user)
    await world.devices.unlink(user.caller, 2, NOW)
    expect((await world.link(user)).enrolled.deviceId).toBe(3)
    await world.sql`update retired_devices set retired_at = ${new Date(NOW - 2e9)}
      where user_id = ${user.caller.userId} and device_id = 2`
    const same = sibling(user.device, old.device.registrationId)
    const code = await newCode(user)
    await expect(join(user, code, { device: same })).rejects.toEqual(refusal('INVALID_REQUEST', /registration_id/))
    const other = sibling(user.device, (old.device.registrationId % 16383) + 1)
    expect((await join(user, code, { device: other })).deviceId).toBe(2)
  })

  test('an old token, secret or caller never speaks for the device that has its number now', async () => {
    const user = await world.register()
    const old = await world.link(user)
    const { token } = await world.tokens.issue(old.caller, NOW)
    expect(await world.identity.authenticate(token, NOW)).toEqual(old.caller)
    await exhaustNumbers(user)
    await fillQueue(old.caller)
    await world.devices.unlink(user.caller, 2, NOW)
    await world.sql`update retired_devices set retired_at = ${new Date(NOW - 2e9)}
      where user_id = ${user.caller.userId} and device_id = 2`
    const next = await world.link(user)
    expect(next.caller).toMatchObject({ deviceId: 2 })
    expect(next.caller.deviceKey).not.toBe(old.caller.deviceKey)
    await expect(world.identity.authenticate(token, NOW)).rejects.toEqual(refusal('UNAUTHENTICATED'))
    // A node that looked the old device up a moment ago.
    await expect(world.devices.unlink(old.caller, 2, NOW)).rejects.toEqual(refusal('UNAUTHENTICATED'))
    // The predecessor's mail stays its own.
    expect(await footprint(next.caller)).toMatchObject({ device: 1, waiting: 0, dead: 0, gaps: 0 })
  })
})

describe('unlinking', () => {
  test('takes row, keys and queue, voids the token, closes the connection and tells the others', async () => {
    const user = await world.register()
    const [gone, stays] = [await world.link(user), await world.link(user)]
    await fillQueue(gone.caller)
    const { token } = await world.tokens.issue(gone.caller, NOW)
    await world.identity.authenticate(token, NOW)
    world.fannedOut.length = 0
    world.unlinked.length = 0

    await world.devices.unlink(user.caller, gone.caller.deviceId, NOW)
    expect(await footprint(gone.caller)).toEqual(GONE)
    expect(await numbers(user)).toEqual([1, 3])
    expect(world.unlinked).toEqual([gone.caller.deviceKey])
    expect(world.fannedOut.map((each) => each.deviceKey)).toEqual([user.caller.deviceKey, stays.caller.deviceKey])
    await expect(world.identity.authenticate(token, NOW)).rejects.toEqual(refusal('UNAUTHENTICATED'))
  })

  test('leaves the neighbours’ keys and queues alone', async () => {
    const user = await world.register()
    const [gone, stays] = [await world.link(user), await world.link(user)]
    await fillQueue(stays.caller)
    await world.devices.unlink(user.caller, gone.caller.deviceId, NOW)
    expect(await footprint(stays.caller)).toEqual({ ...ALIVE, waiting: 51, dead: 1, gaps: 1 })
  })

  test('killed midway changes nothing', async () => {
    const user = await world.register()
    const linked = await world.link(user)
    await fillQueue(linked.caller)
    const before = await footprint(linked.caller)
    world.unlinked.length = 0
    // Its last write waits; by then rows, keys and queue are deleted in its transaction.
    const barrier = await holdLocks(db.database.reader, (tx) => tx`lock table retired_devices in exclusive mode`)
    const unlinking = world.devices.unlink(user.caller, linked.caller.deviceId, NOW).catch((error) => error)
    const [pid] = await barrier.waiting(1)
    await db.database.writer`select pg_cancel_backend(${pid!})`
    expect(await unlinking).toMatchObject({ code: '57014' })
    await barrier.release()
    expect(await footprint(linked.caller)).toEqual(before)
    expect(before).toEqual({ ...ALIVE, waiting: 50, dead: 1, gaps: 1 })
    expect(world.unlinked).toEqual([])
    await world.devices.unlink(user.caller, linked.caller.deviceId, NOW)
    expect(await footprint(linked.caller)).toEqual(GONE)
  })

  test('is the primary’s right over others, a linked device’s over itself, and nobody’s over the primary', async () => {
    const user = await world.register()
    const [second, third] = [await world.link(user), await world.link(user)]
    await expect(world.devices.unlink(second.caller, 3, NOW)).rejects.toEqual(refusal('FORBIDDEN'))
    await expect(world.devices.unlink(second.caller, 1, NOW)).rejects.toEqual(refusal('FORBIDDEN'))
    await expect(world.devices.unlink(second.caller, 99, NOW)).rejects.toEqual(refusal('FORBIDDEN'))
    await expect(world.devices.unlink(user.caller, 1, NOW)).rejects.toEqual(refusal('FORBIDDEN', /primary/))
    await expect(world.devices.unlink(user.caller, 99, NOW)).rejects.toEqual(refusal('NOT_FOUND'))
    await world.devices.unlink(second.caller, 2, NOW)
    await world.devices.unlink(user.caller, third.caller.deviceId, NOW)
    expect(await numbers(user)).toEqual([1])
  })

  test('never touches another user', async () => {
    const [user, other] = [await world.register(), await world.register()]
    await world.link(other)
    await expect(world.devices.unlink(user.caller, 2, NOW)).rejects.toEqual(refusal('NOT_FOUND'))
    expect(await numbers(other)).toEqual([1, 2])
  })

  test('asked twice at once happens once', async () => {
    const user = await world.register()
    await world.link(user)
    const tries = await Promise.allSettled([1, 2, 3].map(() => world.devices.unlink(user.caller, 2, NOW)))
    expect(tries.filter((each) => each.status === 'fulfilled')).toHaveLength(1)
    for (const each of tries) if (each.status === 'rejected') expect(each.reason).toEqual(refusal('NOT_FOUND'))
  })

  test('and linking many at once ends in a consistent set without deadlock', async () => {
    const user = await world.register()
    for (let i = 0; i < 4; i++) await world.link(user)
    await Promise.all([
      ...[2, 3, 4, 5].map((deviceId) => world.devices.unlink(user.caller, deviceId, NOW)),
      ...[1, 2, 3].map(async () => join(user, await newCode(user))),
    ])
    const listed = await numbers(user)
    expect(listed).toEqual([1, 6, 7, 8])
    const [queues] = await world.sql`select count(*) from device_locks l join devices d using (device_key)
      join device_sequences using (device_key) where d.user_id = ${user.caller.userId}`
    expect(queues!.count).toBe(listed.length)
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
    const json = enrolmentJson(enrolment(device, { purpose: 'link', linkCode: link_code, name: 'Ann’s laptop' }))
    const body = { ...json, user_id: user.caller.userId, link_code }
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
    expect(await numbers(user)).toEqual([1])
  })
})
