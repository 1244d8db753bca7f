// Presence: who is told what of whom, and when. [G-2] I12 I13
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes } from '../../proto/ids.ts'
import type { Hint } from '../../server/bus/bus.ts'
import { openLocalHub } from '../../server/bus/local.ts'
import { openLocalPresence } from '../../server/bus/presence.ts'
import { Client, type Socket } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { inTime, pass, told, unasked, watch } from '../support/signals.ts'

const { ErrorCode } = sealpost.v1
const time = new FakeTime()
const shared = openLocalPresence()
/** Asks the store as a third node would. */
const outside = shared()
/** Hints that get lost, for a test to say. */
let lost: (hint: Hint) => boolean = () => false
const hub = openLocalHub((error) => {
  throw error
})
const nodes = {
  bus: (receive: (hint: Hint) => void) =>
    hub((hint) => {
      if (!lost(hint)) receive(hint)
    }),
  presence: shared,
}

let relay: TestRelay
let far: TestRelay
let [ann, bob, cy]: Client[] = []
beforeAll(async () => {
  relay = await testRelay({ time, nodes })
  far = await testRelay({ time, nodes, db: relay.db })
})
afterAll(async () => {
  await far.close()
  await relay.close()
})

let open: Socket[] = []
beforeEach(async () => {
  lost = () => false
  // Nobody knows of other tests' people, and identity proofs are made by the real clock.
  time.set(Date.now())
  ;[ann, bob, cy] = await Promise.all([Client.register(relay), Client.register(relay), Client.register(relay)])
  return async () => {
    await Promise.all(open.map((each) => each.close()))
    open = []
    await pass(time, 4_000)
  }
})
const live = async (client: Client | undefined): Promise<Socket> => {
  const socket = await client!.live()
  open.push(socket)
  return socket
}
const elsewhere = (client: Client | undefined): Client => Object.assign(Object.create(client!), { url: far.url })
/** Connected, and known to be. */
const online = async (client: Client | undefined): Promise<Socket> => {
  const socket = await live(client)
  while (!(await outside.online([client!.userId])).size) await socket.fence()
  return socket
}
/** Gone, and noticed by the relay. */
const leave = async (socket: Socket): Promise<void> => {
  await socket.close()
  await (await ann!.get('/v1/settings')).status
}
const is = (who: Client | undefined, isOnline: boolean): Record<string, boolean> => ({ [who!.userId]: isOnline })

describe('the answer [G-2.1]', () => {
  it('has everybody who was asked for, once', async () => {
    await ann!.group([bob!, cy!])
    const [a] = [await live(ann), await online(bob)]
    const userIds = [bob!, cy!, bob!].map((each) => uuidToBytes(each.userId))
    const { presence } = await a.ask({ presenceSubscription: { userIds } })
    expect(presence?.users).toHaveLength(2)
    expect(await watch(a, bob!, cy!)).toEqual({ ...is(bob, true), ...is(cy, false) })
  })

  it('users with whom one shares nothing are offline, like users that do not exist (I13)', async () => {
    const direct = await ann!.direct(cy!)
    const [a] = [await live(ann), await online(bob), await online(cy)]
    const unknown = { userId: randomUUID() }
    expect(await watch(a, bob!, unknown, cy!)).toEqual({
      ...is(bob, false),
      [unknown.userId]: false,
      ...is(cy, true),
    })
    await ann!.post(`/v1/conversations/${direct}/archive`)
    expect(await watch(a, cy!)).toEqual(is(cy, false))
  })

  it('former members share nothing, in either direction', async () => {
    const group = await ann!.group([bob!, cy!])
    const [a, b] = [await online(ann), await online(bob)]
    await ann!.delete(`/v1/conversations/${group}/members/${bob!.userId}`)
    expect(await watch(a, bob!)).toEqual(is(bob, false))
    expect(await watch(b, ann!)).toEqual(is(ann, false))
  })

  it('one may know oneself', async () => {
    expect(await watch(await online(ann), ann!)).toEqual(is(ann, true))
  })

  it('sees devices on other nodes, before their queue is asked for', async () => {
    await ann!.direct(bob!)
    const b = await elsewhere(bob).connect()
    open.push(b)
    expect(b.hello.queueWaiting).toBe(true)
    while (!(await outside.online([bob!.userId])).size) await b.fence()
    expect(await watch(await live(ann), bob!)).toEqual(is(bob, true))
  })

  it('of an empty subscription is empty, and ends it', async () => {
    await ann!.direct(bob!)
    const a = await live(ann)
    await watch(a, bob!)
    expect(await watch(a)).toEqual({})
    await online(bob)
    await pass(time, 2_000)
    expect(await unasked(a, 'presence')).toEqual([])
  })

  it('replaces the former subscription, also when both are on their way', async () => {
    await ann!.group([bob!, cy!])
    const a = await live(ann)
    const [first, second] = [bob!, cy!].map((each) =>
      a.write({ presenceSubscription: { userIds: [uuidToBytes(each.userId)] } }),
    )
    await a.next('presence', first)
    await a.next('presence', second)
    await online(bob)
    await online(cy)
    await pass(time, 1_000)
    expect(await told(a)).toEqual(is(cy, true))
    expect(await unasked(a, 'presence')).toEqual([])
  })
})

describe('what is told by itself [G-2.2]', () => {
  let a: Socket
  beforeEach(async () => {
    await ann!.group([bob!, cy!])
    a = await live(ann)
    await watch(a, bob!, cy!)
  })

  it('coming, within a second, with everybody else who came', async () => {
    await online(bob)
    await online(elsewhere(cy))
    await pass(time, 900)
    expect(await unasked(a, 'presence')).toEqual([])
    await pass(time, 100)
    expect(await told(a)).toEqual({ ...is(bob, true), ...is(cy, true) })
    await pass(time, 5_000)
    expect(await unasked(a, 'presence')).toEqual([])
  })

  it('going, after three seconds', async () => {
    const b = await online(bob)
    await pass(time, 1_000)
    await told(a)
    await leave(b)
    await pass(time, 2_900)
    expect(await watch(a, bob!)).toEqual(is(bob, true))
    await pass(time, 100)
    expect((await outside.online([bob!.userId])).size).toBe(0)
    await pass(time, 1_000)
    expect(await told(a)).toEqual(is(bob, false))
  })

  it('nothing of a second device that comes or goes', async () => {
    const second = await bob!.link()
    await online(bob)
    await pass(time, 1_000)
    await told(a)
    for (const where of [second, elsewhere(second)]) {
      const other = await live(where)
      await pass(time, 1_500)
      await leave(other)
      await pass(time, 5_000)
    }
    expect(await unasked(a, 'presence')).toEqual([])
    expect(await watch(a, bob!)).toEqual(is(bob, true))
  })

  it('nothing of who comes and goes, over and over: on one node, between two, and by displacement', async () => {
    let b = await online(bob)
    await pass(time, 1_000)
    await told(a)
    for (let round = 0; round < 12; round++) {
      const where = round % 2 ? bob! : elsewhere(bob)
      const before = b
      if (round % 3) await leave(before)
      await pass(time, 500)
      b = await live(where)
      // On one node the newer displaces the older; between nodes the older leaves by itself.
      if (!(round % 3)) await leave(before)
    }
    await pass(time, 5_000)
    expect(await unasked(a, 'presence')).toEqual([])
    expect(await watch(a, bob!)).toEqual(is(bob, true))
  })

  it('nothing of who came and left within the second', async () => {
    lost = (hint) => hint.kind === 'presence'
    const b = await online(bob)
    await leave(b)
    await pass(time, 3_000)
    expect((await outside.online([bob!.userId])).size).toBe(0)
    lost = () => false
    await pass(time, 2_000)
    expect(await unasked(a, 'presence')).toEqual([])
  })

  it('who does not read is told when he reads on, once, how it stands then', async () => {
    const direct = await ann!.direct(bob!)
    const b = await online(bob)
    await pass(time, 1_000)
    await told(a)
    a.ws.pause()
    for (let i = 0; i < 60; i++)
      expect((await b.send(direct, [ann!.to(Buffer.alloc(90_000))])).messageAccepted).toBeTruthy()
    const c = await online(cy)
    await pass(time, 1_000)
    await leave(b)
    await pass(time, 5_000)
    await leave(c)
    await pass(time, 5_000)
    a.ws.resume()
    await a.drain()
    await pass(time, 2_000)
    expect(await told(a)).toEqual(is(bob, false))
    await pass(time, 5_000)
    expect(await unasked(a, 'presence')).toEqual([])
  })
})

describe('whom one may know [G-2.4]', () => {
  it('changes with the conversations: removed, added, archived', async () => {
    const group = await ann!.group([bob!, cy!])
    const [a, b] = [await online(ann), await online(elsewhere(bob))]
    await watch(a, bob!)
    await watch(b, ann!)
    const both = async (isOnline: boolean) =>
      expect(await inTime(time, Promise.all([told(a), told(b)]))).toEqual([is(bob, isOnline), is(ann, isOnline)])
    await ann!.delete(`/v1/conversations/${group}/members/${bob!.userId}`)
    await both(false)
    await ann!.post(`/v1/conversations/${group}/members`, { user_ids: [bob!.userId] })
    await both(true)
    await ann!.post(`/v1/conversations/${group}/archive`)
    await both(false)
    await bob!.direct(ann!)
    await both(true)
  })

  it('is looked up again after five minutes, when the hint was lost', async () => {
    const group = await ann!.group([bob!, cy!])
    const a = await live(ann)
    await online(bob)
    await watch(a, bob!)
    lost = (hint) => hint.kind === 'conversation'
    await ann!.delete(`/v1/conversations/${group}/members/${bob!.userId}`)
    await pass(time, 4 * 60_000)
    expect(await unasked(a, 'presence')).toEqual([])
    await pass(time, 70_000)
    expect(await inTime(time, told(a))).toEqual(is(bob, false))
  })

  it('and so is who came and went, when the hints were lost', async () => {
    await ann!.direct(bob!)
    const a = await live(ann)
    await watch(a, bob!)
    lost = (hint) => hint.kind === 'presence'
    await online(bob)
    await pass(time, 10_000)
    expect(await unasked(a, 'presence')).toEqual([])
    await pass(time, 310_000)
    expect(await inTime(time, told(a))).toEqual(is(bob, true))
  })
})

describe('limits [G-2.4]', () => {
  it('ten subscriptions at once, then one in two seconds; refused, the former one stays', async () => {
    await ann!.direct(bob!)
    const a = await live(ann)
    for (let i = 0; i < 10; i++) await watch(a, bob!)
    const { error } = await a.ask({ presenceSubscription: {} })
    expect([error?.code, error?.retryAfterMs]).toEqual([ErrorCode.ERROR_CODE_RATE_LIMITED, 2_000])
    await online(bob)
    await pass(time, 1_000)
    expect(await told(a)).toEqual(is(bob, true))
    await pass(time, 1_000)
    expect(await watch(a)).toEqual({})
  })
})

it('a thousand comings and goings leave nobody in the store', async () => {
  const users = await Promise.all(Array.from({ length: 10 }, () => Client.register(relay)))
  for (let round = 0; round < 100; round++) {
    const sockets = await Promise.all(users.map((each) => each.connect()))
    if (round % 10 === 0) await Promise.all(sockets.map((each) => watch(each, users[0]!)))
    await Promise.all(sockets.map((each) => each.close()))
    await pass(time, 500)
  }
  await pass(time, 5_000)
  await users[0]!.get('/v1/settings')
  await pass(time, 5_000)
  expect(await outside.online(users.map((each) => each.userId))).toEqual(new Set())
  const metrics = await (await fetch(`${relay.url}/metrics`)).text()
  expect(metrics).toMatch(/sealpost_watched_users 0\n/)
})
