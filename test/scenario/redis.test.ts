// Two nodes and a real Redis between them, which is killed, emptied, and cuts connections off: latency suffers, nothing else. I11
import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes } from '../../proto/ids.ts'
import { openRedis, type RedisNodes } from '../../server/bus/redis.ts'
import { systemTime } from '../../server/time.ts'
import { Client, type Socket } from '../support/client.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { send, typing, watch } from '../support/signals.ts'

const { ErrorCode } = sealpost.v1
const report = (error: unknown): void => {
  throw error
}
let redis: TestRedis
const connected: RedisNodes[] = []
let lost = 0
async function connect(presenceMs?: number): Promise<RedisNodes> {
  const { urls, cluster } = redis
  const word = presenceMs ? { presenceMs } : {}
  const node = await openRedis({ urls, cluster, time: systemTime(), report, onLost: (n) => (lost += n), ...word })
  connected.push(node)
  return node
}

let near: TestRelay
let far: TestRelay
let ann: Client
let bob: Client
let conversation: string
let from: Socket
let to: Socket

const elsewhere = (client: Client): Client => Object.assign(Object.create(client), { url: far.url })

beforeAll(async () => {
  redis = await startRedis()
  near = await testRelay({ nodes: await connect() })
  far = await testRelay({ nodes: await connect(), db: near.db })
})
afterAll(async () => {
  await far.close()
  await near.close()
  await Promise.all(connected.map((each) => each.close()))
  await redis.close()
})
beforeEach(async () => {
  ;[ann, bob] = await Promise.all([Client.register(near), Client.register(near)])
  conversation = await ann.direct(bob)
  from = await ann.live()
  to = await elsewhere(bob).live()
})
afterEach(async () => {
  await Promise.all([from.close(), to.close()])
})

/** A device may ask once in two seconds. */
const later = () => new Promise((resolve) => setTimeout(resolve, 2_000))
/** Redis says that he is online. A question it does not answer in a second is refused, and asked again. */
async function untilOnline(socket: Socket, who: Client): Promise<void> {
  while (!(await watch(socket, who).catch((): Record<string, boolean> => ({})))[who.userId]) await later()
}

/** Hints of this kind that came to the far node. */
async function hints(kind: string): Promise<number> {
  const text = await (await fetch(`${far.url}/metrics`)).text()
  return Number(new RegExp(`hints_total\\{kind="${kind}"\\} (\\d+)`).exec(text)?.[1] ?? 0)
}
/** Sends so many one after the other, acks what comes. @returns their places in the queue, as they came. */
async function exchange(count: number): Promise<number[]> {
  const came: number[] = []
  const sending = (async () => {
    for (let i = 0; i < count; i++) await send(from, conversation, bob)
  })()
  while (came.length < count) {
    const { messageId, sequence } = await to.next('envelope')
    came.push(sequence!)
    await to.ack(messageId)
  }
  await sending
  return came
}
const expectOrder = (came: number[]): void => expect(came).toEqual(came.map((_, i) => came[0]! + i))
/** Hints flow again: one that is sent comes as a hint. */
async function untilHinted(): Promise<void> {
  const before = await hints('committed')
  while ((await hints('committed')) === before) expectOrder(await exchange(1))
}

it('envelopes come as hints, in order; typing and presence cross over', async () => {
  await untilHinted()
  const before = await hints('committed')
  expectOrder(await exchange(50))
  expect((await hints('committed')) - before).toBeGreaterThan(40)
  from.write(typing(conversation))
  await to.next('typing')
  await untilOnline(from, bob)
})

it('killed: everything still comes, in order; started again, empty: hints flow, and who is online is known', async () => {
  await untilHinted()
  await untilOnline(from, bob)
  await redis.kill()
  lost = 0
  expectOrder(await exchange(5))
  expect(lost).toBeGreaterThan(0)
  // Who nobody asked about before cannot be asked about now; the connection lives on.
  const { error } = await to.ask({ presenceSubscription: { userIds: [uuidToBytes(ann.userId)] } })
  expect([error?.code, error?.retryAfterMs]).toEqual([ErrorCode.ERROR_CODE_UNAVAILABLE, 2_000])
  await redis.start()
  await untilHinted()
  expectOrder(await exchange(20))
  await untilOnline(to, ann)
})

it('emptied, and every connection cut off by Redis: the same', async () => {
  await untilHinted()
  for (const words of [['flushall'], ['client', 'kill', 'type', 'pubsub'], ['client', 'kill', 'type', 'normal']])
    await redis.command(...words).catch(() => {})
  expectOrder(await exchange(5))
  await untilHinted()
})

it('more than Redis takes at once is not kept for it: lost, and what follows gets through. I10', async () => {
  const [from, to] = [await connect(), await connect()]
  let came = 0
  const [node, other] = [from.bus(() => {}), to.bus(() => came++)]
  await other.join('device:77')
  lost = 0
  // All before the first of them left: 32 MiB.
  const long = 'x'.repeat(8_192)
  for (let i = 0; i < 4_000; i++) node.publish({ kind: 'acked', userId: long, messages: [], countable: false })
  expect(lost).toBeGreaterThan(1_500)
  expect(lost).toBeLessThan(2_500)
  while (came === 0) {
    node.publish({ kind: 'lookAgain', deviceKey: 77 })
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  await Promise.all([node.close(), other.close()])
})

it('a node that dies takes its users along when its word ends; one that lives does not', async () => {
  const [dying, living, asking] = [await connect(2_000), await connect(2_000), await connect(2_000)]
  // Users of nobody else: the relays speak for those who are connected.
  const [ann, bob] = [randomUUID(), randomUUID()]
  const [one, two, three] = [dying.presence(), living.presence(), asking.presence()]
  one.arrived(ann)
  two.arrived(bob)
  // A question that is not answered within a second says nothing of anybody.
  const online = async (): Promise<string[]> => {
    for (;;) {
      const there = await three.online([ann, bob]).catch(() => null)
      if (there) return [...there].sort()
    }
  }
  while ((await online()).length < 2);
  await dying.close()
  while ((await online()).includes(ann));
  // The living one has to say it again now and then: with a word this short, each round of a second.
  two.arrived(bob)
  while (!(await online()).includes(bob));
  await redis.command('flushall')
  while (!(await online()).includes(bob));
  await Promise.all([one, two, three].map((each) => each.close()))
})
