// Routes: which node has a device. What every implementation does, and what only one with other processes behind it must. I6 I11
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { openRedis, type RedisNodes } from '../../server/bus/redis.ts'
import { type OpenRoutes, openLocalRoutes, type Routes } from '../../server/bus/routes.ts'
import { FakeTime } from '../support/faketime.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'

type Told = { deviceKey: number; epoch: number }
/** One node's end, and what it was told. `heard` resolves when it was told of a device. */
type Node = { routes: Routes; told: Told[]; heard(deviceKey: number): Promise<number> }

const opened: Node[] = []
afterEach(async () => {
  await Promise.all(opened.splice(0).map((each) => each.routes.close()))
})

function node(open: OpenRoutes): Node {
  const told: Told[] = []
  const waiting: { deviceKey: number; resolve(epoch: number): void }[] = []
  const routes = open((deviceKey, epoch) => {
    told.push({ deviceKey, epoch })
    for (const each of waiting) if (each.deviceKey === deviceKey) each.resolve(epoch)
  })
  const own = {
    routes,
    told,
    heard: (deviceKey: number): Promise<number> =>
      new Promise((resolve) => {
        const already = told.find((each) => each.deviceKey === deviceKey)
        if (already) resolve(already.epoch)
        else waiting.push({ deviceKey, resolve })
      }),
  }
  opened.push(own)
  return own
}
/** The epoch a route stands at, once it is that one. */
async function until(routes: Routes, deviceKey: number, epoch: number | null): Promise<void> {
  while (((await routes.find(deviceKey).catch(() => ({ epoch: -1 })))?.epoch ?? null) !== epoch);
}

let next = 1000
const device = (): number => ++next

const HOLDS_MS = 800
let redis: TestRedis | null = null
const joined: RedisNodes[] = []
const time = new FakeTime()
const report = (error: unknown): void => {
  throw error
}
async function join(): Promise<RedisNodes> {
  redis ??= await startRedis()
  const { urls, cluster } = redis
  const settings = { urls, cluster, time, report, onLost: () => {} }
  const nodes = await openRedis({ ...settings, ...(joined.length > 1 && { routeMs: HOLDS_MS }) })
  joined.push(nodes)
  return nodes
}
const withoutRedis = Boolean(process.env.SEALPOST_TEST_WITHOUT_REDIS)
beforeAll(async () => {
  if (!withoutRedis) for (let i = 0; i < 3; i++) await join()
})
afterAll(async () => {
  await Promise.all(joined.map((each) => each.close()))
  await redis?.close()
})

const local = openLocalRoutes()
const implementations: { name: string; open: (at: 0 | 1) => OpenRoutes }[] = [
  { name: 'in process', open: () => local },
  ...(withoutRedis ? [] : [{ name: 'Redis', open: (at: 0 | 1) => joined[at]!.routes }]),
]

describe.each(implementations)('$name', ({ open }) => {
  const two = (): [Node, Node] => [node(open(0)), node(open(1))]

  it('a higher epoch takes the route; a lower one is told of it and changes nothing', async () => {
    const [a, b] = two()
    const key = device()
    a.routes.hold(key, 10)
    await until(b.routes, key, 10)
    b.routes.hold(key, 12)
    await until(a.routes, key, 12)
    const there = await a.routes.find(key)
    a.routes.hold(key, 11)
    expect(await a.heard(key)).toBe(12)
    expect(await b.routes.find(key)).toEqual(there)
    expect(b.told).toEqual([])
  })

  it('the same epoch again, and a lower one of the same node, are nothing new', async () => {
    const [a, b] = two()
    const key = device()
    a.routes.hold(key, 10)
    a.routes.hold(key, 10)
    a.routes.hold(key, 9)
    await until(b.routes, key, 10)
    expect(a.told).toEqual([])
  })

  it('a release does not remove the route of a newer one, on whatever node', async () => {
    const [a, b] = two()
    const [key, own, fence] = [device(), device(), device()]
    a.routes.hold(key, 10)
    a.routes.hold(own, 20)
    await until(b.routes, own, 20)
    b.routes.hold(key, 12)
    await until(a.routes, key, 12)
    a.routes.release(key, 10)
    a.routes.hold(own, 21)
    a.routes.release(own, 20)
    a.routes.hold(fence, 1)
    await until(a.routes, fence, 1)
    expect((await b.routes.find(key))?.epoch).toBe(12)
    expect((await b.routes.find(own))?.epoch).toBe(21)
    b.routes.release(key, 12)
    await until(a.routes, key, null)
  })

  it('who insists stands against a higher epoch; who does not hold the device cannot', async () => {
    const [a, b] = two()
    const [key, fence] = [device(), device()]
    b.routes.hold(key, 99)
    await until(a.routes, key, 99)
    a.routes.hold(key, 10)
    await a.heard(key)
    a.routes.insist(key, 10)
    await until(b.routes, key, 10)
    a.routes.release(key, 10)
    a.routes.insist(key, 10)
    a.routes.hold(fence, 1)
    await until(a.routes, fence, 1)
    expect(await a.routes.find(key)).toBe(null)
  })

  it('a node that goes down takes its routes along, and no others', async () => {
    const [a, b] = two()
    const [gone, stays] = [device(), device()]
    a.routes.hold(gone, 1)
    a.routes.hold(stays, 2)
    await until(b.routes, stays, 2)
    b.routes.hold(stays, 3)
    await until(b.routes, stays, 3)
    await a.routes.close()
    await until(b.routes, gone, null)
    expect((await b.routes.find(stays))?.epoch).toBe(3)
  })
})

const redisOnly = (): void => {
  const pass = (ms: number): void => {
    for (let passed = 0; passed < ms; passed += 1_000) time.advance(1_000)
  }

  it('a node that says nothing any more loses its routes when their time is over', async () => {
    const dying = node(joined[2]!.routes)
    const key = device()
    const asking = node(joined[0]!.routes)
    // Said until it was seen: whoever looks too late finds it gone already.
    do dying.routes.hold(key, 5)
    while ((await asking.routes.find(key))?.epoch !== 5)
    // Time stands still, so it does not say it again.
    await until(asking.routes, key, null)
  })

  it('a route holds for five minutes, and is said again every 30 seconds', async () => {
    const a = node(joined[0]!.routes)
    const keys = Array.from({ length: 45 }, device)
    for (const key of keys) a.routes.hold(key, 5)
    await until(a.routes, keys.at(-1)!, 5)
    const left = async (key: number): Promise<number> =>
      (await redis!.command('pttl', `sealpost:route:${key}`))[0] as number
    expect(await left(keys[0]!)).toBeGreaterThan(290_000)
    expect(await left(keys[0]!)).toBeLessThanOrEqual(300_000)
    for (const key of keys) await redis!.command('pexpire', `sealpost:route:${key}`, '100000')
    pass(29_000)
    expect(await left(keys.at(-1)!)).toBeLessThanOrEqual(100_000)
    pass(35_000)
    for (const key of keys) while ((await left(key)) <= 100_000);
  })

  it('the round finds out that another node has the device', async () => {
    const [a, b] = [node(joined[0]!.routes), node(joined[1]!.routes)]
    const key = device()
    a.routes.hold(key, 10)
    await until(a.routes, key, 10)
    b.routes.hold(key, 11)
    await until(a.routes, key, 11)
    expect(a.told).toEqual([])
    pass(61_000)
    expect(await a.heard(key)).toBe(11)
    expect(b.told).toEqual([])
  })

  it('emptied and started again: routes are said again when it is back, the highest stays, what was released does not return', async () => {
    const [a, b] = [node(joined[0]!.routes), node(joined[1]!.routes)]
    const [key, released] = [device(), device()]
    a.routes.hold(key, 10)
    a.routes.hold(released, 20)
    await until(a.routes, released, 20)
    await redis!.kill()
    await expect(a.routes.find(key)).rejects.toThrow()
    b.routes.hold(key, 11)
    a.routes.release(released, 20)
    await redis!.start()
    await until(a.routes, key, 11)
    // Whoever of the two came first: its next round finds out.
    pass(61_000)
    expect(await a.heard(key)).toBe(11)
    expect(await a.routes.find(released)).toBe(null)
    expect(b.told).toEqual([])
  })
}
if (!withoutRedis) describe('Redis: with other processes', redisOnly)
