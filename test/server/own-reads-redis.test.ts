// Marks for one's other devices across nodes whose hints were lost: said again when Redis is back. [G-4.2] I11
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openRedis, type RedisNodes } from '../../server/bus/redis.ts'
import { openSaid } from '../../server/features/said.ts'
import { systemTime } from '../../server/time.ts'
import { Client, idOf, type Socket } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { pass, read, unasked } from '../support/signals.ts'

describe.skipIf(process.env.SEALPOST_TEST_WITHOUT_REDIS)('two nodes', () => {
  let redis: TestRedis
  const ends: RedisNodes[] = []
  let lost = 0
  let relay: TestRelay
  let far: TestRelay
  beforeAll(async () => {
    redis = await startRedis()
    const { urls, cluster } = redis
    const report = (error: unknown): void => {
      throw error
    }
    const onLost = (hints: number): void => {
      lost += hints
    }
    for (let node = 0; node < 2; node++)
      ends.push(await openRedis({ urls, cluster, time: systemTime(), report, onLost, commandMs: 20_000 }))
    relay = await testRelay({ nodes: ends[0]! })
    far = await testRelay({ nodes: ends[1]!, db: relay.db })
  })
  afterAll(async () => {
    await far.close()
    await relay.close()
    for (const each of ends) await each.close()
    await redis.close()
  })

  const nextRead = async (socket: Socket): Promise<string[]> =>
    (await socket.next('statusUpdate', 0)).ownReads!.map((each) => idOf(each.messageId)!)

  it('a mark of which the hint was lost, since Redis was away, comes when it is back, and once', async () => {
    const [ann, bob] = [await Client.register(relay), await Client.register(relay)]
    const second = await bob.link()
    const conversation = await ann.direct(bob)
    const [a, b] = [await ann.live(), await bob.live()]
    const b2 = await Object.assign(Object.create(second) as Client, { url: far.url }).live()
    const say = async (): Promise<Uint8Array> =>
      (await a.send(conversation, [bob.to(), second.to()])).messageAccepted!.messageId!
    // As it should be.
    const first = await say()
    await read(b, conversation, first)
    expect(await nextRead(b2)).toEqual([idOf(first)])

    const next = await say()
    await redis.kill()
    const before = lost
    await read(b, conversation, next)
    while (lost === before) await new Promise(setImmediate)
    expect(await unasked(b2, 'statusUpdate')).toEqual([])
    await redis.start()
    expect(await nextRead(b2)).toEqual([idOf(next)])
    for (const each of [b, b2]) expect(await unasked(each, 'statusUpdate')).toEqual([])
    for (const each of [a, b, b2]) await each.close()
  })
})

describe('what is said again', () => {
  const time = new FakeTime()
  const heard: string[] = []
  const opened = () => openSaid(time, (each: string) => heard.push(each))
  beforeEach(() => {
    heard.length = 0
  })

  it('is the last under each name, soon, and nothing from long ago', async () => {
    const said = opened()
    said.add('a', 'a1')
    said.add('b', 'b1')
    said.add('a', 'a2')
    for (let i = 0; i < 3; i++) said.again()
    expect(heard).toEqual([])
    await pass(time, 1_000)
    expect(heard.splice(0)).toEqual(['b1', 'a2'])
    await pass(time, 600_000)
    said.add('new', 'new')
    said.again()
    await pass(time, 1_000)
    expect(heard.splice(0)).toEqual(['new'])
    said.again()
    said.stop()
    expect(time.nextMs()).toBe(Number.POSITIVE_INFINITY)
  })

  it('is said less and less often while there is always a reason, as long as it is remembered; soon again later', async () => {
    const said = opened()
    said.add('a', 'a')
    for (const gapMs of [1_000, 4_000, 16_000, 64_000, 64_000]) {
      said.again()
      await pass(time, gapMs - 100)
      expect(heard.splice(0)).toEqual([])
      await pass(time, 100)
      expect(heard.splice(0)).toEqual(['a'])
    }
    await pass(time, 64_100)
    said.again()
    await pass(time, 1_000)
    expect(heard).toEqual(['a'])
    expect(time.nextMs()).toBe(Number.POSITIVE_INFINITY)
  })

  it('is said a few at a time, and once more for who asks meanwhile; the oldest of too many are forgotten', async () => {
    const said = opened()
    for (let i = 0; i < 5_001; i++) said.add(`${i}`, `${i}`)
    said.again()
    await pass(time, 1_000)
    expect(heard).toHaveLength(500)
    said.again()
    await pass(time, 900)
    expect([heard.length, heard[0], heard.at(-1)]).toEqual([5_000, '1', '5000'])
    await pass(time, 4_900)
    expect([heard.length, heard[5_000], heard.at(-1)]).toEqual([10_000, '1', '5000'])
    expect(time.nextMs()).toBe(Number.POSITIVE_INFINITY)
  })
})
