// Bundles: [K-4], [K-6], [K-7], and a libsignal session opened from them.
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Counts, Target } from '../../keys/prekeys.ts'
import { keyDigest } from '../../keys/verify.ts'
import { PREKEY, TestDevice } from '../support/keys.ts'
import { type Enrolled, openWorld, stranger, upload, type World } from './world.ts'

let world: World
beforeAll(async () => {
  world = await openWorld()
})
afterAll(() => world.close())

async function stocked(ec: number, kyber: number): Promise<Enrolled> {
  const caller = await world.enrol()
  const { device } = caller
  await world.directory.publish(
    caller,
    upload({ oneTimePrekeys: device.makeOneTimePrekeys(ec), oneTimeKyberPrekeys: device.makeKyberPrekeys(kyber) }),
  )
  return caller
}

test('first in, first out: by upload and place in it, not by id', async () => {
  const caller = await world.enrol()
  const { device } = caller
  const ec = [50, 7, 30].flatMap((id) => device.makeOneTimePrekeys(1, id))
  const kyber = [50, 7, 30].flatMap((id) => device.makeKyberPrekeys(1, id))
  await world.directory.publish(caller, upload({ oneTimePrekeys: ec, oneTimeKyberPrekeys: kyber }))
  await world.directory.publish(
    caller,
    upload({ oneTimePrekeys: device.makeOneTimePrekeys(1, 1), oneTimeKyberPrekeys: device.makeKyberPrekeys(1, 1) }),
  )
  expect((await world.directory.counts(caller.deviceKey)).oneTime).toEqual({ count: 4, oldestId: 50, highestId: 50 })
  const got = []
  for (let i = 0; i < 4; i++) got.push(await world.claim(caller))
  expect(got.map((bundle) => bundle.oneTimePrekey?.keyId)).toEqual([50, 7, 30, 1])
  expect(got.map((bundle) => bundle.kyberPrekey?.keyId)).toEqual([50, 7, 30, 1])
  expect(got.map((bundle) => Uint8Array.from(bundle.oneTimePrekey!.publicKey)).slice(0, 3)).toEqual(
    ec.map((key) => key.publicKey),
  )
})

test('a Kyber one-time key leaves once, then the last-resort key, each time, and its owner is told', async () => {
  const caller = await stocked(0, 1)
  const lastResort = async () => (await world.directory.counts(caller.deviceKey)).lastResort
  expect((await world.claim(caller)).kyberPrekey?.keyId).toBe(0)
  expect((await lastResort())?.used).toBe(false)
  for (let i = 0; i < 3; i++) {
    expect((await world.claim(caller)).kyberPrekey?.keyId).toBe(1000)
    expect((await lastResort())?.used).toBe(true)
  }
})

test('highest id and explicit zero survive claims', async () => {
  const caller = await stocked(3, 2)
  for (let i = 0; i < 5; i++) await world.claim(caller)
  const counts = await world.directory.counts(caller.deviceKey)
  expect(counts.oneTime).toEqual({ count: 0, oldestId: null, highestId: 2 })
  expect(counts.kyberOneTime).toEqual({ count: 0, oldestId: null, highestId: 1000 })
})

test('X3DH-only devices are served without Kyber', async () => {
  const caller = await world.enrol({
    keys: (device) => ({ signedPrekey: device.makeSignedPrekey(1), oneTimePrekeys: device.makeOneTimePrekeys(1) }),
  })
  expect(await world.claim(caller)).toMatchObject({ oneTimePrekey: { keyId: 0 }, kyberPrekey: null })
  expect(await world.claim(caller)).toMatchObject({ oneTimePrekey: null, kyberPrekey: null })
})

test('a device without a signed prekey has no bundle and loses nothing', async () => {
  const first = await stocked(3, 3)
  const second = await world.enrol({ of: first })
  await world.directory.publish(second, upload({ oneTimePrekeys: second.device.makeOneTimePrekeys(3) }))
  await world.sql`delete from keys.signed_prekeys where device_key = ${first.deviceKey}`
  const ask = (target: Target) => world.directory.bundles(stranger(), [target])
  expect(await ask({ userId: first.userId, deviceId: 1 })).toEqual([])
  const [user] = await ask({ userId: first.userId, deviceId: '*' })
  expect(user!.devices.map((device) => device.deviceId)).toEqual([2])
  expect((await world.directory.counts(first.deviceKey)).oneTime.count).toBe(3)
  expect((await world.directory.counts(first.deviceKey)).kyberOneTime.count).toBe(3)
  expect((await world.directory.counts(second.deviceKey)).oneTime.count).toBe(2)
})

test('* is every device of the user, ascending; of oneself, the others', async () => {
  const first = await world.enrol({ registrationId: 1 })
  const third = await world.enrol({ of: first, deviceId: 3, registrationId: 3 })
  await world.enrol({ of: first, deviceId: 2, registrationId: 2 })
  const [user] = await world.directory.bundles(stranger(), [{ userId: first.userId, deviceId: '*' }])
  expect(user!.devices.map((device) => [device.deviceId, device.registrationId])).toEqual([
    [1, 1],
    [2, 2],
    [3, 3],
  ])
  expect(Uint8Array.from(user!.identityKey)).toEqual(first.device.identityKey)
  const [own] = await world.directory.bundles(third, [{ userId: third.userId, deviceId: '*' }])
  expect(own!.devices.map((device) => device.deviceId)).toEqual([1, 2])
})

test('unknown users and devices are left out, and alone they are nothing', async () => {
  const known = await stocked(1, 1)
  const unknown: Target[] = [
    { userId: randomUUID(), deviceId: 1 },
    { userId: known.userId, deviceId: 9 },
    { userId: randomUUID(), deviceId: '*' },
  ]
  for (const target of unknown) expect(await world.directory.bundles(stranger(), [target])).toEqual([])
  const users = await world.directory.bundles(stranger(), [...unknown, { userId: known.userId, deviceId: 1 }])
  expect(users.map((user) => user.userId)).toEqual([known.userId])
})

test('a list answers users in the order of the targets, each with its devices', async () => {
  const alice = await world.enrol()
  const bob = await world.enrol()
  await world.enrol({ of: alice })
  const users = await world.directory.bundles(stranger(), [
    { userId: bob.userId, deviceId: 1 },
    { userId: alice.userId, deviceId: 2 },
    { userId: alice.userId, deviceId: 1 },
  ])
  expect(users.map((user) => [user.userId, user.devices.map((device) => device.deviceId)])).toEqual([
    [bob.userId, [1]],
    [alice.userId, [1, 2]],
  ])
})

test('lists that make no sense are refused and cost nothing', async () => {
  const caller = await stocked(2, 2)
  const other = await stocked(2, 2)
  const target = { userId: other.userId, deviceId: 1 }
  const lists: [Target[], RegExp][] = [
    [[], /targets is empty/],
    [Array.from({ length: 101 }, () => ({ userId: randomUUID(), deviceId: 1 })), /more than 100/],
    [[target, { userId: caller.userId, deviceId: 1 }], /targets\[1\] is the device that asks/],
    [[target, target], /targets\[1\] is named twice/],
    [[target, { userId: other.userId, deviceId: '*' }], /targets\[1\] is named twice/],
    [[{ userId: other.userId, deviceId: '*' }, target], /targets\[1\] is named twice/],
  ]
  for (const [targets, message] of lists)
    await expect(world.directory.bundles(caller, targets)).rejects.toMatchObject({
      ...{ code: 'INVALID_REQUEST', message: expect.stringMatching(message) },
    })
  expect((await world.directory.counts(other.deviceKey)).oneTime.count).toBe(2)
})

test('100 targets at once', async () => {
  const targets = []
  for (let i = 0; i < 100; i++) targets.push(await world.enrol())
  const list = targets.map((target) => ({ userId: target.userId, deviceId: 1 }))
  const users = await world.directory.bundles(stranger(), list)
  expect(users.map((user) => user.userId)).toEqual(list.map((target) => target.userId))
})

test('KeysLow: told below 20 of a kind, by the claim that got there, and when the last-resort key left first', async () => {
  const told: [number, Counts][] = []
  const directory = world.open({ onStockLow: (deviceKey, counts) => told.push([deviceKey, counts]) })
  const caller = await stocked(22, 20)
  const ask = () => directory.bundles(stranger(), [{ userId: caller.userId, deviceId: 1 }])
  await ask()
  expect(told.map(([key, counts]) => [key, counts.oneTime.count, counts.kyberOneTime.count])).toEqual([
    [caller.deviceKey, 21, 19],
  ])
  told.length = 0
  for (let i = 0; i < 22; i++) await ask()
  expect(told.map(([, counts]) => counts.oneTime.count)).toEqual(Array.from({ length: 21 }, (_, i) => 20 - i))
  expect(told.at(-1)![1].lastResort?.used).toBe(true)
  told.length = 0
  await ask()
  expect(told).toEqual([])
})

test('KeysLow: claims that run side by side do not hide the shortage from each other', async () => {
  const told: Counts[] = []
  const directory = world.open({ onStockLow: (_key, counts) => told.push(counts) })
  const caller = await stocked(24, 24)
  const target = [{ userId: caller.userId, deviceId: 1 }]
  await Promise.all(Array.from({ length: 6 }, () => directory.bundles(stranger(), target)))
  expect(told.some((counts) => counts.oneTime.count === 18 && counts.kyberOneTime.count === 18)).toBe(true)
})

test('digest: matches what is stored, and nothing else', async () => {
  const caller = await stocked(1, 1)
  const { device, userId } = caller
  const [signed] =
    await world.sql`select key_id, public_key from keys.signed_prekeys where device_key = ${caller.deviceKey}`
  const [last] = await world.sql`
    select key_id, public_key from keys.kyber_prekeys where device_key = ${caller.deviceKey} and last_resort`
  const own = {
    ...{ userId, deviceId: 1, registrationId: 4711, identityKey: device.identityKey },
    signedPrekey: { keyId: signed!.key_id, publicKey: signed!.public_key },
    lastResortKyberPrekey: { keyId: last!.key_id, publicKey: last!.public_key },
  }
  expect(await world.directory.check(caller, keyDigest(own))).toBe(true)
  for (const other of [
    { deviceId: 2 },
    { registrationId: 1 },
    { lastResortKyberPrekey: null },
    { userId: randomUUID() },
  ])
    expect(await world.directory.check(caller, keyDigest({ ...own, ...other }))).toBe(false)
  await world.directory.publish(caller, upload({ signedPrekey: device.makeSignedPrekey(2) }))
  expect(await world.directory.check(caller, keyDigest(own))).toBe(false)
  await expect(world.directory.check(caller, new Uint8Array(31))).rejects.toMatchObject({ code: 'INVALID_REQUEST' })
})

test('digest of a device without a last-resort key', async () => {
  const made = new TestDevice()
  const signedPrekey = made.makeSignedPrekey(3)
  const caller = await world.enrol({
    keys: (device) => ({ signedPrekey: { ...signedPrekey, signature: device.sign(signedPrekey.publicKey) } }),
  })
  const { identityKey } = caller.device
  const own = { userId: caller.userId, deviceId: 1, registrationId: 4711, identityKey, signedPrekey }
  expect(await world.directory.check(caller, keyDigest({ ...own, lastResortKyberPrekey: null }))).toBe(true)
})

test.each([1, 0])('libsignal opens a session from a bundle with %i one-time keys of each kind', async (stock) => {
  const bob = await stocked(stock, stock)
  const alice = new TestDevice()
  alice.userId = randomUUID()
  const [user] = await world.directory.bundles(stranger(), [{ userId: bob.userId, deviceId: 1 }])
  const bundle = user!.devices[0]!
  expect(bundle.oneTimePrekey === null).toBe(stock === 0)
  await alice.startSession(bob.userId, { ...bundle, identityKey: user!.identityKey, kyberPrekey: bundle.kyberPrekey! })
  const { type, content } = await alice.encrypt(bob.userId, 1, Buffer.from('hello'))
  expect(type).toBe(PREKEY)
  const read = await bob.device.decrypt(alice.userId, 1, type, content)
  expect(Buffer.from(read).toString()).toBe('hello')
})
