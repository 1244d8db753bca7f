// What the connections to Redis do when it says nothing, and when nobody has what is asked for. I11
import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Limit } from '../../keys/meter.ts'
import type { Bus, Hint } from '../../server/bus/bus.ts'
import { openRedis, type RedisNodes, type RedisSettings } from '../../server/bus/redis.ts'
import { openRendezvous } from '../../server/rendezvous.ts'
import { type JoinedRendezvous, joinRendezvous } from '../../server/rendezvous-nodes.ts'
import { systemTime } from '../../server/time.ts'
import { FakeTime } from '../support/faketime.ts'
import { openProxy } from '../support/proxy.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'

const SILENCE_MS = 300
/** Long enough for all that silence ends, also where this process did not get its turn for a second. */
const PAUSE_MS = 8 * SILENCE_MS
const opened: { close(): Promise<void> }[] = []
afterEach(async () => {
  for (const each of opened.splice(0).reverse()) await each.close()
})

let lost = 0
async function open(redis: TestRedis, own: Partial<RedisSettings> = {}): Promise<RedisNodes> {
  const report = (error: unknown): void => {
    throw error
  }
  const onLost = (hints: number): void => {
    lost += hints
  }
  const { urls, cluster } = redis
  const nodes = await openRedis({ urls, cluster, time: systemTime(), report, onLost, silenceMs: SILENCE_MS, ...own })
  opened.push(nodes)
  return nodes
}
function end(nodes: RedisNodes, receive: (hint: Hint) => void = () => {}): Bus {
  const bus = nodes.bus(receive)
  opened.push(bus)
  return bus
}
const soon = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20))

describe('one Redis', () => {
  let redis: TestRedis
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.close())

  it('vanished without a word: it is noticed, also by who only listens; hints flow again through new connections', async () => {
    const proxy = await openProxy(redis.urls[0]!)
    opened.push(proxy)
    const told: boolean[] = []
    const heard: number[] = []
    const far = end(await open(redis))
    const behind = await open(redis, { urls: [proxy.url], onConnected: (isConnected) => told.push(isConnected) })
    const near = end(behind, (hint) => {
      if (hint.kind === 'lookAgain') heard.push(hint.deviceKey)
    })
    /** Hints for this device come from the other node; nothing is asked of the vanished connections meanwhile. */
    async function untilHeard(deviceKey: number): Promise<void> {
      while (!heard.includes(deviceKey)) {
        far.publish({ kind: 'lookAgain', deviceKey })
        await soon()
      }
    }
    await near.join('device:1')
    await near.join('device:2')
    await untilHeard(1)
    proxy.vanish()
    await untilHeard(2)
    expect(told[0]).toBe(false)
    while (!behind.isConnected()) await soon()
    expect(told.at(-1)).toBe(true)
  })
})

describe('linking across nodes', () => {
  it('a connection that throws when it is handed something is reported; the other node hears nothing [I-5.3]', async () => {
    const redis = await startRedis()
    opened.push(redis)
    const [time, reported] = [new FakeTime(), [] as unknown[]]
    async function join(): Promise<JoinedRendezvous> {
      // What is handed over is said once: nobody is to be taken for silent here.
      const nodes = await open(redis, { silenceMs: 10_000 })
      const bus = end(nodes, (hint) => rendezvous.hear(hint))
      const report = (error: unknown): void => void reported.push(error)
      const rendezvous = joinRendezvous(openRendezvous(), { bus, places: nodes.places, time, report })
      opened.push({ close: async () => rendezvous.close() })
      return rendezvous
    }
    const [near, far] = [await join(), await join()]
    await near.wait('somewhere', () => {
      throw new Error('already gone')
    })
    const handed = expect(far.hand('somewhere', new Uint8Array(1))).rejects.toThrow(/not reached/)
    while (reported.length === 0) await soon()
    expect(reported).toEqual([new Error('already gone')])
    time.advance(2_000)
    await handed
  })
})

describe('a cluster', () => {
  let redis: TestRedis
  beforeAll(async () => {
    redis = await startRedis({ servers: 3 })
  })
  afterAll(() => redis.close())

  /** Whoever is connected to a server, other than who asks, and than one connection of each client that is never used. */
  const connections = async (): Promise<string[]> =>
    (await redis.command('client', 'list')).flatMap((list, server) =>
      String(list)
        .split('\n')
        .filter((line) => line.startsWith('id=') && !/cmd=client\|list|\(subscriber\)/.test(line))
        .map((line) => `${server} ${/^id=\d+/.exec(line)}`),
    )

  it('silent for long: every connection is made anew, also those that only listen', async () => {
    const heard = new Set<number>()
    const far = end(await open(redis))
    const near = end(await open(redis), (hint) => {
      if (hint.kind === 'lookAgain') heard.add(hint.deviceKey)
    })
    // Of each server some.
    const devices = Array.from({ length: 20 }, (_, i) => i + 1)
    for (const each of devices) await near.join(`device:${each}`)
    async function untilHeard(): Promise<void> {
      heard.clear()
      while (heard.size < devices.length) {
        for (const deviceKey of devices) far.publish({ kind: 'lookAgain', deviceKey })
        await soon()
      }
    }
    await untilHeard()
    const before = await connections()
    expect(before.length).toBeGreaterThanOrEqual(4)
    await redis.command('client', 'pause', `${PAUSE_MS}`)
    await redis.command('ping')
    await untilHeard()
    const after = new Set(await connections())
    expect(before.filter((each) => after.has(each))).toEqual([])
  })

  it('slots that no server has: nothing throws, limits do what they say of themselves, hints are lost and no more', async () => {
    const DEVICES = 15
    await redis.command('config', 'set', 'cluster-require-full-coverage', 'no')
    const uncovered = async (): Promise<boolean> =>
      (await redis.command('cluster', 'info')).every((info) => /cluster_slots_assigned:10923/.test(String(info)))
    while (!(await uncovered())) await redis.command('cluster', 'delslotsrange', '0', '5460').catch(() => {})
    const isGone = async (key: string): Promise<boolean> =>
      Number((await redis.command('cluster', 'keyslot', key))[0]) <= 5460
    const nodes = await open(redis)
    const heard = new Set<number>()
    const bus = end(nodes, (hint) => {
      if (hint.kind === 'lookAgain') heard.add(hint.deviceKey)
    })
    const routes = nodes.routes(() => {})
    opened.push(routes)
    const presence = nodes.presence()
    opened.push(presence)
    const places = nodes.places(randomUUID())
    const limit = (whenGone: Limit['whenGone']): Limit => ({
      name: 'uncovered',
      rates: [{ burst: 1, everyMs: 3_600_000 }],
      whenGone,
    })
    let gone = 0
    for (let key = 1; key <= DEVICES; key++) {
      await bus.join(`device:${key}`)
      bus.leave(`device:${key}`)
      routes.hold(key, 1)
      routes.insist(key, 1)
      routes.release(key, 1)
      const user = randomUUID()
      presence.arrived(user)
      presence.left(user)
      places.leave(`${key}`)
      if (!(await isGone(`sealpost:limit:uncovered:${key}`))) continue
      gone++
      expect(await nodes.meters(limit('open')).take(`${key}`, 1)).toBe(0)
      expect(await nodes.meters(limit('closed')).take(`${key}`, 1)).toBe(Number.POSITIVE_INFINITY)
      nodes.meters(limit('open')).give(`${key}`, 1)
    }
    expect(gone).toBeGreaterThan(0)

    const there: number[] = []
    const away: number[] = []
    for (let key = 1; key <= DEVICES; key++) ((await isGone(`sealpost:device:${key}`)) ? away : there).push(key)
    lost = 0
    // As many as may be on their way at once.
    for (let i = 0; i < 10_000; i++) bus.publish({ kind: 'lookAgain', deviceKey: away[0]! })
    while (lost < 10_000) await soon()
    bus.publish({ kind: 'lookAgain', deviceKey: there[0]! })
    expect(lost).toBe(10_000)

    // The node that came when nobody had them hears what is said to it once somebody has.
    for (const key of [there[0]!, away[0]!]) await bus.join(`device:${key}`)
    heard.clear()
    await redis.commandAt(0, 'cluster', 'addslotsrange', '0', '5460')
    const far = end(await open(redis))
    while (heard.size < 2) {
      for (const deviceKey of [there[0]!, away[0]!]) far.publish({ kind: 'lookAgain', deviceKey })
      await soon()
    }
  })
})
