// Key bytes and bodies a stranger may send: each gets a code of the list, and nothing of a refused upload is stored.
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { isCanonicalEcKey, isCanonicalKyberKey } from '../../keys/canonical.ts'
import type { Upload } from '../../keys/prekeys.ts'
import { toDeviceKeys, uploadBody } from '../../keys/wire.ts'
import { ERROR_CODES, RelayError } from '../../proto/errors.ts'
import { type Enrolled, openWorld, upload, type World } from './world.ts'

let world: World
let caller: Enrolled
beforeAll(async () => {
  world = await openWorld()
  caller = await world.enrol()
})
afterAll(() => world.close())

/** Bytes of a good value, damaged. */
const damaged = (good: Uint8Array) =>
  fc.oneof(
    fc.uint8Array({ maxLength: 2 * good.length }),
    fc.nat(good.length - 1).map((length) => good.slice(0, length)),
    fc.uint8Array({ minLength: 1, maxLength: 64 }).map((tail) => Uint8Array.from([...good, ...tail])),
    fc
      .tuple(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }))
      .map(([at, flip]) => good.with(at, good[at]! ^ flip)),
  )

const TABLES = ['signed_prekeys', 'one_time_prekeys', 'kyber_prekeys', 'tombstones', 'highest_ids']
const snapshot = () =>
  Promise.all(
    TABLES.map(async (table) => [...(await world.sql`select * from ${world.sql(`keys.${table}`)} order by 1, 2`)]),
  )

async function expectRefused(given: Partial<Upload>): Promise<void> {
  const error = await world.directory.publish(caller, upload(given)).then(
    () => null,
    (reason) => reason,
  )
  expect(error).toBeInstanceOf(RelayError)
  expect(ERROR_CODES).toContain(error.code)
  // I16
  expect(error.message).toMatch(/^(signed_prekey|last_resort_kyber_prekey|one_time_(kyber_)?prekeys)[[.]/)
}

test('damaged keys and signatures of every kind: a code each time, nothing stored', async () => {
  const { device } = caller
  const good = {
    signedPrekey: device.makeSignedPrekey(50),
    lastResortKyberPrekey: device.makeLastResort(5000),
    oneTimePrekeys: device.makeOneTimePrekeys(3, 50),
    oneTimeKyberPrekeys: device.makeKyberPrekeys(3, 50),
  }
  const [ec, kyber] = [good.oneTimePrekeys[1]!, good.oneTimeKyberPrekeys[1]!]
  const before = await snapshot()
  const at = <Key extends object>(list: Key[], key: Key) => list.with(1, key)
  const cases = fc.oneof(
    damaged(good.signedPrekey.publicKey).map((publicKey) => ({ signedPrekey: { ...good.signedPrekey, publicKey } })),
    damaged(good.signedPrekey.signature).map((signature) => ({ signedPrekey: { ...good.signedPrekey, signature } })),
    damaged(kyber.publicKey).map((publicKey) => ({
      oneTimeKyberPrekeys: at(good.oneTimeKyberPrekeys, { ...kyber, publicKey: Uint8Array.from(publicKey) }),
    })),
    damaged(kyber.signature).map((signature) => ({
      oneTimeKyberPrekeys: at(good.oneTimeKyberPrekeys, { ...kyber, signature: Uint8Array.from(signature) }),
    })),
    damaged(good.lastResortKyberPrekey.publicKey).map((publicKey) => ({
      lastResortKyberPrekey: { ...good.lastResortKyberPrekey, publicKey },
    })),
    // One-time EC keys carry no signature: another canonical key is as good as this one.
    damaged(ec.publicKey)
      .filter((publicKey) => !isCanonicalEcKey(publicKey))
      .map((publicKey) => ({
        oneTimePrekeys: at(good.oneTimePrekeys, { ...ec, publicKey: Uint8Array.from(publicKey) }),
      })),
  )
  await fc.assert(
    fc.asyncProperty(cases, (damage) => expectRefused({ ...good, ...damage })),
    { numRuns: 400 },
  )
  expect(await snapshot()).toEqual(before)
})

test('key ids that are none: a code each time, nothing stored', async () => {
  const before = await snapshot()
  const publicKey = caller.device.makeOneTimePrekeys(1)[0]!.publicKey
  const ids = fc.oneof(
    fc.double().filter((id) => !(Number.isInteger(id) && id >= 0 && id < 2 ** 31)),
    fc.constantFrom(-1, 2 ** 31, 2 ** 32, Number.NaN, Number.POSITIVE_INFINITY, Number.MAX_SAFE_INTEGER, 0.5),
  )
  await fc.assert(fc.asyncProperty(ids, (keyId) => expectRefused({ oneTimePrekeys: [{ keyId, publicKey }] })))
  expect(await snapshot()).toEqual(before)
})

test('the canonical checks say yes or no to any bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      expect(isCanonicalEcKey(bytes) && bytes.length !== 33).toBe(false)
      expect(isCanonicalKyberKey(bytes)).toBe(false)
    }),
  )
})

test('a body is an upload or does not parse; it never throws anything else', () => {
  const key = fc.record({
    key_id: fc.oneof(fc.nat(), fc.anything()),
    public_key: fc.oneof(fc.base64String(), fc.anything()),
  })
  const body = fc.record(
    { signed_prekey: key, one_time_prekeys: fc.array(key), replace: fc.anything(), registration_id: fc.anything() },
    { requiredKeys: [] },
  )
  fc.assert(
    fc.property(fc.oneof(body, fc.anything()), (given) => {
      const parsed = uploadBody.safeParse(given)
      if (parsed.success) expect(toDeviceKeys(parsed.data).oneTimePrekeys).toBeInstanceOf(Array)
    }),
  )
})
