// The end of a device and the reuse of its number: what goes, what stays, who may, on the real database.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { holdLocks } from './barrier.ts'
import { ALIVE, fillQueue, footprint, GONE } from './device-rows.ts'
import { NOW, openWorld, refusal, sibling, type World } from './relay-world.ts'

type User = Awaited<ReturnType<World['register']>>

let db: TestDatabase
let world: World
beforeAll(async () => {
  db = await testDatabase({ lockMs: 60_000 })
  world = await openWorld(db.database)
})
afterAll(() => db?.close())

/** As if all other numbers had been held before, 3 the longest ago. */
async function exhaustNumbers({ caller }: User) {
  await world.sql`insert into retired_devices (user_id, device_id, registration_id, retired_at)
    select ${caller.userId}, n, 7, ${new Date(NOW - 1e9)}::timestamptz + n * interval '1 second'
    from generate_series(3, 127) n`
}

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
    const code = await world.newCode(user)
    await expect(world.join(user, code, { device: same })).rejects.toEqual(
      refusal('INVALID_REQUEST', /registration_id/),
    )
    const other = sibling(user.device, (old.device.registrationId % 16383) + 1)
    expect((await world.join(user, code, { device: other })).deviceId).toBe(2)
  })

  test('an old token, secret or caller never speaks for the device that has its number now', async () => {
    const user = await world.register()
    const old = await world.link(user)
    const { token } = await world.tokens.issue(old.caller, NOW)
    expect(await world.identity.authenticate(token, NOW)).toEqual(old.caller)
    await exhaustNumbers(user)
    await fillQueue(world.sql, old.caller)
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
    expect(await footprint(world.sql, next.caller)).toMatchObject({ device: 1, waiting: 0, dead: 0, gaps: 0 })
  })
})

describe('unlinking', () => {
  test('takes row, keys and queue, voids the token, closes the connection and tells the others', async () => {
    const user = await world.register()
    const [gone, stays] = [await world.link(user), await world.link(user)]
    await fillQueue(world.sql, gone.caller)
    const { token } = await world.tokens.issue(gone.caller, NOW)
    await world.identity.authenticate(token, NOW)
    world.fannedOut.length = 0
    world.unlinked.length = 0

    await world.devices.unlink(user.caller, gone.caller.deviceId, NOW)
    expect(await footprint(world.sql, gone.caller)).toEqual(GONE)
    expect(await world.numbers(user)).toEqual([1, 3])
    expect(world.unlinked).toEqual([gone.caller.deviceKey])
    expect(world.fannedOut.map((each) => each.deviceKey)).toEqual([user.caller.deviceKey, stays.caller.deviceKey])
    await expect(world.identity.authenticate(token, NOW)).rejects.toEqual(refusal('UNAUTHENTICATED'))
  })

  test('leaves the neighbours’ keys and queues alone', async () => {
    const user = await world.register()
    const [gone, stays] = [await world.link(user), await world.link(user)]
    await fillQueue(world.sql, stays.caller)
    await world.devices.unlink(user.caller, gone.caller.deviceId, NOW)
    expect(await footprint(world.sql, stays.caller)).toEqual({ ...ALIVE, waiting: 51, dead: 1, gaps: 1 })
  })

  test('killed midway changes nothing', async () => {
    const user = await world.register()
    const linked = await world.link(user)
    await fillQueue(world.sql, linked.caller)
    const before = await footprint(world.sql, linked.caller)
    world.unlinked.length = 0
    // Its last write waits; by then rows, keys and queue are deleted in its transaction.
    const barrier = await holdLocks(db.database.reader, (tx) => tx`lock table retired_devices in exclusive mode`)
    const unlinking = world.devices.unlink(user.caller, linked.caller.deviceId, NOW).catch((error) => error)
    const [pid] = await barrier.waiting(1)
    await db.database.writer`select pg_cancel_backend(${pid!})`
    expect(await unlinking).toMatchObject({ code: '57014' })
    await barrier.release()
    expect(await footprint(world.sql, linked.caller)).toEqual(before)
    expect(before).toEqual({ ...ALIVE, waiting: 50, dead: 1, gaps: 1 })
    expect(world.unlinked).toEqual([])
    await world.devices.unlink(user.caller, linked.caller.deviceId, NOW)
    expect(await footprint(world.sql, linked.caller)).toEqual(GONE)
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
    expect(await world.numbers(user)).toEqual([1])
  })

  test('never touches another user', async () => {
    const [user, other] = [await world.register(), await world.register()]
    await world.link(other)
    await expect(world.devices.unlink(user.caller, 2, NOW)).rejects.toEqual(refusal('NOT_FOUND'))
    expect(await world.numbers(other)).toEqual([1, 2])
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
      ...[1, 2, 3].map(async () => world.join(user, await world.newCode(user))),
    ])
    const listed = await world.numbers(user)
    expect(listed).toEqual([1, 6, 7, 8])
    const [queues] = await world.sql`select count(*) from device_locks l join devices d using (device_key)
      join device_sequences using (device_key) where d.user_id = ${user.caller.userId}`
    expect(queues!.count).toBe(listed.length)
  })
})
