// [K-4] [K-5]: bundles, and what they may cost whom.
import { randomUUID } from 'node:crypto'
import { base64 } from '../bytes.ts'
import { type Check, hold, same } from '../check.ts'
import type { Device } from '../device.ts'
import { type Answer, codeOf, ok, refused, wordOf } from '../http.ts'
import { type PublicPrekey, prekeyJson } from '../keys.ts'
import { Peer } from '../peer.ts'
import type { Kit } from '../world.ts'

type BundleJson = {
  device_id: number
  one_time_prekey: { key_id: number } | null
  kyber_prekey: { key_id: number } | null
}

const ask = (by: Device, target: Device): Promise<Answer> => by.get(`/v1/keys/${target.userId}/${target.deviceId}`)
const bundleOf = (answer: Answer): BundleJson => ok(answer, 200).body.devices[0]
const list = (by: Device, targets: { userId: string; deviceId: number }[]): Promise<Answer> =>
  by.post('/v1/keys/bundles', { targets: targets.map((each) => ({ user_id: each.userId, device_id: each.deviceId })) })
const strangers = (count: number) => Array.from({ length: count }, () => ({ userId: randomUUID(), deviceId: 1 }))
const withSignature = (key: PublicPrekey) => prekeyJson(key)

export const bundleChecks: Check<Kit>[] = [
  {
    clauses: ['K-4', 'K-4.1', 'H-6'],
    title: 'a bundle has all of a device’s keys and at most one one-time key, oldest upload first',
    async run(kit) {
      const device = await kit.fresh({ oneTime: 0, kyberOneTime: 0 })
      const later = device.keys.oneTime(10, 1)[0]!
      const earlier = device.keys.oneTime(20, 1)[0]!
      for (const key of [earlier, later]) ok(await device.put('/v1/keys', { one_time_prekeys: [prekeyJson(key)] }), 200)
      const by = await kit.user()
      await by.request(device)
      const { body } = ok(await ask(by, device), 200)
      const { signed, lastResort } = device.published
      same(
        body,
        {
          user_id: device.userId,
          identity_key: base64(device.keys.identityKey),
          devices: [
            {
              ...{ device_id: 1, registration_id: device.keys.registrationId, signed_prekey: withSignature(signed) },
              ...{ one_time_prekey: prekeyJson(earlier), kyber_prekey: withSignature(lastResort!) },
            },
          ],
        },
        'as bundle',
      )
      same(bundleOf(await ask(by, device)).one_time_prekey?.key_id, 10, 'in the next bundle, as one-time key')
      return 'every field; id 20 left before id 10, because it was uploaded first'
    },
  },
  {
    clauses: ['K-4.1'],
    title: 'under many claims at once no one-time key leaves twice',
    async run(kit) {
      const device = await kit.fresh({ oneTime: 30, kyberOneTime: 30 })
      const callers = await kit.users(6)
      await Promise.all(callers.map((by) => by.request(device)))
      const answers = await Promise.all(callers.flatMap((by) => Array.from({ length: 5 }, () => ask(by, device))))
      const bundles = answers.map(bundleOf)
      const [ecs, kybers] = [
        bundles.map((each) => each.one_time_prekey?.key_id),
        bundles.map((each) => each.kyber_prekey?.key_id),
      ]
      same(new Set(ecs).size, 30, 'as count of different EC keys in 30 bundles')
      same(new Set(kybers).size, 30, 'as count of different Kyber keys in 30 bundles')
      return '30 claims of 6 users at once: 30 different keys of each kind'
    },
  },
  {
    clauses: ['K-4.2', 'K-5.5'],
    title:
      'a device without Kyber keys is served without; without one-time keys the bundle is complete, and a session opens from it',
    async run(kit) {
      const [old, plain, by] = [
        await kit.fresh({ kyber: false }),
        await kit.fresh({ oneTime: 0, kyberOneTime: 0 }),
        await kit.user(),
      ]
      for (const each of [old, plain]) await by.request(each)
      same(bundleOf(await ask(by, old)).kyber_prekey, null, 'as Kyber key of a device without')
      const bundle = bundleOf(await ask(by, plain))
      same([bundle.one_time_prekey, bundle.kyber_prekey?.key_id], [null, 1], 'as one-time and Kyber key')
      const [peer, owner] = [new Peer(by.keys, by), new Peer(plain.keys, plain)]
      await peer.startSession((await ask(by, plain)).body, 1)
      const { type, content } = await peer.encrypt(plain, Buffer.from('hello'))
      const text = await owner.decrypt(by, type, content)
      same(Buffer.from(text).toString(), 'hello', 'as decrypted message')
      return 'null for a device without; libsignal opened a session with signed and last-resort prekeys alone'
    },
  },
  {
    clauses: ['K-4.4', 'K-4.6', 'E-2.2'],
    title: 'users, devices and keys that are not there are one answer; bundles are not cached',
    async run(kit) {
      const [by, target] = await kit.users(2)
      await by!.request(target!)
      const tries = [
        await by!.get(`/v1/keys/${randomUUID()}/1`),
        await by!.get(`/v1/keys/${randomUUID()}/*`),
        await by!.get(`/v1/keys/${target!.userId}/99`),
      ]
      for (const each of tries) refused(each, 'NOT_FOUND', 'what is not there')
      same(new Set(tries.map((each) => each.text)).size, 1, 'as count of different answers')
      const found = ok(await ask(by!, target!), 200)
      hold(
        found.headers.get('cache-control')?.includes('no-store'),
        'Cache-Control: no-store',
        found.headers.get('cache-control'),
      )
      return 'NOT_FOUND word for word; no-store'
    },
  },
  {
    clauses: ['K-4.7', 'H-6'],
    title: 'lists are answered by user in the order asked, devices ascending, without what is not there',
    async run(kit) {
      const [by, one, two] = (await kit.users(3)) as [Device, Device, Device]
      const laptop = await one.link()
      for (const each of [one, two]) await by.request(each)
      const answer = ok(await list(by, [two, laptop, strangers(1)[0]!, one]), 200)
      const seen = answer.body.bundles.map((each: { user_id: string; devices: BundleJson[] }) => [
        each.user_id,
        each.devices.map((device) => device.device_id),
      ])
      same(
        seen,
        [
          [two.userId, [1]],
          [one.userId, [1, laptop.deviceId]],
        ],
        'as users and devices',
      )
      hold(
        answer.headers.get('cache-control')?.includes('no-store'),
        'Cache-Control: no-store',
        answer.headers.get('cache-control'),
      )
      refused(await list(by, [one, two, one]), 'INVALID_REQUEST', 'a device twice')
      refused(await list(by, [by]), 'INVALID_REQUEST', 'oneself')
      refused(await ask(by, by), 'INVALID_REQUEST', 'one’s own bundle')
      refused(await list(by, []), 'INVALID_REQUEST', 'no target')
      refused(await list(by, strangers(101)), 'INVALID_REQUEST', '101 targets')
      const own = ok(await laptop.get(`/v1/keys/${one.userId}/*`), 200).body.devices.map(
        (each: BundleJson) => each.device_id,
      )
      same(own, [1], 'for * of one’s own user, as devices')
      return 'order kept, one left out; 0 and 101 targets, doubles and oneself refused'
    },
  },
  {
    clauses: ['K-5', 'K-5.1', 'K-5.2', 'K-5.4', 'K-5.5'],
    title: 'one caller gets 6 one-time keys of a device, 30 bundles, and then RATE_LIMITED; other callers are not hurt',
    async run(kit) {
      const target = await kit.fresh({ oneTime: 40, kyberOneTime: 40 })
      const [by, other] = [await kit.fresh(), await kit.user()]
      for (const each of [by, other]) await each.request(target)
      const bundles: BundleJson[] = []
      for (let at = 0; at < 30; at++) bundles.push(bundleOf(await ask(by, target)))
      const withKeys = bundles.filter((each) => each.one_time_prekey !== null).length
      same(withKeys, 6, 'of 30 bundles, as count with a one-time key')
      hold(
        bundles.every((each) => each.kyber_prekey !== null),
        'a Kyber key in each',
        'one without',
      )
      const over = refused(await ask(by, target), 'RATE_LIMITED', 'the 31st')
      hold(over.body.error.retry_after_ms > 0, 'a retry time', over.text)
      refused(await by.get(`/v1/keys/${target.userId}/*`), 'RATE_LIMITED', '*')
      refused(await list(by, [target]), 'RATE_LIMITED', 'a list')
      hold(bundleOf(await ask(other, target)).one_time_prekey !== null, 'a one-time key for another caller', 'none')
      same(ok(await target.get('/v1/keys'), 200).body.one_time.count, 33, 'in stock after 7 claims')
      return '6 with, 24 without, then RATE_LIMITED however it is asked; a refusal spent no key'
    },
  },
  {
    clauses: ['K-5.2', 'K-5.4'],
    title: 'a caller asks for 1,000 bundles at once, and targets that do not exist cost as much',
    async run(kit) {
      const [by, target] = [await kit.fresh(), await kit.user()]
      for (let at = 0; at < 10; at++) same(ok(await list(by, strangers(100)), 200).body.bundles, [], 'for strangers')
      let asked = 0
      // Ten more are earned each second.
      for (let tries = 0; tries < 5; tries++, asked += 100) {
        const answer = await list(by, strangers(100))
        if (answer.status === 200) continue
        refused(answer, 'RATE_LIMITED', 'more than 1,000')
        const one = await list(by, [...strangers(99), target])
        return `${1000 + asked} in a burst, then ${wordOf(answer)}; with a target that exists ${codeOf(one) || one.status}`
      }
      hold(false, 'RATE_LIMITED after 1,000 bundles', `${1000 + asked} answered`)
    },
  },
  {
    clauses: ['K-5.3'],
    title:
      'all who merely asked together get half of a device’s budget; the other half is for those with whom it spoke itself',
    withinMs: 60_000,
    async run(kit) {
      const target = await kit.fresh({ oneTime: 100 })
      ok(await target.put('/v1/keys', { one_time_prekeys: target.keys.oneTime(1000, 60).map(prekeyJson) }), 200)
      const callers = await kit.users(10)
      for (const each of callers) await each.request(target)
      const friend = await kit.user()
      // The target has to have acted in it: anybody can put anybody into a conversation.
      await target.direct(friend)
      let given = 0
      for (const by of callers)
        for (const answer of await Promise.all(Array.from({ length: 6 }, () => ask(by, target))))
          if (bundleOf(answer).one_time_prekey !== null) given++
      hold(given >= 50 && given <= 52, '50 for those who asked', `${given} of 60`)
      hold(
        bundleOf(await ask(friend, target)).one_time_prekey !== null,
        'a one-time key for one with whom the target began a conversation',
        'none',
      )
      return `10 who asked got ${given} of 60; then a friend got one`
    },
  },
]
