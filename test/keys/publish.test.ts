// Uploads of one-time keys, and what is refused of any upload: [K-2], [K-3]. Every refusal leaves the directory as it was.
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Upload } from '../../keys/prekeys.ts'
import { TestDevice } from '../support/keys.ts'
import { openWorld, upload, type World } from './world.ts'

let world: World
beforeAll(async () => {
  world = await openWorld()
})
afterAll(() => world.close())

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
  await world.refused(
    caller,
    { oneTimePrekeys: device.makeOneTimePrekeys(101) },
    'INVALID_REQUEST',
    /one_time_prekeys has 101/,
  )
  const kyber = device.makeKyberPrekeys(101)
  await world.refused(caller, { oneTimeKyberPrekeys: kyber }, 'INVALID_REQUEST', /one_time_kyber_prekeys has 101/)
})

test('201 in stock: the whole upload is refused; 200 are taken', async () => {
  const caller = await world.enrol()
  const { device } = caller
  const publish = (part: Partial<Upload>) => world.directory.publish(caller, upload(part))
  await publish({ oneTimePrekeys: device.makeOneTimePrekeys(100, 0) })
  await publish({ oneTimePrekeys: device.makeOneTimePrekeys(99, 100) })
  const two = device.makeOneTimePrekeys(2, 199)
  await world.refused(caller, { oneTimePrekeys: two }, 'INVALID_REQUEST', /201 would be in stock/)
  const signedPrekey = device.makeSignedPrekey(2)
  await world.refused(caller, { signedPrekey, oneTimePrekeys: two }, 'INVALID_REQUEST', /201 would be in stock/)
  expect((await publish({ oneTimePrekeys: two.slice(0, 1) })).oneTime.count).toBe(200)
  expect((await publish({ oneTimePrekeys: two.slice(0, 1) })).oneTime.count).toBe(200)

  await publish({ oneTimeKyberPrekeys: device.makeKyberPrekeys(100, 0) })
  expect((await publish({ oneTimeKyberPrekeys: device.makeKyberPrekeys(100, 100) })).kyberOneTime.count).toBe(200)
  const one = device.makeKyberPrekeys(1, 200)
  await world.refused(caller, { oneTimeKyberPrekeys: one }, 'INVALID_REQUEST', /one_time_kyber_prekeys: 201 would be/)
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
  for (const [bad, message] of names) await world.refused(caller, { ...good, ...bad }, 'INVALID_REQUEST', message)
})

test('empty lists and an empty upload wipe nothing', async () => {
  const caller = await world.enrol()
  await world.directory.publish(caller, upload({ oneTimePrekeys: caller.device.makeOneTimePrekeys(3) }))
  const before = await world.rowsOf(caller)
  expect((await world.directory.publish(caller, upload({}))).oneTime.count).toBe(3)
  expect(await world.rowsOf(caller)).toEqual(before)
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
  const ids: (number | undefined)[] = []
  for (let i = 0; i < 3; i++) {
    const bundle = await world.claim(caller)
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
  const first = await world.claim(caller)
  const counts = await world.directory.publish(caller, same)
  expect([counts.oneTime.count, counts.kyberOneTime.count]).toEqual([2, 2])
  expect([first.oneTimePrekey?.keyId, first.kyberPrekey?.keyId]).toEqual([0, 0])
  expect(await world.drain(caller)).toEqual({ ec: [1, 2], kyber: [1, 2] })
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
    await world.refused(caller, { oneTimePrekeys: ec }, 'CONFLICT', /^one_time_prekeys\[1\]\.key_id 1 is already/)
    await world.refused(
      caller,
      { oneTimeKyberPrekeys: kyber },
      'CONFLICT',
      /^one_time_kyber_prekeys\[1\]\.key_id 1 is already/,
    )
  }
  await bothRefused()
  await world.drain(caller)
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
    await world.refused(caller, again, 'CONFLICT', /already published under key_id 0/)
    const kyberAgain = { oneTimeKyberPrekeys: [{ ...kyber[0]!, keyId: 5 }] }
    await world.refused(caller, kyberAgain, 'CONFLICT', /already published under key_id 0/)
  }
  await bothRefused()
  await world.drain(caller)
  await bothRefused()
})

test('one-time and last-resort Kyber keys share an id space', async () => {
  const caller = await world.enrol()
  const { device } = caller
  await world.refused(
    caller,
    { oneTimeKyberPrekeys: device.makeKyberPrekeys(1, 1000) },
    'CONFLICT',
    /key_id 1000 is already/,
  )
  await world.directory.publish(caller, upload({ oneTimeKyberPrekeys: device.makeKyberPrekeys(1, 2000) }))
  await world.refused(
    caller,
    { lastResortKyberPrekey: device.makeLastResort(2000) },
    'CONFLICT',
    /2000 is already another Kyber/,
  )
  await world.directory.publish(caller, upload({ lastResortKyberPrekey: device.makeLastResort(3000) }))
  const replaced = device.makeKyberPrekeys(1, 1000)
  await world.refused(caller, { oneTimeKyberPrekeys: replaced }, 'CONFLICT', /key_id 1000 is already another key/)
})

test('one-time Kyber keys without any last-resort key are refused', async () => {
  const caller = await world.enrol({ keys: (device) => ({ signedPrekey: device.makeSignedPrekey(1) }) })
  const oneTimeKyberPrekeys = caller.device.makeKyberPrekeys(2)
  await world.refused(caller, { oneTimeKyberPrekeys }, 'INVALID_REQUEST', /need a last_resort_kyber_prekey/)
  const lastResortKyberPrekey = caller.device.makeLastResort(10)
  const counts = await world.directory.publish(caller, upload({ oneTimeKyberPrekeys, lastResortKyberPrekey }))
  expect(counts.kyberOneTime.count).toBe(2)
})
