// Uploads: [K-2], [K-3], [K-8]. Every refusal leaves the directory as it was.
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Upload } from '../../keys/prekeys.ts'
import { TestDevice } from '../support/keys.ts'
import { type Enrolled, openWorld, stranger, upload, type World } from './world.ts'

let world: World
beforeAll(async () => {
  world = await openWorld()
})
afterAll(() => world.close())

const DAY = 24 * 3600 * 1000

/** All rows of a device, for "nothing changed". */
async function rowsOf({ deviceKey }: Enrolled): Promise<unknown> {
  const tables = ['devices', 'signed_prekeys', 'one_time_prekeys', 'kyber_prekeys', 'tombstones', 'highest_ids']
  return Promise.all(
    tables.map(async (table) => [
      ...(await world.sql`select * from ${world.sql(`keys.${table}`)} where device_key = ${deviceKey} order by 1, 2, 3`),
    ]),
  )
}

async function refused(caller: Enrolled, part: Partial<Upload>, code: string, message: RegExp): Promise<void> {
  const before = await rowsOf(caller)
  await expect(world.directory.publish(caller, upload(part))).rejects.toMatchObject({
    name: 'RelayError',
    code,
    message: expect.stringMatching(message),
  })
  expect(await rowsOf(caller)).toEqual(before)
}

/** Ids of the one-time keys handed out until there are none. */
async function drain(target: Enrolled): Promise<{ ec: number[]; kyber: number[] }> {
  const ec: number[] = []
  const kyber: number[] = []
  for (;;) {
    const [user] = await world.directory.bundles(stranger(), [{ userId: target.userId, deviceId: target.deviceId }])
    const bundle = user!.devices[0]!
    if (bundle.oneTimePrekey) ec.push(bundle.oneTimePrekey.keyId)
    const lastResort = bundle.kyberPrekey === null || bundle.kyberPrekey.keyId >= 1000
    if (!lastResort) kyber.push(bundle.kyberPrekey!.keyId)
    if (!bundle.oneTimePrekey && lastResort) return { ec, kyber }
  }
}

test('100 keys of each kind, and the answer counts them', async () => {
  const caller = await world.enrol()
  const counts = await world.directory.publish(
    caller,
    upload({
      oneTimePrekeys: caller.device.makeOneTimePrekeys(100, 1),
      oneTimeKyberPrekeys: caller.device.makeKyberPrekeys(100, 1),
    }),
  )
  expect(counts).toEqual({
    oneTime: { count: 100, oldestId: 1, highestId: 100 },
    kyberOneTime: { count: 100, oldestId: 1, highestId: 1000 },
    signedPrekey: { keyId: 1, createdAtMs: world.clock.nowMs },
    lastResort: { keyId: 1000, createdAtMs: world.clock.nowMs, used: false },
  })
})

test('zero is said, not left out', async () => {
  const caller = await world.enrol({ keys: (device) => ({ signedPrekey: device.makeSignedPrekey(1) }) })
  expect(await world.directory.counts(caller.deviceKey)).toEqual({
    oneTime: { count: 0, oldestId: null, highestId: null },
    kyberOneTime: { count: 0, oldestId: null, highestId: null },
    signedPrekey: { keyId: 1, createdAtMs: world.clock.nowMs },
    lastResort: null,
  })
})

test('101 keys of a kind are refused', async () => {
  const caller = await world.enrol()
  const { device } = caller
  await refused(
    caller,
    { oneTimePrekeys: device.makeOneTimePrekeys(101) },
    'INVALID_REQUEST',
    /one_time_prekeys has 101/,
  )
  const kyber = device.makeKyberPrekeys(101)
  await refused(caller, { oneTimeKyberPrekeys: kyber }, 'INVALID_REQUEST', /one_time_kyber_prekeys has 101/)
})

test('201 in stock: the whole upload is refused; 200 are taken', async () => {
  const caller = await world.enrol()
  const { device } = caller
  const publish = (part: Partial<Upload>) => world.directory.publish(caller, upload(part))
  await publish({ oneTimePrekeys: device.makeOneTimePrekeys(100, 0) })
  await publish({ oneTimePrekeys: device.makeOneTimePrekeys(99, 100) })
  const two = device.makeOneTimePrekeys(2, 199)
  await refused(caller, { oneTimePrekeys: two }, 'INVALID_REQUEST', /201 would be in stock/)
  const signedPrekey = device.makeSignedPrekey(2)
  await refused(caller, { signedPrekey, oneTimePrekeys: two }, 'INVALID_REQUEST', /201 would be in stock/)
  expect((await publish({ oneTimePrekeys: two.slice(0, 1) })).oneTime.count).toBe(200)
  expect((await publish({ oneTimePrekeys: two.slice(0, 1) })).oneTime.count).toBe(200)

  await publish({ oneTimeKyberPrekeys: device.makeKyberPrekeys(100, 0) })
  expect((await publish({ oneTimeKyberPrekeys: device.makeKyberPrekeys(100, 100) })).kyberOneTime.count).toBe(200)
  const one = device.makeKyberPrekeys(1, 200)
  await refused(caller, { oneTimeKyberPrekeys: one }, 'INVALID_REQUEST', /one_time_kyber_prekeys: 201 would be/)
})

test('a bad signature of each kind is refused by name, with nothing stored', async () => {
  const caller = await world.enrol()
  const { device } = caller
  const other = new TestDevice()
  const good = {
    signedPrekey: device.makeSignedPrekey(2),
    lastResortKyberPrekey: device.makeLastResort(1001),
    oneTimePrekeys: device.makeOneTimePrekeys(5),
    oneTimeKyberPrekeys: device.makeKyberPrekeys(30),
  }
  const names: [Partial<Upload>, RegExp][] = [
    [{ signedPrekey: other.makeSignedPrekey(2) }, /^signed_prekey\.signature does not verify/],
    [{ lastResortKyberPrekey: other.makeLastResort(1001) }, /^last_resort_kyber_prekey\.signature does not verify/],
    [
      { oneTimeKyberPrekeys: good.oneTimeKyberPrekeys.with(29, other.makeKyberPrekeys(1, 29)[0]!) },
      /^one_time_kyber_prekeys\[29\]\.signature does not verify/,
    ],
    [
      { oneTimePrekeys: good.oneTimePrekeys.with(3, { keyId: 3, publicKey: new Uint8Array(33).with(0, 5) }) },
      /^one_time_prekeys\[3\]\.public_key is not a canonical key/,
    ],
  ]
  for (const [bad, message] of names) await refused(caller, { ...good, ...bad }, 'INVALID_REQUEST', message)
})

test('empty lists and an empty upload wipe nothing', async () => {
  const caller = await world.enrol()
  await world.directory.publish(caller, upload({ oneTimePrekeys: caller.device.makeOneTimePrekeys(3) }))
  const before = await rowsOf(caller)
  expect((await world.directory.publish(caller, upload({}))).oneTime.count).toBe(3)
  expect(await rowsOf(caller)).toEqual(before)
})

test('ids 0 and 2^31 - 1 are ids like any other', async () => {
  const caller = await world.enrol({
    keys: (device) => ({ signedPrekey: device.makeSignedPrekey(0), lastResortKyberPrekey: device.makeLastResort(0) }),
  })
  const { device } = caller
  const largest = 2 ** 31 - 1
  const oneTimePrekeys = [...device.makeOneTimePrekeys(1, 0), ...device.makeOneTimePrekeys(1, largest)]
  const oneTimeKyberPrekeys = device.makeKyberPrekeys(1, largest)
  const counts = await world.directory.publish(caller, upload({ oneTimePrekeys, oneTimeKyberPrekeys }))
  expect(counts.oneTime).toEqual({ count: 2, oldestId: 0, highestId: largest })
  expect(counts.signedPrekey?.keyId).toBe(0)
  expect(counts.lastResort?.keyId).toBe(0)
  const target = [{ userId: caller.userId, deviceId: 1 }]
  const ids: (number | undefined)[] = []
  for (let i = 0; i < 3; i++) {
    const bundle = (await world.directory.bundles(stranger(), target))[0]!.devices[0]!
    expect(bundle.signedPrekey.keyId).toBe(0)
    ids.push(bundle.oneTimePrekey?.keyId, bundle.kyberPrekey?.keyId)
  }
  expect(ids).toEqual([0, largest, largest, 0, undefined, 0])
  expect((await world.directory.counts(caller.deviceKey)).oneTime).toEqual({
    count: 0,
    oldestId: null,
    highestId: largest,
  })
})

test('lost answer: upload, claim, the same upload again, claim: no key twice', async () => {
  const caller = await world.enrol()
  const { device } = caller
  const same = upload({
    signedPrekey: device.makeSignedPrekey(2),
    lastResortKyberPrekey: device.makeLastResort(1001),
    oneTimePrekeys: device.makeOneTimePrekeys(3),
    oneTimeKyberPrekeys: device.makeKyberPrekeys(3),
  })
  await world.directory.publish(caller, same)
  const target = [{ userId: caller.userId, deviceId: 1 }]
  const first = (await world.directory.bundles(stranger(), target))[0]!.devices[0]!
  const counts = await world.directory.publish(caller, same)
  expect([counts.oneTime.count, counts.kyberOneTime.count]).toEqual([2, 2])
  expect([first.oneTimePrekey?.keyId, first.kyberPrekey?.keyId]).toEqual([0, 0])
  expect(await drain(caller)).toEqual({ ec: [1, 2], kyber: [1, 2] })
  const after = await world.directory.publish(caller, same)
  expect([after.oneTime.count, after.kyberOneTime.count]).toEqual([0, 0])
  expect([after.oneTime.highestId, after.kyberOneTime.highestId]).toEqual([2, 1001])
})

test('same id, other key: CONFLICT, in stock and after it left', async () => {
  const caller = await world.enrol()
  const { device } = caller
  await world.directory.publish(
    caller,
    upload({ oneTimePrekeys: device.makeOneTimePrekeys(2), oneTimeKyberPrekeys: device.makeKyberPrekeys(2) }),
  )
  const ec = [...device.makeOneTimePrekeys(1, 7), ...device.makeOneTimePrekeys(1, 1)]
  const kyber = [...device.makeKyberPrekeys(1, 7), ...device.makeKyberPrekeys(1, 1)]
  const bothRefused = async () => {
    await refused(caller, { oneTimePrekeys: ec }, 'CONFLICT', /^one_time_prekeys\[1\]\.key_id 1 is already/)
    await refused(
      caller,
      { oneTimeKyberPrekeys: kyber },
      'CONFLICT',
      /^one_time_kyber_prekeys\[1\]\.key_id 1 is already/,
    )
  }
  await bothRefused()
  await drain(caller)
  await bothRefused()
})

test('same key, other id: CONFLICT, in stock and after it left', async () => {
  const caller = await world.enrol()
  const { device } = caller
  const ec = device.makeOneTimePrekeys(1)
  const kyber = device.makeKyberPrekeys(1)
  await world.directory.publish(caller, upload({ oneTimePrekeys: ec, oneTimeKyberPrekeys: kyber }))
  const bothRefused = async () => {
    const again = { oneTimePrekeys: [{ ...ec[0]!, keyId: 5 }] }
    await refused(caller, again, 'CONFLICT', /already published under key_id 0/)
    const kyberAgain = { oneTimeKyberPrekeys: [{ ...kyber[0]!, keyId: 5 }] }
    await refused(caller, kyberAgain, 'CONFLICT', /already published under key_id 0/)
  }
  await bothRefused()
  await drain(caller)
  await bothRefused()
})

test('one-time and last-resort Kyber keys share an id space', async () => {
  const caller = await world.enrol()
  const { device } = caller
  await refused(caller, { oneTimeKyberPrekeys: device.makeKyberPrekeys(1, 1000) }, 'CONFLICT', /key_id 1000 is already/)
  await world.directory.publish(caller, upload({ oneTimeKyberPrekeys: device.makeKyberPrekeys(1, 2000) }))
  await refused(
    caller,
    { lastResortKyberPrekey: device.makeLastResort(2000) },
    'CONFLICT',
    /2000 is already another Kyber/,
  )
  await world.directory.publish(caller, upload({ lastResortKyberPrekey: device.makeLastResort(3000) }))
  const replaced = device.makeKyberPrekeys(1, 1000)
  await refused(caller, { oneTimeKyberPrekeys: replaced }, 'CONFLICT', /key_id 1000 is already another key/)
})

test('one-time Kyber keys without any last-resort key are refused', async () => {
  const caller = await world.enrol({ keys: (device) => ({ signedPrekey: device.makeSignedPrekey(1) }) })
  const oneTimeKyberPrekeys = caller.device.makeKyberPrekeys(2)
  await refused(caller, { oneTimeKyberPrekeys }, 'INVALID_REQUEST', /need a last_resort_kyber_prekey/)
  const lastResortKyberPrekey = caller.device.makeLastResort(10)
  const counts = await world.directory.publish(caller, upload({ oneTimeKyberPrekeys, lastResortKyberPrekey }))
  expect(counts.kyberOneTime.count).toBe(2)
})

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
  await refused(caller, { signedPrekey: device.makeSignedPrekey(5) }, 'CONFLICT', /5 is not above the stored 5/)
  await refused(caller, { signedPrekey: device.makeSignedPrekey(4) }, 'CONFLICT', /4 is not above the stored 5/)
  await refused(caller, { signedPrekey: { ...again, keyId: 6 } }, 'CONFLICT', /already published under key_id 5/)
  const next = device.makeSignedPrekey(6)
  const rotated = await world.directory.publish(caller, upload({ signedPrekey: next }))
  expect(rotated.signedPrekey).toEqual({ keyId: 6, createdAtMs: world.clock.nowMs })
  const [user] = await world.directory.bundles(stranger(), [{ userId: caller.userId, deviceId: 1 }])
  expect(Uint8Array.from(user!.devices[0]!.signedPrekey.publicKey)).toEqual(next.publicKey)
})

test('last-resort key: used survives the same upload, a new key starts unused, a lower id is CONFLICT', async () => {
  const caller = await world.enrol({ keys: (device) => ({ signedPrekey: device.makeSignedPrekey(1) }) })
  const { device } = caller
  const lastResortKyberPrekey = device.makeLastResort(5)
  const publish = (key: typeof lastResortKyberPrekey) =>
    world.directory.publish(caller, upload({ lastResortKyberPrekey: key }))
  const bornMs = world.clock.nowMs
  expect((await publish(lastResortKyberPrekey)).lastResort?.used).toBe(false)
  await world.directory.bundles(stranger(), [{ userId: caller.userId, deviceId: 1 }])
  world.clock.nowMs += DAY
  const resigned = { ...lastResortKyberPrekey, signature: device.sign(lastResortKyberPrekey.publicKey) }
  expect((await publish(resigned)).lastResort).toEqual({ keyId: 5, createdAtMs: bornMs, used: true })
  await refused(caller, { lastResortKyberPrekey: device.makeLastResort(4) }, 'CONFLICT', /4 is not above the stored 5/)
  await refused(caller, { lastResortKyberPrekey: { ...lastResortKyberPrekey, keyId: 6 } }, 'CONFLICT', /under key_id 5/)
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
  await refused(mallory, { signedPrekey: stolen }, 'CONFLICT', /^signed_prekey\.public_key is held by another device/)
  const stolenLast = { ...lastResortKyberPrekey, signature: mallory.device.sign(lastResortKyberPrekey.publicKey) }
  await refused(mallory, { lastResortKyberPrekey: stolenLast }, 'CONFLICT', /^last_resort.* held by another device/)
})

test('replace voids the stock and stores the upload; what left keeps its id', async () => {
  const caller = await world.enrol()
  const { device } = caller
  await world.directory.publish(
    caller,
    upload({ oneTimePrekeys: device.makeOneTimePrekeys(3), oneTimeKyberPrekeys: device.makeKyberPrekeys(3) }),
  )
  await world.directory.bundles(stranger(), [{ userId: caller.userId, deviceId: 1 }])
  const signedPrekey = device.makeSignedPrekey(2)
  await refused(caller, { replace: true, oneTimePrekeys: [] }, 'INVALID_REQUEST', /replace needs one/)
  await refused(caller, { replace: true, signedPrekey, registrationId: 16384 }, 'INVALID_REQUEST', /registration_id/)
  const left = device.makeOneTimePrekeys(1, 0)
  await refused(caller, { replace: true, signedPrekey, oneTimePrekeys: left }, 'CONFLICT', /key_id 0 is already/)

  const fresh = upload({
    ...{ replace: true, registrationId: 99, signedPrekey },
    oneTimePrekeys: device.makeOneTimePrekeys(2, 2),
    oneTimeKyberPrekeys: device.makeKyberPrekeys(1, 2),
  })
  const counts = await world.directory.publish(caller, fresh)
  expect(counts.oneTime).toEqual({ count: 2, oldestId: 2, highestId: 3 })
  expect(counts.kyberOneTime).toEqual({ count: 1, oldestId: 2, highestId: 1000 })
  const [user] = await world.directory.bundles(stranger(), [{ userId: caller.userId, deviceId: 1 }])
  expect(user!.devices[0]).toMatchObject({
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
  const [user] = await world.directory.bundles(stranger(), [{ userId: caller.userId, deviceId: 1 }])
  expect(user!.devices[0]!.registrationId).toBe(11)
})

test('what left is remembered for a year', async () => {
  const caller = await world.enrol()
  const key = caller.device.makeOneTimePrekeys(1)
  const publish = () => world.directory.publish(caller, upload({ oneTimePrekeys: key }))
  await publish()
  await drain(caller)
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
