// A device's first keys, its removal, and the void after a restore: inside the caller's transaction.
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { verifyKeys } from '../../keys/verify.ts'
import { TestDevice } from '../support/keys.ts'
import { NO_KEYS, openWorld, stranger, upload, type World } from './world.ts'

let world: World
beforeAll(async () => {
  world = await openWorld()
})
afterAll(() => world.close())

let nextKey = 1_000_000

async function enrol(device: TestDevice, where: { userId: string; deviceId?: number; registrationId?: number }) {
  const keys = await verifyKeys(device.identityKey, { ...NO_KEYS, signedPrekey: device.makeSignedPrekey(1) })
  const row = { deviceKey: nextKey++, deviceId: 1, registrationId: 1, ...where }
  await world.sql.begin((tx) => world.directory.enrol(tx, row, keys))
  return row
}

const countOf = async (table: string): Promise<number> =>
  (await world.sql`select from ${world.sql(`keys.${table}`)}`).length

test('the first device brings the identity, the next one must have it', async () => {
  const device = new TestDevice()
  const userId = randomUUID()
  expect(await world.directory.identityOf(userId)).toBeNull()
  await enrol(device, { userId })
  expect(Uint8Array.from((await world.directory.identityOf(userId))!)).toEqual(device.identityKey)
  await enrol(new TestDevice({ identity: device.identity }), { userId, deviceId: 2 })
  await expect(enrol(new TestDevice(), { userId, deviceId: 3 })).rejects.toMatchObject({
    ...{ code: 'INVALID_REQUEST', message: "identity_key is not the user's" },
  })
})

test('one account per identity key, also when both register at once', async () => {
  const device = new TestDevice()
  const attempts = Array.from({ length: 6 }, () => enrol(device, { userId: randomUUID() }))
  const outcomes = await Promise.allSettled(attempts)
  expect(outcomes.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(1)
  for (const outcome of outcomes)
    if (outcome.status === 'rejected')
      expect(outcome.reason).toMatchObject({ code: 'CONFLICT', message: expect.stringMatching('another account') })
})

test('an address in use is CONFLICT', async () => {
  const device = new TestDevice()
  const { userId } = await enrol(device, { userId: randomUUID() })
  await expect(enrol(device, { userId })).rejects.toMatchObject({ code: 'CONFLICT', message: /device id is in use/ })
})

test('refused: no signed prekey, a registration id out of range, a signed prekey of another device; nothing stays', async () => {
  const device = new TestDevice()
  const before = [await countOf('identities'), await countOf('devices')]
  const row = { deviceKey: nextKey++, userId: randomUUID(), deviceId: 1, registrationId: 1 }
  const bare = await verifyKeys(device.identityKey, NO_KEYS)
  const full = await verifyKeys(device.identityKey, { ...NO_KEYS, signedPrekey: device.makeSignedPrekey(1) })
  const attempt = (given: typeof row, keys: typeof bare) =>
    expect(world.sql.begin((tx) => world.directory.enrol(tx, given, keys))).rejects
  await attempt(row, bare).toMatchObject({ code: 'INVALID_REQUEST', message: 'signed_prekey is missing' })
  for (const registrationId of [0, 16384, 1.5])
    await attempt({ ...row, registrationId }, full).toMatchObject({ code: 'INVALID_REQUEST' })
  expect([await countOf('identities'), await countOf('devices')]).toEqual(before)

  await world.sql.begin((tx) => world.directory.enrol(tx, row, full))
  const thief = new TestDevice()
  const publicKey = Uint8Array.from(full.signedPrekey!.publicKey)
  const stolen = { keyId: 1, publicKey, signature: thief.sign(publicKey) }
  const keys = await verifyKeys(thief.identityKey, { ...NO_KEYS, signedPrekey: stolen })
  const taken = { ...row, deviceKey: nextKey++, userId: randomUUID() }
  await attempt(taken, keys).toMatchObject({ code: 'CONFLICT', message: /signed_prekey.*another device/ })
  expect(await world.directory.identityOf(taken.userId)).toBeNull()
})

test('an enrolment whose transaction fails leaves nothing', async () => {
  const device = new TestDevice()
  const keys = await verifyKeys(device.identityKey, { ...NO_KEYS, signedPrekey: device.makeSignedPrekey(1) })
  const row = { deviceKey: nextKey++, userId: randomUUID(), deviceId: 1, registrationId: 1 }
  const failing = world.sql.begin(async (tx) => {
    await world.directory.enrol(tx, row, keys)
    throw new Error('the rest failed')
  })
  await expect(failing).rejects.toThrow('the rest failed')
  expect(await world.directory.identityOf(row.userId)).toBeNull()
})

test('removal deletes keys and tombstones; the relinked device starts afresh', async () => {
  const first = await world.enrol()
  const { device } = first
  const keys = upload({ oneTimePrekeys: device.makeOneTimePrekeys(3), oneTimeKyberPrekeys: device.makeKyberPrekeys(3) })
  await world.directory.publish(first, keys)
  await world.directory.bundles(stranger(), [{ userId: first.userId, deviceId: 1 }])
  await world.sql.begin((tx) => world.directory.remove(tx, [first.deviceKey]))
  for (const table of ['devices', 'signed_prekeys', 'one_time_prekeys', 'kyber_prekeys', 'tombstones', 'highest_ids']) {
    const left = await world.sql`select from ${world.sql(`keys.${table}`)} where device_key = ${first.deviceKey}`
    expect(left, table).toHaveLength(0)
  }
  expect(await world.directory.bundles(stranger(), [{ userId: first.userId, deviceId: '*' }])).toEqual([])
  await world.sql.begin((tx) => world.directory.remove(tx, [first.deviceKey]))
  const relinked = await enrol(device, { userId: first.userId })
  expect(await world.directory.counts(relinked.deviceKey)).toMatchObject({
    ...{ oneTime: { count: 0, oldestId: null, highestId: null }, signedPrekey: { keyId: 1 } },
  })
})

test('after a restore: all one-time keys are void, uploading them again does not bring them back, lasting keys stay', async () => {
  const callers = [await world.enrol(), await world.enrol()]
  const uploads = callers.map(({ device }) =>
    upload({ oneTimePrekeys: device.makeOneTimePrekeys(4), oneTimeKyberPrekeys: device.makeKyberPrekeys(4) }),
  )
  for (const [at, caller] of callers.entries()) await world.directory.publish(caller, uploads[at]!)
  await world.directory.bundles(stranger(), [{ userId: callers[0]!.userId, deviceId: 1 }])
  expect(await world.sql.begin((tx) => world.directory.voidAll(tx))).toBe(14)
  for (const [at, caller] of callers.entries()) {
    const again = await world.directory.publish(caller, uploads[at]!)
    expect([again.oneTime.count, again.kyberOneTime.count]).toEqual([0, 0])
    expect([again.oneTime.highestId, again.kyberOneTime.highestId]).toEqual([3, 1000])
    const [user] = await world.directory.bundles(stranger(), [{ userId: caller.userId, deviceId: 1 }])
    expect(user!.devices[0]).toMatchObject({ oneTimePrekey: null, kyberPrekey: { keyId: 1000 } })
    const fresh = { oneTimePrekeys: caller.device.makeOneTimePrekeys(2, 4) }
    expect((await world.directory.publish(caller, upload(fresh))).oneTime.count).toBe(2)
  }
})
