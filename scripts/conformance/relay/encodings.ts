// [K-1]: which keys are keys.
import { type Check, same } from '../check.ts'
import { ok } from '../http.ts'
import { DeviceKeys } from '../keys.ts'
import type { Kit } from '../world.ts'
import { allRefused, flip, kyberOneTime, lastResort, oneTime, signed, upload } from './publishing.ts'

/** A one-time key with these bytes. */
const ec = (publicKey: Uint8Array, keyId = 900): object => oneTime({ keyId, publicKey })
const hexKey = (hex: string): Uint8Array => Buffer.from(hex, 'hex')
const LOW_ORDER = [
  '00'.repeat(32),
  `01${'00'.repeat(31)}`,
  'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
  '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
  `ec${'ff'.repeat(30)}7f`,
]

export const encodingChecks: Check<Kit>[] = [
  {
    clauses: ['K-1', 'K-1.1'],
    title: 'an EC key that is not canonical is refused: length, type, top bit, above the field',
    async run(kit) {
      const device = await kit.fresh()
      const [good] = device.keys.oneTime(500, 1)
      const key = good!.publicKey
      await allRefused(device, {
        '32 bytes': ec(key.slice(0, 32)),
        '34 bytes': ec(Buffer.concat([key, Buffer.of(0)])),
        'no bytes': ec(Buffer.of()),
        'type 04': ec(flip(key, 0)),
        'the top bit set': ec(flip(key, 32, 0x80)),
        'p + 2': ec(hexKey(`05ef${'ff'.repeat(30)}7f`)),
        'p + 18': ec(hexKey(`05ff${'ff'.repeat(30)}7f`)),
      })
      ok(await upload(device, oneTime(good!)), 200)
      return '7 refused with nothing stored, a canonical one taken'
    },
  },
  {
    clauses: ['K-1.2'],
    title: 'points of low order are refused',
    async run(kit) {
      const device = await kit.fresh()
      await allRefused(device, Object.fromEntries(LOW_ORDER.map((each) => [each, ec(hexKey(`05${each}`))])))
      const point = hexKey(`05${LOW_ORDER[2]}`)
      const forged = { keyId: 901, publicKey: point, signature: device.keys.sign(point) }
      await allRefused(device, { 'a signed prekey of low order': signed(forged) })
      return `${LOW_ORDER.length} encodings, and one as signed prekey`
    },
  },
  {
    clauses: ['K-1.3', 'K-1.4'],
    title: 'Kyber keys have 1,569 bytes and type 08, signatures 64 bytes by the user’s identity key',
    async run(kit) {
      const device = await kit.fresh()
      const kyber = device.keys.kyber(700)
      const resigned = (publicKey: Uint8Array) =>
        kyberOneTime({ keyId: 700, publicKey, signature: device.keys.sign(publicKey) })
      const bySomebody = new DeviceKeys()
      const key = device.keys.signed(50)
      await allRefused(device, {
        '1,568 bytes': resigned(kyber.publicKey.slice(0, 1568)),
        '1,570 bytes': resigned(Buffer.concat([kyber.publicKey, Buffer.of(0)])),
        'type 07': resigned(flip(kyber.publicKey, 0, 0x0f)),
        'an EC key as Kyber key': resigned(key.publicKey),
        'a signature of 63 bytes': kyberOneTime({ ...kyber, signature: kyber.signature.slice(0, 63) }),
        'a signature with a bit flipped': kyberOneTime({ ...kyber, signature: flip(kyber.signature, 5) }),
        'a Kyber key signed by another': kyberOneTime({ ...kyber, signature: bySomebody.sign(kyber.publicKey) }),
        'a signed prekey signed by another': signed({ ...key, signature: bySomebody.sign(key.publicKey) }),
        'a signed prekey whose signature leaves out the type': signed({
          ...key,
          signature: device.keys.sign(key.publicKey.slice(1)),
        }),
        'a last-resort key with another’s signature': lastResort({
          ...device.keys.kyber(701),
          signature: kyber.signature,
        }),
      })
      ok(await upload(device, { ...kyberOneTime(kyber), ...signed(key) }), 200)
      return '10 refused with nothing stored, the right ones taken'
    },
  },
  {
    clauses: ['K-1.5', 'L-1'],
    title: 'key ids are 0 to 2^31 − 1, 0 like any other',
    async run(kit) {
      const device = await kit.fresh({ oneTime: 0 })
      const [a, b] = device.keys.oneTime(0, 2)
      const largest = { ...b!, keyId: 2 ** 31 - 1 }
      await allRefused(device, {
        'id −1': oneTime({ ...a!, keyId: -1 }),
        'id 2^31': oneTime({ ...a!, keyId: 2 ** 31 }),
        'id 1.5': oneTime({ ...a!, keyId: 1.5 }),
      })
      const { one_time } = ok(await upload(device, oneTime(a!, largest)), 200).body
      same(one_time, { count: 2, oldest_id: 0, highest_id: 2 ** 31 - 1 }, 'as one_time')
      const other = await kit.user()
      await other.request(device)
      const bundle = ok(await other.get(`/v1/keys/${device.userId}/1`), 200).body
      same(bundle.devices[0].one_time_prekey?.key_id, 0, 'as one-time key of the first bundle')
      return 'id 0 taken and handed out first; −1, 2^31 and 1.5 refused'
    },
  },
]
