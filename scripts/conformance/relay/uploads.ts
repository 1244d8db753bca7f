// [K-2] [K-3] [K-8]: what a device may publish, once or again.
import { base64 } from '../bytes.ts'
import { type Check, same } from '../check.ts'
import { type Device, otherThan } from '../device.ts'
import { ok, refused } from '../http.ts'
import { DeviceKeys, type PublicPrekey } from '../keys.ts'
import type { Kit } from '../world.ts'
import { allRefused, flip, kyberOneTime, lastResort, oneTime, signed, stock, upload } from './publishing.ts'

export const uploadChecks: Check<Kit>[] = [
  {
    clauses: ['K-2', 'K-2.1', 'H-6'],
    title: 'what is absent stays; one fault refuses the whole upload',
    async run(kit) {
      const device = await kit.fresh()
      const before = await stock(device)
      const [good, bad] = [device.keys.oneTime(600, 3), device.keys.kyber(600)]
      const faulty = {
        ...oneTime(...good),
        ...kyberOneTime({ ...bad, signature: flip(bad.signature, 3) }),
        ...signed(device.keys.signed(60)),
      }
      await allRefused(device, { 'one wrong signature among four good keys': faulty })
      const { body } = ok(await upload(device, oneTime(...good)), 200)
      same([body.one_time.count, body.one_time.highest_id], [before.one_time.count + 3, 602], 'as one-time keys')
      same(
        [body.signed_prekey, body.last_resort, body.kyber_one_time],
        [before.signed_prekey, before.last_resort, before.kyber_one_time],
        'as the rest',
      )
      same(await stock(device), body, 'as GET /v1/keys afterwards')
      ok(await upload(device, {}), 200)
      return '3 one-time keys more, everything else as it was'
    },
  },
  {
    clauses: ['K-2.2', 'L-1'],
    title: 'at most 100 keys of a kind in an upload and 200 in stock',
    async run(kit) {
      const device = await kit.fresh({ oneTime: 0 })
      await allRefused(device, { '101 keys': oneTime(...device.keys.oneTime(1000, 101)) })
      ok(await upload(device, oneTime(...device.keys.oneTime(2000, 100))), 200)
      ok(await upload(device, oneTime(...device.keys.oneTime(3000, 100))), 200)
      await allRefused(device, { 'a 201st key': oneTime(...device.keys.oneTime(4000, 1)) })
      same((await stock(device)).one_time.count, 200, 'as count')
      return '101 at once refused, 200 in two uploads taken, the 201st refused'
    },
  },
  {
    clauses: ['K-2.3', 'K-2.6'],
    title: 'an id or key twice is INVALID_REQUEST, across lists too; Kyber keys share one id space',
    async run(kit) {
      const device = await kit.fresh()
      const [a, b] = device.keys.oneTime(300, 2) as [PublicPrekey, PublicPrekey]
      const kyber = device.keys.kyber(300)
      const key = device.keys.signed(30)
      const identity = {
        keyId: 31,
        publicKey: device.keys.identityKey,
        signature: device.keys.sign(device.keys.identityKey),
      }
      await allRefused(device, {
        'an id twice': oneTime(a, { ...b, keyId: 300 }),
        'a key twice': oneTime(a, { ...a, keyId: 301 }),
        'a key in two lists': { ...oneTime({ keyId: 310, publicKey: key.publicKey }), ...signed(key) },
        'a Kyber id as one-time and last-resort': { ...kyberOneTime(kyber), ...lastResort(device.keys.kyber(300)) },
        'the identity key as signed prekey': signed(identity),
        'the identity key as one-time key': oneTime({ keyId: 311, publicKey: device.keys.identityKey }),
      })
      const taken = refused(
        await upload(device, kyberOneTime({ ...device.keys.kyber(1) })),
        'CONFLICT',
        'the id of the last-resort key for a one-time key',
      )
      ok(await upload(device, { ...oneTime(a), ...kyberOneTime(kyber) }), 200)
      return `6 refused; ${taken.status} for the last-resort key’s id; an EC and a Kyber key may share id 300`
    },
  },
  {
    clauses: ['K-2.4'],
    title: 'signed and last-resort prekeys: the same is a no-op, lower ids are CONFLICT, the newest is served',
    async run(kit) {
      const device = await kit.fresh()
      const other = await kit.user()
      await other.request(device)
      const before = await stock(device)
      const again = ok(
        await upload(device, { ...signed(device.published.signed), ...lastResort(device.published.lastResort!) }),
        200,
      ).body
      same(
        [again.signed_prekey, again.last_resort],
        [before.signed_prekey, before.last_resort],
        'after the same again, with the ages',
      )
      const key = device.keys.signed(5)
      const last = device.keys.kyber(50, true)
      ok(await upload(device, { ...signed(key), ...lastResort(last) }), 200)
      await allRefused(
        device,
        {
          'a lower signed id': signed(device.keys.signed(4)),
          'the stored signed id with another key': signed(device.keys.signed(5)),
          'the stored signed key under another id': signed({ ...key, keyId: 6 }),
          'a lower last-resort id': lastResort(device.keys.kyber(49, true)),
          'the stored last-resort id with another key': lastResort(device.keys.kyber(50, true)),
          'the stored last-resort key under another id': lastResort({ ...last, keyId: 51 }),
        },
        'CONFLICT',
      )
      const bundle = ok(await other.get(`/v1/keys/${device.userId}/1`), 200).body.devices[0]
      same(
        [bundle.signed_prekey.key_id, bundle.signed_prekey.public_key],
        [5, base64(key.publicKey)],
        'as signed prekey in a bundle',
      )
      return 'a no-op; 6 CONFLICT; the newest is in the bundle'
    },
  },
  {
    clauses: ['K-2.6'],
    title: 'a prekey that another device has published is CONFLICT',
    async run(kit) {
      const primary = await kit.fresh()
      const laptop = await primary.link()
      const theirs = {
        signed: { ...primary.published.signed, keyId: 20 },
        last: { ...primary.published.lastResort!, keyId: 20 },
      }
      await allRefused(
        laptop,
        { 'the primary’s signed prekey': signed(theirs.signed), 'its last-resort key': lastResort(theirs.last) },
        'CONFLICT',
      )
      return 'CONFLICT for both kinds'
    },
  },
  {
    clauses: ['K-2.8'],
    title: 'one-time Kyber keys need a last-resort one',
    async run(kit) {
      const device = await kit.fresh({ kyber: false })
      await allRefused(device, { 'one-time Kyber keys alone': kyberOneTime(...device.keys.kybers(10, 2)) })
      ok(
        await upload(device, {
          ...kyberOneTime(...device.keys.kybers(20, 2)),
          ...lastResort(device.keys.kyber(30, true)),
        }),
        200,
      )
      return 'refused alone, taken with a last-resort key'
    },
  },
  {
    clauses: ['K-3', 'K-3.1', 'K-3.2', 'K-3.3'],
    title: 'the same upload again is no error and no second copy, and what was handed out is not handed out again',
    async run(kit) {
      const device = await kit.fresh({ oneTime: 0, kyberOneTime: 0 })
      const others = await kit.users(2)
      for (const each of others) await each.request(device)
      const [ecs, kybers] = [device.keys.oneTime(100, 2), device.keys.kybers(100, 2)]
      const json = { ...oneTime(...ecs), ...kyberOneTime(...kybers) }
      ok(await upload(device, json), 200)
      same(ok(await upload(device, json), 200).body.one_time.count, 2, 'after the same again, as count')
      const bundle = async (by: Device) => ok(await by.get(`/v1/keys/${device.userId}/1`), 200).body.devices[0]
      same((await bundle(others[0]!)).one_time_prekey.key_id, 100, 'as key handed out')
      const fresh = kyberOneTime(...kybers.map((each) => ({ ...each, signature: device.keys.sign(each.publicKey) })))
      const { body } = ok(await upload(device, { ...json, ...fresh }), 200)
      same(
        [body.one_time.count, body.kyber_one_time.count],
        [1, 1],
        'after a key left and the upload came again, as counts',
      )
      await allRefused(
        device,
        {
          'a known id with another key': oneTime({ ...device.keys.oneTime(101, 1)[0]! }),
          'a known key under another id': oneTime({ ...ecs[1]!, keyId: 555 }),
          'a handed out id with another key': oneTime({ ...device.keys.oneTime(100, 1)[0]! }),
          'a handed out key under another id': oneTime({ ...ecs[0]!, keyId: 556 }),
          'a known Kyber id with another key': kyberOneTime(device.keys.kyber(101)),
        },
        'CONFLICT',
      )
      same((await bundle(others[1]!)).one_time_prekey.key_id, 101, 'as next key handed out')
      same((await bundle(others[1]!)).one_time_prekey, null, 'when there is none left')
      return 'counts stayed, 5 CONFLICT, each key left once'
    },
  },
  {
    clauses: ['K-8', 'K-8.1', 'K-8.2'],
    title: 'replace voids the stock and may change the registration id; ids stay used',
    async run(kit) {
      const { alice, bob, conversation, a } = await replacing(kit)
      const before = ok(await alice.get(`/v1/keys/${bob.userId}/1`), 200).body.devices[0]
      same(before.one_time_prekey.key_id, bob.published.oneTime[0]!.keyId, 'at first, as key handed out')
      refused(await upload(bob, { replace: true }), 'INVALID_REQUEST', 'replace without a signed prekey')
      const fresh = new DeviceKeys({ identity: bob.keys.identity, registrationId: otherThan(bob.keys.registrationId) })
      const json = {
        replace: true,
        registration_id: fresh.registrationId,
        ...signed(fresh.signed(9)),
        ...oneTime(...fresh.oneTime(50, 3)),
      }
      const { body } = ok(await upload(bob, json), 200)
      same([body.one_time.count, body.one_time.oldest_id, body.kyber_one_time.count], [3, 50, 0], 'as stock')
      const gone = bob.published.oneTime[0]!
      ok(await upload(bob, oneTime(gone)), 200)
      same((await stock(bob)).one_time.count, 3, 'after the key that was handed out came again, as count')
      const another = fresh.oneTime(gone.keyId, 1)[0]!
      refused(await upload(bob, oneTime(another)), 'CONFLICT', 'an id that was handed out, with another key')
      const mismatch = await a.send(conversation, [bob.to()])
      const stale = (mismatch.error?.deviceMismatch?.stale ?? []).map((each) => [each.deviceId, each.registrationId])
      same(stale, [[bob.deviceId, fresh.registrationId]], 'as stale')
      const bundle = ok(await alice.get(`/v1/keys/${bob.userId}/1`), 200).body.devices[0]
      same([bundle.registration_id, bundle.one_time_prekey.key_id], [fresh.registrationId, 50], 'in the bundle')
      return 'only the new keys are in stock; senders find the device stale'
    },
  },
]

/** Bob is fresh: his keys are not to be anybody else's afterwards. */
async function replacing(kit: Kit) {
  const [alice, bob] = [await kit.user(), await kit.fresh()]
  const conversation = await alice.direct(bob)
  return { alice, bob, conversation, a: await alice.live() }
}
