// Token buckets: what they promise wherever they are counted, and what becomes of them while Redis is away.
import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Limit, limited, type OpenMeter, openLocalMeters, type Rate } from '../../keys/meter.ts'
import { openRedis, type RedisNodes } from '../../server/bus/redis.ts'
import { systemTime } from '../../server/time.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const limit = (rates: Rate[], whenGone: Limit['whenGone'] = 'open'): Limit => ({ name: randomUUID(), rates, whenGone })

type Place = {
  /** A node's way to it; each may be a process of its own. */
  node(): OpenMeter
  /** Moves the time by which buckets refill, back with a negative number. */
  advance(ms: number): Promise<void>
}
type Implementation = { name: string; open(): Promise<Place>; close(): Promise<void> }

const inProcess = (): Implementation => {
  let nowMs = 1_800_000_000_000
  return {
    name: 'in process',
    async open() {
      const meters = openLocalMeters(() => nowMs)
      return {
        node: () => meters,
        advance: async (ms) => {
          nowMs += ms
        },
      }
    },
    close: async () => {},
  }
}

const connected: RedisNodes[] = []
async function connect({ urls, cluster }: TestRedis, onAlone?: (limit: string) => void): Promise<OpenMeter> {
  const report = (error: unknown): void => {
    throw error
  }
  const node = await openRedis({
    urls,
    cluster,
    time: systemTime(),
    report,
    onLost: () => {},
    ...(onAlone && { onAlone }),
    // A Redis that waits for its turn counts, too: what is away here was killed.
    ...{ patienceMs: 20_000, commandMs: 20_000, silenceMs: 20_000 },
  })
  connected.push(node)
  return node.meters
}

/** Its clock cannot be moved: what it wrote down is moved the other way. */
const THEN = `local moved = 0
for _, key in ipairs(redis.call('KEYS', 'sealpost:limit:*')) do
  local at, rest = string.match(redis.call('GET', key), '^(%d+)(.*)$')
  redis.call('SET', key, string.format('%.0f', at - ARGV[1]) .. rest, 'KEEPTTL')
  moved = moved + 1
end
return moved`

function throughRedis(name: string, servers: 1 | 3): Implementation {
  let redis: TestRedis | null = null
  return {
    name,
    async open() {
      redis = await startRedis({ servers })
      const nodes = [await connect(redis), await connect(redis)]
      let next = 0
      return {
        node: () => nodes[next++ % nodes.length]!,
        async advance(ms) {
          await redis!.command('eval', THEN, '0', `${ms * 1000}`)
        },
      }
    },
    close: async () => redis?.close(),
  }
}

const implementations = process.env.SEALPOST_TEST_WITHOUT_REDIS
  ? [inProcess()]
  : [inProcess(), throughRedis('Redis', 1), throughRedis('a Redis cluster', 3)]
afterAll(() => Promise.all(connected.map((each) => each.close())))

describe.each(implementations)('$name', ({ open, close }) => {
  let place: Place
  beforeAll(async () => {
    place = await open()
  })
  afterAll(() => close())

  const meter = (...rates: Rate[]) => {
    const { take, give } = place.node()(limit(rates))
    return { take: async (...given: Parameters<typeof take>): Promise<number> => take(...given), give }
  }
  /** How many of so many, one after the other, were let through. */
  async function passing(count: number, take: () => number | Promise<number>): Promise<number> {
    let passed = 0
    for (let i = 0; i < count; i++) if ((await take()) === 0) passed++
    return passed
  }

  it('exactly the burst passes; the next when one is back, and not before', async () => {
    const { take } = meter({ burst: 10, everyMs: HOUR })
    expect(await passing(10, () => take('ann', 1))).toBe(10)
    const waitMs = await take('ann', 1)
    expect(waitMs).toBeLessThanOrEqual(HOUR)
    expect(waitMs).toBeGreaterThan(HOUR - MINUTE)
    await place.advance(HOUR - MINUTE)
    expect(await take('ann', 1)).toBeLessThanOrEqual(MINUTE)
    expect(await take('ann', 1)).toBeGreaterThan(0)
    await place.advance(MINUTE)
    expect(await passing(2, () => take('ann', 1))).toBe(1)
    expect(await passing(11, () => take('bob', 1))).toBe(10)
  })

  it('of two windows each counts; what one refuses costs the other nothing', async () => {
    const { take } = meter({ burst: 10, everyMs: HOUR }, { burst: 15, everyMs: 10 * HOUR })
    expect(await passing(12, () => take('ann', 1))).toBe(10)
    await place.advance(10 * HOUR)
    // The first is full again, the second has 5 and one more.
    expect(await passing(10, () => take('ann', 1))).toBe(6)
    const waitMs = await take('ann', 1)
    expect(waitMs).toBeGreaterThan(9 * HOUR)
    expect(waitMs).toBeLessThanOrEqual(10 * HOUR)
    expect(await take('ann', [4, 0])).toBe(0)
    expect(await take('ann', [1, 0])).toBeGreaterThan(0)
  })

  it('more than a bucket ever holds is given when it is full, and owed', async () => {
    const { take } = meter({ burst: 5, everyMs: HOUR })
    expect(await take('ann', 12)).toBe(0)
    await place.advance(7 * HOUR - MINUTE)
    expect(await take('ann', 1)).toBeGreaterThan(HOUR)
    await place.advance(HOUR + MINUTE)
    expect(await take('ann', 1)).toBe(0)
    await place.advance(4 * HOUR - MINUTE)
    expect(await take('ann', 6)).toBeGreaterThan(0)
    await place.advance(HOUR + MINUTE)
    expect(await take('ann', 6)).toBe(0)
  })

  it('what must be there may be more than what is taken', async () => {
    const { take } = meter({ burst: 10, everyMs: HOUR })
    expect(await passing(8, () => take('ann', 1, 6))).toBe(5)
    expect(await passing(8, () => take('ann', 1))).toBe(5)
  })

  it('what is given back is there again, and never more than the burst', async () => {
    const { take, give } = meter({ burst: 3, everyMs: HOUR }, { burst: 4, everyMs: HOUR })
    give('ann', 100)
    expect(await passing(4, () => take('ann', 1))).toBe(3)
    give('ann', [2, 0])
    expect(await passing(4, () => take('ann', 1))).toBe(1)
    give('ann', 100)
    expect(await passing(4, () => take('ann', 1))).toBe(3)
  })

  it('nodes share a bucket, also at the same moment', async () => {
    const one = limit([{ burst: 20, everyMs: HOUR }])
    const nodes = [place.node()(one), place.node()(one)]
    const answers = await Promise.all(Array.from({ length: 60 }, (_, i) => nodes[i % 2]!.take('ann', 1)))
    expect(answers.filter((waitMs) => waitMs === 0)).toHaveLength(20)
    nodes[0]!.give('ann', 3)
    expect(await passing(5, () => nodes[1]!.take('ann', 1))).toBe(3)
  })

  it('a clock that jumps ahead fills buckets and no more; one that goes back takes nothing, and refilling goes on', async () => {
    const { take } = meter({ burst: 4, everyMs: HOUR })
    await passing(4, () => take('ann', 1))
    await place.advance(1000 * HOUR)
    expect(await passing(9, () => take('ann', 1))).toBe(4)
    await place.advance(-500 * HOUR)
    expect(await take('ann', 1)).toBeLessThanOrEqual(HOUR)
    expect(await take('ann', 1)).toBeGreaterThan(HOUR - MINUTE)
    await place.advance(HOUR)
    expect(await passing(3, () => take('ann', 1))).toBe(1)
  })

  it('limits are apart, and one without buckets limits nothing', async () => {
    const [one, other, none] = [meter({ burst: 1, everyMs: HOUR }), meter({ burst: 1, everyMs: HOUR }), meter()]
    expect(await passing(2, () => one.take('ann', 1))).toBe(1)
    expect(await passing(2, () => other.take('ann', 1))).toBe(1)
    none.give('ann', 5)
    expect(await passing(100, () => none.take('ann', 1e9))).toBe(100)
  })
})

describe('in process', () => {
  it('no sequence of takes gets more than the rate, and every wait that is named is exactly enough', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 50 }),
        fc.integer({ min: 1, max: 100_000 }),
        fc.array(fc.tuple(fc.nat(500_000), fc.integer({ min: 1, max: 5 })), { maxLength: 60 }),
        (burst, everyMs, steps) => {
          let nowMs = 1_780_000_000_000
          const startMs = nowMs
          const { take, give } = openLocalMeters(() => nowMs)(limit([{ burst, everyMs }]))
          let taken = 0
          for (const [stepMs, wanted] of steps) {
            nowMs += stepMs
            const tokens = Math.min(wanted, burst)
            const waitMs = take('a', tokens)
            if (waitMs > 0) {
              nowMs += waitMs - 1
              expect(take('a', tokens)).toBe(1)
              nowMs += 1
              expect(take('a', tokens)).toBe(0)
              give('a', tokens)
              continue
            }
            taken += tokens
            expect(taken).toBeLessThanOrEqual(burst + (nowMs - startMs) / everyMs)
          }
        },
      ),
    )
  })

  it('is bounded: the key idle longest is forgotten first', () => {
    const { take, size } = openLocalMeters(() => 0, 100)(limit([{ burst: 1, everyMs: 1000 }]))
    for (let key = 0; key < 10_000; key++) take(`${key}`, 1)
    expect(size()).toBe(100)
    expect([take('9900', 1), take('9899', 1)]).toEqual([1000, 0])
  })

  it('a wait that nobody can tell is UNAVAILABLE, any other RATE_LIMITED for so long', () => {
    expect(limited('too often', 7)).toMatchObject({ code: 'RATE_LIMITED', retryAfterMs: 7, message: 'too often' })
    expect(limited('too often', Number.POSITIVE_INFINITY)).toMatchObject({ code: 'UNAVAILABLE', retryAfterMs: 1000 })
  })
})

describe.skipIf(process.env.SEALPOST_TEST_WITHOUT_REDIS)('while Redis is away', () => {
  let redis: TestRedis
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.close())

  /** A node does not ask at once again after it was left without an answer. */
  async function reached(node: OpenMeter): Promise<void> {
    const probe = node(limit([{ burst: 1, everyMs: 1 }], 'closed'))
    while (!Number.isFinite(await probe.take('anybody', 1))) await new Promise((resolve) => setTimeout(resolve, 10))
  }

  it('what fails open is counted by each node alone, what fails closed is refused; then both are shared again', async () => {
    const alone: string[] = []
    const [near, far] = [await connect(redis, (name) => alone.push(name)), await connect(redis)]
    const [open, closed] = [limit([{ burst: 3, everyMs: HOUR }]), limit([{ burst: 3, everyMs: HOUR }], 'closed')]
    const take = (node: OpenMeter, which: Limit) => node(which).take('ann', 1)
    expect([await take(near, open), await take(far, closed)]).toEqual([0, 0])
    expect(alone).toEqual([])
    await redis.kill()
    for (const node of [near, far]) {
      const passed: boolean[] = []
      for (let i = 0; i < 4; i++) passed.push((await take(node, open)) === 0)
      expect(passed).toEqual([true, true, true, false])
      expect(await take(node, closed)).toBe(Number.POSITIVE_INFINITY)
    }
    expect(alone).toEqual([open, open, open, open, closed].map(({ name }) => name))
    await redis.start()
    // It came back empty: three for both together.
    const left: number[] = []
    for (const node of [near, far]) await reached(node)
    for (let i = 0; i < 4; i++) for (const node of [near, far]) left.push(await take(node, closed))
    expect(left.filter((waitMs) => waitMs === 0)).toHaveLength(3)
  })

  it('nothing stays behind: a key ends when its buckets are full', async () => {
    const node = await connect(redis)
    const one = limit([{ burst: 3, everyMs: MINUTE }])
    await reached(node)
    expect(await node(one).take('ann', 2)).toBe(0)
    const key = `sealpost:limit:${one.name}:ann`
    const [leftMs] = (await redis.command('pttl', key)) as [number]
    expect(leftMs).toBeGreaterThan(0)
    expect(leftMs).toBeLessThanOrEqual(2 * MINUTE)
    node(one).give('ann', 2)
    while ((await redis.command('exists', key))[0] !== 0);
  })
})
