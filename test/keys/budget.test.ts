// Fetch budgets [K-5]: first alone, with the clock in hand, then through the directory. Buckets by themselves: test/server/meters.test.ts.
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { FETCH_RATES, type FetchBudget, openFetchBudget, usualFetchBudget } from '../../keys/budget.ts'
import { type Meter, openLocalMeters } from '../../keys/meter.ts'
import { type Enrolled, openWorld, stranger, upload, type World } from './world.ts'

const MINUTE = 60_000
const nobody = async (_deviceKeys: number[]) => new Set<number>()
const everybody = async (deviceKeys: number[]) => new Set(deviceKeys)

let nowMs = 0
const openBudget = (): FetchBudget => usualFetchBudget(() => nowMs)

/** How one device was answered, at that time. */
async function ask(budget: FetchBudget, caller: string, device: number, atMs: number, sharing = nobody) {
  nowMs = atMs
  const admission = await budget.admit(caller, [{ deviceKeys: [device] }], sharing)
  if (!admission.admitted) return admission.retryAfterMs
  return admission.oneTime.has(device) ? 'one-time' : 'without'
}

describe('per pair', () => {
  test('6 with one-time keys, then one every 10 minutes; the rest without', async () => {
    const budget = openBudget()
    const answers = []
    for (let i = 0; i < 8; i++) answers.push(await ask(budget, 'a', 1, 0))
    expect(answers).toEqual([...Array(6).fill('one-time'), 'without', 'without'])
    expect(await ask(budget, 'a', 1, 10 * MINUTE - 1)).toBe('without')
    expect(await ask(budget, 'a', 1, 10 * MINUTE)).toBe('one-time')
    expect(await ask(budget, 'a', 1, 10 * MINUTE)).toBe('without')
    expect(await ask(budget, 'a', 2, 10 * MINUTE)).toBe('one-time')
    expect(await ask(budget, 'b', 1, 10 * MINUTE)).toBe('one-time')
  })

  test('30 bundles in 10 minutes, then RATE_LIMITED with an honest wait that refusals do not lengthen', async () => {
    const budget = openBudget()
    for (let i = 0; i < 30; i++) expect(typeof (await ask(budget, 'a', 1, 0))).toBe('string')
    for (let i = 0; i < 100; i++) expect(await ask(budget, 'a', 1, 0)).toBe(20_000)
    expect(await ask(budget, 'a', 1, 19_999)).toBe(1)
    expect(await ask(budget, 'a', 1, 20_000)).toBe('without')
    expect(await ask(budget, 'a', 1, 20_000)).toBe(20_000)
  })

  test('a refused list charges none of its devices', async () => {
    const budget = openBudget()
    for (let i = 0; i < 30; i++) await ask(budget, 'a', 1, 0)
    for (let i = 0; i < 50; i++)
      expect(await budget.admit('a', [{ deviceKeys: [2] }, { deviceKeys: [3, 1] }], nobody)).toEqual({
        ...{ admitted: false, groupIndex: 1, retryAfterMs: 20_000 },
      })
    for (let i = 0; i < 6; i++) expect(await ask(budget, 'a', 2, 0)).toBe('one-time')
  })
})

describe('per target', () => {
  test('strangers take 50, callers who share a conversation the other 50; one comes back a minute', async () => {
    const budget = openBudget()
    let caller = 0
    const next = (sharing = nobody, atMs = 0) => ask(budget, `caller ${caller++}`, 1, atMs, sharing)
    for (let i = 0; i < 50; i++) expect(await next()).toBe('one-time')
    for (let i = 0; i < 10; i++) expect(await next()).toBe('without')
    for (let i = 0; i < 50; i++) expect(await next(everybody)).toBe('one-time')
    expect(await next(everybody)).toBe('without')
    expect(await next(everybody, MINUTE - 1)).toBe('without')
    expect(await next(everybody, MINUTE)).toBe('one-time')
    // Strangers wait until the reserve is full again.
    expect(await next(nobody, 51 * MINUTE)).toBe('without')
    expect(await next(nobody, 52 * MINUTE)).toBe('one-time')
  })

  test('whether a conversation is shared is asked only when it decides', async () => {
    const budget = openBudget()
    let asked = 0
    const sharing = async (deviceKeys: number[]) => {
      asked++
      return new Set(deviceKeys)
    }
    for (let i = 0; i < 50; i++) await ask(budget, `caller ${i}`, 1, 0, sharing)
    expect(asked).toBe(0)
    await ask(budget, 'caller 50', 1, 0, sharing)
    expect(asked).toBe(1)
  })

  test('a pair whose target has nothing left keeps its own tokens', async () => {
    const budget = openBudget()
    for (let i = 0; i < 50; i++) await ask(budget, `caller ${i}`, 1, 0)
    for (let i = 0; i < 20; i++) expect(await ask(budget, 'a', 1, 0)).toBe('without')
    expect(await ask(budget, 'a', 1, 50 * MINUTE)).toBe('one-time')
  })

  test('requests that decide at the same time do not spend one token twice', async () => {
    const budget = openBudget()
    const answers = await Promise.all(
      Array.from({ length: 300 }, (_, i) => ask(budget, `caller ${i}`, 1, 0, everybody)),
    )
    expect(answers.filter((answer) => answer === 'one-time')).toHaveLength(100)
  })
})

test('per caller: 1,000 at once, then 10 a second; refused costs nothing', async () => {
  const budget = openBudget()
  const charge = (caller: string, devices: number, atMs: number) => {
    nowMs = atMs
    return budget.charge(caller, devices)
  }
  expect(await charge('a', 900, 0)).toBe(0)
  expect(await charge('a', 101, 0)).toBe(100)
  expect(await charge('a', 100, 0)).toBe(0)
  for (let i = 0; i < 100; i++) expect(await charge('a', 1, 0)).toBe(100)
  expect(await charge('a', 10, 1000)).toBe(0)
  expect(await charge('a', 1, 1000)).toBe(100)
  expect(await charge('b', 1000, 1000)).toBe(0)
  expect(FETCH_RATES.caller).toEqual({ burst: 1000, everyMs: 100 })
})

test('where one-time keys cannot be counted, bundles come without [K-5.5]', async () => {
  const here = openLocalMeters(() => nowMs)
  const meter = (name: string) => here({ name, rates: [{ burst: 100, everyMs: MINUTE }], whenGone: 'open' })
  const untold: Meter = { take: async () => Number.POSITIVE_INFINITY, give() {} }
  const counted = { caller: meter('caller'), pairBundles: meter('bundles'), reserve: 50 }
  const dark = openFetchBudget({ ...counted, pairOneTime: untold, target: untold })
  for (let i = 0; i < 10; i++) expect(await ask(dark, 'a', 1, 0, everybody)).toBe('without')
  // Half of it: what was taken of the pair comes back.
  const pairOneTime = meter('pair')
  const half = openFetchBudget({ ...counted, pairOneTime, target: untold })
  for (let i = 0; i < 50; i++) expect(await ask(half, 'b', 1, 0, everybody)).toBe('without')
  expect(await pairOneTime.take('b:1', 100)).toBe(0)
})

describe('through the directory', () => {
  let world: World
  beforeAll(async () => {
    world = await openWorld()
  })
  afterAll(() => world.close())

  async function stocked(): Promise<Enrolled> {
    const target = await world.enrol()
    for (const first of [0, 100])
      await world.directory.publish(
        target,
        upload({
          oneTimePrekeys: target.device.makeOneTimePrekeys(100, first),
          oneTimeKyberPrekeys: target.device.makeKyberPrekeys(100, 2000 + first),
        }),
      )
    return target
  }

  const stockOf = async (target: Enrolled) => {
    const counts = await world.directory.counts(target.deviceKey)
    return [counts.oneTime.count, counts.kyberOneTime.count]
  }

  test('one caller cannot drain a device, and always gets a usable bundle until refused', async () => {
    const directory = world.open({ budget: usualFetchBudget(() => world.clock.nowMs) })
    const target = await stocked()
    const caller = stranger()
    const list = [{ userId: target.userId, deviceId: 1 }]
    for (let i = 0; i < 30; i++) {
      const bundle = (await directory.bundles(caller, list))[0]!.devices[0]!
      expect(bundle.oneTimePrekey === null).toBe(i >= 6)
      expect(bundle.kyberPrekey!.keyId).toBe(i < 6 ? 2000 + i : 1000)
    }
    expect(await stockOf(target)).toEqual([194, 194])
    expect((await world.directory.counts(target.deviceKey)).lastResort?.used).toBe(true)
    await expect(directory.bundles(caller, list)).rejects.toMatchObject({
      ...{ code: 'RATE_LIMITED', retryAfterMs: 20_000, message: 'targets[0] was asked for too often' },
    })
    // Another device of the same user shares the caller's budget.
    await expect(directory.bundles({ ...caller, deviceId: 2, deviceKey: -2 }, list)).rejects.toMatchObject({
      code: 'RATE_LIMITED',
    })
  })

  test('many callers cannot drain a device; those who share a conversation still get one-time keys', async () => {
    const friends = new Set<string>()
    const asked: string[][] = []
    const directory = world.open({
      budget: usualFetchBudget(() => world.clock.nowMs),
      sharesConversation: async (caller, users) => {
        asked.push(users)
        return friends.has(caller) ? new Set(users) : new Set()
      },
    })
    const target = await stocked()
    const list = [{ userId: target.userId, deviceId: 1 }]
    for (let i = 0; i < 120; i++) {
      const bundle = (await directory.bundles(stranger(), list))[0]!.devices[0]!
      expect(bundle.kyberPrekey).not.toBeNull()
    }
    expect(await stockOf(target)).toEqual([150, 150])
    expect(asked[0]).toEqual([target.userId])
    const friend = stranger()
    friends.add(friend.userId)
    expect((await directory.bundles(friend, list))[0]!.devices[0]!.oneTimePrekey).not.toBeNull()
  })

  test("one's own other devices count as shared", async () => {
    const directory = world.open({ budget: usualFetchBudget(() => world.clock.nowMs) })
    const target = await stocked()
    const own = await world.enrol({ of: target })
    const list = [{ userId: target.userId, deviceId: 1 }]
    for (let i = 0; i < 51; i++) await directory.bundles(stranger(), list)
    expect((await directory.bundles(stranger(), list))[0]!.devices[0]!.oneTimePrekey).toBeNull()
    expect((await directory.bundles(own, list))[0]!.devices[0]!.oneTimePrekey).not.toBeNull()
  })

  test('* charges each device, and is refused whole', async () => {
    const directory = world.open({ budget: usualFetchBudget(() => world.clock.nowMs) })
    const first = await stocked()
    const second = await world.enrol({ of: first })
    await world.directory.publish(second, upload({ oneTimePrekeys: second.device.makeOneTimePrekeys(20) }))
    const caller = stranger()
    for (let i = 0; i < 6; i++) await directory.bundles(caller, [{ userId: first.userId, deviceId: '*' }])
    for (const deviceId of [1, 2])
      expect(
        (await directory.bundles(caller, [{ userId: first.userId, deviceId }]))[0]!.devices[0]!.oneTimePrekey,
      ).toBeNull()
    for (let i = 0; i < 23; i++) await directory.bundles(caller, [{ userId: first.userId, deviceId: 2 }])
    const refusal = directory.bundles(caller, [{ userId: first.userId, deviceId: '*' }])
    await expect(refusal).rejects.toMatchObject({ code: 'RATE_LIMITED' })
    expect((await directory.bundles(caller, [{ userId: first.userId, deviceId: 1 }]))[0]!.devices).toHaveLength(1)
  })

  test('looking for users that do not exist is paid too', async () => {
    const directory = world.open({ budget: usualFetchBudget(() => world.clock.nowMs) })
    const caller = stranger()
    const list = () => Array.from({ length: 100 }, () => ({ userId: randomUUID(), deviceId: 1 }))
    for (let i = 0; i < 10; i++) expect(await directory.bundles(caller, list())).toEqual([])
    await expect(directory.bundles(caller, list())).rejects.toMatchObject({
      ...{ code: 'RATE_LIMITED', retryAfterMs: 10_000, message: 'too many bundles asked for' },
    })
    world.clock.nowMs += 10_000
    expect(await directory.bundles(caller, list())).toEqual([])
  })

  test('a budget that refuses spends no key', async () => {
    const target = await stocked()
    const refusing: FetchBudget = {
      charge: async () => 0,
      admit: async () => ({ admitted: false, groupIndex: 0, retryAfterMs: 7 }),
    }
    const list = [{ userId: target.userId, deviceId: 1 }]
    await expect(world.open({ budget: refusing }).bundles(stranger(), list)).rejects.toMatchObject({ retryAfterMs: 7 })
    const poor = world.open({ budget: { ...refusing, charge: async () => 9 } })
    await expect(poor.bundles(stranger(), list)).rejects.toMatchObject({ retryAfterMs: 9 })
    expect(await stockOf(target)).toEqual([200, 200])
  })
})
