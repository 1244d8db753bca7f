// Who went while Redis was away: forgotten when Redis forgets by itself, said a few at a time when it is back. I10 I14
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import type { PresenceStore } from '../../server/bus/presence.ts'
import { openRedis, type RedisNodes } from '../../server/bus/redis.ts'
import type { Routes } from '../../server/bus/routes.ts'
import { openUnsaid } from '../../server/bus/unsaid.ts'
import { FakeTime } from '../support/faketime.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'

const GONE = 1_200
/** Of one step, with what belongs to the script itself. */
const SLICE = 500
const HOLDS_MS = 5 * 60_000

const time = new FakeTime()
const reported: unknown[] = []
let redis: TestRedis
let nodes: RedisNodes
let routes: Routes
let presence: PresenceStore
let onNewer: (deviceKey: number) => void = () => {}
beforeAll(async () => {
  redis = await startRedis()
  const { urls, cluster } = redis
  nodes = await openRedis({ urls, cluster, time, report: (error) => reported.push(error), onLost: () => {} })
  routes = nodes.routes((deviceKey) => onNewer(deviceKey))
  presence = nodes.presence()
})
afterAll(async () => {
  await Promise.all([routes.close(), presence.close()])
  await nodes.close()
  await redis.close()
})
beforeEach(() => {
  reported.length = 0
})

const soon = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5))
/** What was said before it is answered, or known not to be. */
const settled = (): Promise<boolean> =>
  routes.find(1).then(
    () => true,
    () => false,
  )
/** Between two steps there are turns: what a dying connection took comes back in one. */
async function pass(ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 1_000) {
    time.advance(1_000)
    await settled()
  }
}
/** Scripts run since Redis was started. */
async function scripts(): Promise<number> {
  const [stats] = await redis.command('info', 'commandstats')
  return [...String(stats).matchAll(/cmdstat_eval(?:sha)?:calls=(\d+)/g)].reduce((sum, [, n]) => sum + Number(n), 0)
}
/** Redis is killed, and they go before anybody has noticed. */
async function awayWhile(goAll: () => void): Promise<void> {
  await redis.kill()
  goAll()
  await settled()
  while (nodes.isConnected()) await soon()
}
/** Redis is there, and has heard what was said to it when it came. */
async function back(): Promise<void> {
  await redis.start()
  for (let heard = 0; heard < 3; ) {
    if (nodes.isConnected() && (await settled())) heard++
    else await soon()
  }
}
const ends: { name: string; goAll(): void }[] = [
  {
    name: 'routes',
    goAll() {
      for (let key = 1; key <= GONE; key++) routes.hold(key, 7)
      for (let key = 1; key <= GONE; key++) routes.release(key, 7)
    },
  },
  {
    name: 'presence',
    goAll() {
      const users = Array.from({ length: GONE }, () => randomUUID())
      for (const each of users) presence.arrived(each)
      for (const each of users) presence.left(each)
    },
  },
]

it.each(ends)('$name: an outage longer than they hold leaves nothing to say and nothing to do', async ({ goAll }) => {
  await awayWhile(goAll)
  expect(time.nextMs()).toBeLessThan(Number.POSITIVE_INFINITY)
  await pass(HOLDS_MS + 1_000)
  expect(time.nextMs()).toBe(Number.POSITIVE_INFINITY)
  await back()
  await pass(60_000)
  expect(await scripts()).toBe(0)
})

it.each(ends)('$name: after a short one they are said in steps, until all are', async ({ goAll }) => {
  await awayWhile(goAll)
  await back()
  expect(await scripts()).toBeLessThanOrEqual(SLICE)
  let before = await scripts()
  const seen: number[] = []
  while (time.nextMs() < Number.POSITIVE_INFINITY) {
    await pass(1_000)
    const now = await scripts()
    seen.push(now - before)
    before = now
  }
  expect(Math.max(...seen)).toBeLessThanOrEqual(SLICE)
  expect(before).toBe(GONE)
})

it('what cannot be said over and over grows no older than it holds', () => {
  const unsaid = openUnsaid<number, string>(10)
  unsaid.add(1, 'one')
  for (let step = 0; step < 9; step++) {
    unsaid.step()
    for (const { key, value, since } of unsaid.take()) unsaid.add(key, value, since)
  }
  unsaid.add(2, 'two')
  expect(unsaid.size).toBe(2)
  unsaid.step()
  expect(unsaid.take()).toEqual([{ key: 2, value: 'two', since: 9 }])
  expect(unsaid.size).toBe(0)
})

it('a listener that throws is reported, and costs nobody the end of it', async () => {
  const other = nodes.routes(() => {})
  other.hold(5_000, 9)
  while ((await other.find(5_000))?.epoch !== 9);
  onNewer = () => {
    throw new Error('deaf')
  }
  routes.hold(5_000, 8)
  while (reported.length === 0) await soon()
  expect(reported).toEqual([new Error('deaf')])
  await other.close()
})
