// [K-6] [K-7]: what the relay says it has of a device.
import { base64 } from '../bytes.ts'
import { type Check, same } from '../check.ts'
import type { Device } from '../device.ts'
import { ok, refused } from '../http.ts'
import type { Kit } from '../world.ts'
import { flip, lastResort, signed, stock, upload } from './publishing.ts'

export const countChecks: Check<Kit>[] = [
  {
    clauses: ['K-6', 'H-6'],
    title: 'counts are explicit, 0 included; KeysLow comes when a claim leaves fewer than 20',
    async run(kit) {
      const device = await kit.fresh({ oneTime: 20, kyberOneTime: 21 })
      const other = await kit.user()
      await other.request(device)
      const socket = await device.live()
      same(
        [socket.hello.prekeyCounts?.ecOneTime, socket.hello.prekeyCounts?.kyberOneTime],
        [20, 21],
        'in Hello, as counts',
      )
      ok(await other.get(`/v1/keys/${device.userId}/1`), 200)
      const low = await socket.next('keysLow')
      same([low.counts?.ecOneTime, low.counts?.kyberOneTime], [19, 20], 'in KeysLow, as counts')
      const none = await kit.fresh({ oneTime: 0, kyberOneTime: 0 })
      const { ecOneTime, kyberOneTime, lastResortUsed } = (await none.connect()).hello.prekeyCounts ?? {}
      same([ecOneTime ?? 0, kyberOneTime ?? 0, lastResortUsed ?? false], [0, 0, false], 'of a device without, in Hello')
      const { one_time, kyber_one_time, last_resort } = await stock(none)
      same(one_time, { count: 0, oldest_id: null, highest_id: null }, 'as one_time')
      same(
        [kyber_one_time.count, kyber_one_time.oldest_id, kyber_one_time.highest_id],
        [0, null, 1],
        'as kyber_one_time, whose highest_id counts last-resort keys',
      )
      same([last_resort.key_id, last_resort.used], [1, false], 'as last_resort')
      return 'KeysLow at 19; zeros and nulls where there is nothing'
    },
  },
  {
    clauses: ['K-6', 'K-6.1', 'K-4.2'],
    title:
      'the last-resort key leaves when nothing else is left, is said to be used, and stays so until a new one comes',
    async run(kit) {
      const device = await kit.fresh({ oneTime: 0, kyberOneTime: 1 })
      const others = await kit.users(2)
      for (const each of others) await each.request(device)
      const socket = await device.live()
      const kyber = async (by: Device) =>
        ok(await by.get(`/v1/keys/${device.userId}/1`), 200).body.devices[0].kyber_prekey
      same((await kyber(others[0]!)).key_id, 2, 'at first, as Kyber key')
      const low = await socket.next('keysLow')
      same(low.counts?.lastResortUsed ?? false, false, 'after a one-time key left, as last_resort_used')
      same((await kyber(others[1]!)).key_id, 1, 'when none is left, as Kyber key')
      same((await socket.next('keysLow')).counts?.lastResortUsed, true, 'in KeysLow, as last_resort_used')
      ok(await upload(device, lastResort(device.published.lastResort!)), 200)
      same((await stock(device)).last_resort.used, true, 'after the same key again, as used')
      ok(await upload(device, lastResort(device.keys.kyber(40, true))), 200)
      same(
        (await stock(device)).last_resort,
        { key_id: 40, created_at_ms: (await stock(device)).last_resort.created_at_ms, used: false },
        'after a new one',
      )
      return 'one-time first, then last-resort; used until replaced'
    },
  },
  {
    clauses: ['K-7', 'K-7.1'],
    title: 'the digest of one’s own keys matches, and no other',
    async run(kit) {
      const device = await kit.fresh()
      const without = await kit.fresh({ kyber: false })
      const check = async (by: Device, digest: Uint8Array) =>
        ok(await by.post('/v1/keys/check', { digest: base64(digest) }), 200).body
      const own = device.keys.digest(device.user, 1, device.published)
      same(await check(device, own), { match: true }, 'for the right digest')
      same(
        await check(without, without.keys.digest(without.user, 1, without.published)),
        { match: true },
        'without a last-resort key',
      )
      const wrong = {
        'one bit': flip(own, 0),
        'another device number': device.keys.digest(device.user, 2, device.published),
        'no last-resort key': device.keys.digest(device.user, 1, { ...device.published, lastResort: null }),
      }
      for (const [what, digest] of Object.entries(wrong))
        same(await check(device, digest), { match: false }, `for ${what}`)
      refused(
        await device.post('/v1/keys/check', { digest: base64(Buffer.alloc(31)) }),
        'INVALID_REQUEST',
        'a digest of 31 bytes',
      )
      const key = device.keys.signed(9)
      ok(await upload(device, signed(key)), 200)
      same(await check(device, own), { match: false }, 'for the former signed prekey')
      same(
        await check(device, device.keys.digest(device.user, 1, { ...device.published, signed: key })),
        { match: true },
        'for the new one',
      )
      return 'match with and without a last-resort key; five others do not'
    },
  },
]
