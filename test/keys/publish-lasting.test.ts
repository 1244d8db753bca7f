// Uploads of signed and last-resort keys, replacement of a lost store, and how long what left is remembered: [K-2.4] [K-2.6] [K-3.1] [K-8].
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openWorld, stranger, upload, type World } from './world.ts'

let world: World
beforeAll(async () => {
  world = await openWorld()
})
afterAll(() => world.close())

const DAY = 24 * 3600 * 1000

test('signed prekey: the same again changes nothing, a lower or equal id is CONFLICT, a higher one is served', async () => {
  const caller = await world.enrol({ keys: (device) => ({ signedPrekey: device.makeSignedPrekey(5) }) })
  const { device } = caller
  const bornMs = world.clock.nowMs
  const [stored] = await world.sql`select public_key from keys.signed_prekeys where device_key = ${caller.deviceKey}`
  const publicKey = Uint8Array.from(stored!.public_key)
  world.clock.nowMs += 3 * DAY
  // Signatures are randomised: the same key comes with another one.
  const again = { keyId: 5, publicKey, signature: device.sign(publicKey) }
  const counts = await world.directory.publish(caller, upload({ signedPrekey: again }))
  expect(counts.signedPrekey).toEqual({ keyId: 5, createdAtMs: bornMs })
  await world.refused(caller, { signedPrekey: device.makeSignedPrekey(5) }, 'CONFLICT', /5 is not above the stored 5/)
  await world.refused(caller, { signedPrekey: device.makeSignedPrekey(4) }, 'CONFLICT', /4 is not above the stored 5/)
  await world.refused(caller, { signedPrekey: { ...again, keyId: 6 } }, 'CONFLICT', /already published under key_id 5/)
  const next = device.makeSignedPrekey(6)
  const rotated = await world.directory.publish(caller, upload({ signedPrekey: next }))
  expect(rotated.signedPrekey).toEqual({ keyId: 6, createdAtMs: world.clock.nowMs })
  const bundle = await world.claim(caller)
  expect(Uint8Array.from(bundle.signedPrekey.publicKey)).toEqual(next.publicKey)
})

test('last-resort key: used survives the same upload, a new key starts unused, a lower id is CONFLICT', async () => {
  const caller = await world.enrol({ keys: (device) => ({ signedPrekey: device.makeSignedPrekey(1) }) })
  const { device } = caller
  const lastResortKyberPrekey = device.makeLastResort(5)
  const publish = (key: typeof lastResortKyberPrekey) =>
    world.directory.publish(caller, upload({ lastResortKyberPrekey: key }))
  const bornMs = world.clock.nowMs
  expect((await publish(lastResortKyberPrekey)).lastResort?.used).toBe(false)
  await world.claim(caller)
  world.clock.nowMs += DAY
  const resigned = { ...lastResortKyberPrekey, signature: device.sign(lastResortKyberPrekey.publicKey) }
  expect((await publish(resigned)).lastResort).toEqual({ keyId: 5, createdAtMs: bornMs, used: true })
  await world.refused(
    caller,
    { lastResortKyberPrekey: device.makeLastResort(4) },
    'CONFLICT',
    /4 is not above the stored 5/,
  )
  await world.refused(
    caller,
    { lastResortKyberPrekey: { ...lastResortKyberPrekey, keyId: 6 } },
    'CONFLICT',
    /under key_id 5/,
  )
  expect((await publish(device.makeLastResort(6))).lastResort).toEqual({
    ...{ keyId: 6, createdAtMs: world.clock.nowMs, used: false },
  })
})

test('a signed or last-resort key of another device is refused', async () => {
  const alice = await world.enrol()
  const signedPrekey = alice.device.makeSignedPrekey(7)
  const lastResortKyberPrekey = alice.device.makeLastResort(1007)
  await world.directory.publish(alice, upload({ signedPrekey, lastResortKyberPrekey }))
  const mallory = await world.enrol()
  const stolen = { ...signedPrekey, signature: mallory.device.sign(signedPrekey.publicKey) }
  await world.refused(
    mallory,
    { signedPrekey: stolen },
    'CONFLICT',
    /^signed_prekey\.public_key is held by another device/,
  )
  const stolenLast = { ...lastResortKyberPrekey, signature: mallory.device.sign(lastResortKyberPrekey.publicKey) }
  await world.refused(
    mallory,
    { lastResortKyberPrekey: stolenLast },
    'CONFLICT',
    /^last_resort.* held by another device/,
  )
})

test('replace voids the stock and stores the upload; what left keeps its id', async () => {
  const caller = await world.enrol()
  const { device } = caller
  await world.directory.publish(
    caller,
    upload({ oneTimePrekeys: device.makeOneTimePrekeys(3), oneTimeKyberPrekeys: device.makeKyberPrekeys(3) }),
  )
  await world.claim(caller)
  const signedPrekey = device.makeSignedPrekey(2)
  await world.refused(caller, { replace: true, oneTimePrekeys: [] }, 'INVALID_REQUEST', /replace needs one/)
  await world.refused(
    caller,
    { replace: true, signedPrekey, registrationId: 16384 },
    'INVALID_REQUEST',
    /registration_id/,
  )
  const left = device.makeOneTimePrekeys(1, 0)
  await world.refused(caller, { replace: true, signedPrekey, oneTimePrekeys: left }, 'CONFLICT', /key_id 0 is already/)

  const fresh = upload({
    ...{ replace: true, registrationId: 99, signedPrekey },
    oneTimePrekeys: device.makeOneTimePrekeys(2, 2),
    oneTimeKyberPrekeys: device.makeKyberPrekeys(1, 2),
  })
  const counts = await world.directory.publish(caller, fresh)
  expect(counts.oneTime).toEqual({ count: 2, oldestId: 2, highestId: 3 })
  expect(counts.kyberOneTime).toEqual({ count: 1, oldestId: 2, highestId: 1000 })
  const bundle = await world.claim(caller)
  expect(bundle).toMatchObject({
    registrationId: 99,
    signedPrekey: { keyId: 2 },
    oneTimePrekey: { keyId: 2 },
  })

  // The answer was lost: the same replace again brings back nothing that left since.
  const again = await world.directory.publish(caller, fresh)
  expect(again.oneTime).toEqual({ count: 1, oldestId: 3, highestId: 3 })
  expect(again.kyberOneTime.count).toBe(0)
})

test('a registration id without replace is not read', async () => {
  const caller = await world.enrol({ registrationId: 11 })
  await world.directory.publish(caller, upload({ registrationId: 12 }))
  const bundle = await world.claim(caller)
  expect(bundle.registrationId).toBe(11)
})

test('what left is remembered for a year', async () => {
  const caller = await world.enrol()
  const key = caller.device.makeOneTimePrekeys(1)
  const publish = () => world.directory.publish(caller, upload({ oneTimePrekeys: key }))
  await publish()
  await world.drain(caller)
  world.clock.nowMs += 365 * DAY
  expect((await publish()).oneTime.count).toBe(0)
  world.clock.nowMs += 1
  expect((await publish()).oneTime.count).toBe(1)
})

test('a device that is gone: NOT_FOUND', async () => {
  await expect(world.directory.publish(stranger(), upload({}))).rejects.toMatchObject({ code: 'NOT_FOUND' })
  await expect(world.directory.counts(stranger().deviceKey)).rejects.toMatchObject({ code: 'NOT_FOUND' })
  await expect(world.directory.check(stranger(), new Uint8Array(32))).rejects.toMatchObject({ code: 'NOT_FOUND' })
})
