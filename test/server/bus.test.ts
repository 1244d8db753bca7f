// The bus between nodes: what every implementation does, and what a hint may do to nobody even when it goes astray. I11
import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { type Bus, type Channel, channelsOf, type Hint, type OpenBus } from '../../server/bus/bus.ts'
import { openLocalHub } from '../../server/bus/local.ts'
import { openLocalPresence, type PresenceStore } from '../../server/bus/presence.ts'
import { openRedis, type RedisNodes } from '../../server/bus/redis.ts'
import type { Delivery } from '../../server/frames.ts'
import { systemTime } from '../../server/time.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'

/** What nodes have in common; each node may be a process of its own. */
type Common = { bus: OpenBus; presence(): PresenceStore }
type Implementation = {
  name: string
  /** A node's own view of what is common, and the same for any number of nodes. */
  open(report: (error: unknown) => void): Promise<() => Promise<Common>>
  close(): Promise<void>
}

const inProcess: Implementation = {
  name: 'in process',
  async open(report) {
    const common = { bus: openLocalHub(report), presence: openLocalPresence() }
    return async () => common
  },
  close: async () => {},
}

/** Each node has connections of its own, as if it were a process. */
function throughRedis(name: string, servers: 1 | 3): Implementation {
  let redis: TestRedis | null = null
  const connected: RedisNodes[] = []
  return {
    name,
    async open(report) {
      redis ??= await startRedis({ servers })
      const { urls, cluster } = redis
      return async () => {
        // A Redis that waits for its turn is no Redis that is away: nothing here is lost.
        const waits = { commandMs: 20_000, silenceMs: 20_000 }
        const node = await openRedis({ urls, cluster, time: systemTime(), report, onLost: () => {}, ...waits })
        connected.push(node)
        return node
      }
    },
    async close() {
      await Promise.all(connected.map((each) => each.close()))
      await redis?.close()
    },
  }
}
const implementations = process.env.SEALPOST_TEST_WITHOUT_REDIS
  ? [inProcess]
  : [inProcess, throughRedis('Redis', 1), throughRedis('a Redis cluster', 3)]

const delivery = (sequence: number): Delivery => ({
  sequence,
  messageId: randomUUID(),
  conversationId: randomUUID(),
  sentAtMs: 1_800_000_000_000,
  sender: { userId: randomUUID(), deviceId: 127, clientMessageId: randomUUID() },
  messageType: 32767,
  ciphertextType: 3,
  withheld: 0,
  content: Uint8Array.from([0, 1, 255]),
  iv: new Uint8Array(0),
  replyToMessageId: null,
  attachmentUrl: '☃',
  thumbnailUrl: null,
  urgent: true,
})
const counts = {
  oneTime: { count: 3, oldestId: 1, highestId: 9 },
  kyberOneTime: { count: 0, oldestId: null, highestId: null },
  signedPrekey: null,
  lastResort: { keyId: 1, createdAtMs: 2, used: true },
} as unknown as Extract<Hint, { kind: 'keysLow' }>['counts']
const [ann, bob] = [randomUUID(), randomUUID()]

/** One of each kind, and a channel by which it comes; null = it comes to every node. */
const EVERY: [Hint, Channel | null][] = [
  [{ kind: 'committed', deviceKey: 7, sequence: 41, delivery: delivery(41) }, 'device:7'],
  [{ kind: 'committed', deviceKey: 7, sequence: 42, delivery: null }, 'device:7'],
  [
    {
      kind: 'committed',
      deviceKey: 7,
      sequence: 43,
      delivery: { ...delivery(43), sender: null, conversationId: null },
    },
    'device:7',
  ],
  [{ kind: 'lookAgain', deviceKey: 7 }, 'device:7'],
  [{ kind: 'takenOver', deviceKey: 7, epoch: Number.MAX_SAFE_INTEGER }, 'device:7'],
  [{ kind: 'unlinked', deviceKey: Number.MAX_SAFE_INTEGER }, null],
  [
    {
      kind: 'handed',
      node: ann,
      from: bob,
      request: randomUUID(),
      place: randomUUID(),
      sealed: Uint8Array.from([0, 255]),
    },
    `node:${ann}`,
  ],
  [{ kind: 'taken', node: bob, request: randomUUID(), taken: false }, `node:${bob}`],
  [{ kind: 'keysLow', deviceKey: 7, counts }, 'device:7'],
  [{ kind: 'signal', userIds: [bob], frame: { kind: 'typing', bytes: Uint8Array.from([9]) } }, `user:${bob}`],
  [
    { kind: 'acked', userId: ann, messages: [{ messageId: randomUUID(), conversationId: bob }], countable: true },
    `user:${ann}`,
  ],
  [{ kind: 'read', userIds: [ann], conversationId: bob, after: null, upTo: randomUUID() }, `user:${ann}`],
  [{ kind: 'ownRead', userId: ann, deviceKey: 7, conversationId: bob, messageId: randomUUID() }, `user:${ann}`],
  [{ kind: 'settings', userId: ann }, `user:${ann}`],
  [{ kind: 'settings', userId: bob }, `user:${bob}`],
  [{ kind: 'presence', userId: ann }, `presence:${ann}`],
  [{ kind: 'conversation', conversationId: randomUUID(), moved: [ann], members: [ann, bob] }, null],
]

describe.each(implementations)('$name', ({ open, close }) => {
  const opened: Bus[] = []
  const reported: unknown[] = []
  afterAll(close)
  afterEach(async () => {
    await Promise.all(opened.splice(0).map((each) => each.close()))
    reported.length = 0
  })

  /** A node that keeps what it hears, and says when it has heard a certain hint. */
  async function listen(node: () => Promise<Common>, receive: (hint: Hint) => void = () => {}) {
    const [all, heard]: [Hint[], Hint[]] = [[], []]
    const waiting: { fits(hint: Hint): boolean; resolve(): void }[] = []
    const bus = (await node()).bus((hint) => {
      all.push(hint)
      for (const each of waiting) if (each.fits(hint)) each.resolve()
      if ('fence' in hint) return
      heard.push(hint)
      receive(hint)
    })
    opened.push(bus)
    return {
      bus,
      heard,
      hears: (fits: (hint: Hint) => boolean): Promise<void> =>
        all.some(fits) ? Promise.resolve() : new Promise((resolve) => waiting.push({ fits, resolve })),
    }
  }
  type Node = Awaited<ReturnType<typeof listen>>

  /**
   * Resolves when what this node published to the channel before now has reached every listener: hints of one node to one channel
   * keep their order. null = the channel every node hears.
   */
  async function fence(channel: Channel | null, from: Node, ...listeners: Node[]): Promise<void> {
    const mark = randomUUID()
    const isFence = (hint: Hint): boolean => 'fence' in hint && hint.fence === mark
    const hint = EVERY.map(([each]) => each).find((each) => String(channelsOf(each)) === String(channel))!
    from.bus.publish({ ...hint, fence: mark } as unknown as Hint)
    await Promise.all(listeners.map((each) => each.hears(isFence)))
  }
  const several = async (count: number): Promise<Node[]> => {
    const node = await open((error) => reported.push(error))
    const nodes = await Promise.all(Array.from({ length: count }, () => listen(node)))
    await whole(nodes)
    return nodes
  }
  /** Every node is told of conversations from some moment on: resolves when it has come. */
  async function whole(nodes: Node[]): Promise<void> {
    let heard = false
    const all = Promise.all(nodes.map((each) => each.hears((hint) => hint.kind === 'conversation'))).then(() => {
      heard = true
    })
    while (!heard) {
      const first = EVERY.at(-1)![0]
      nodes[0]!.bus.publish({ ...first, fence: randomUUID() } as unknown as Hint)
      await Promise.race([all, new Promise((resolve) => setTimeout(resolve, 5))])
    }
  }
  const join = (channel: Channel, ...nodes: Node[]) => Promise.all(nodes.map((each) => each.bus.join(channel)))

  it.each(EVERY)(
    '$kind arrives as it was, on every node that joined, once, the one that published included',
    async (hint, channel) => {
      const [one, two, three] = (await several(3)) as [Node, Node, Node]
      if (channel) await join(channel, one, two)
      one.bus.publish(hint)
      await fence(channel, one, one, two)
      await fence(null, one, one, two, three)
      expect(one.heard).toEqual([hint])
      expect(two.heard).toEqual([hint])
      expect(three.heard).toEqual(channel ? [] : [hint])
    },
  )

  it('a hint for several users comes to a node that has two of them once, or once for each', async () => {
    const [one, two] = (await several(2)) as [Node, Node]
    for (const user of [ann, bob]) await join(`user:${user}`, one, two)
    one.bus.publish({ kind: 'read', userIds: [ann, bob, randomUUID()], conversationId: ann, after: null, upTo: bob })
    for (const user of [ann, bob]) await fence(`user:${user}`, one, one, two)
    for (const { heard } of [one, two]) {
      const users = heard.flatMap((hint) => (hint.kind === 'read' ? hint.userIds : ['another kind']))
      expect(users.filter((each) => each === ann || each === bob).sort()).toEqual([ann, bob].sort())
    }
  })

  it('joining twice is joining once; leaving once ends it; leaving what was never joined is no error', async () => {
    const [one, two] = (await several(2)) as [Node, Node]
    await join('device:7', one, two, two)
    one.bus.publish({ kind: 'lookAgain', deviceKey: 7 })
    await fence('device:7', one, one, two)
    expect(two.heard).toHaveLength(1)
    two.bus.leave('device:7')
    two.bus.leave('device:2')
    one.bus.publish({ kind: 'lookAgain', deviceKey: 7 })
    await fence('device:7', one, one)
    await fence(null, one, two)
    expect(two.heard).toHaveLength(1)
    await join('device:7', two)
    one.bus.publish({ kind: 'lookAgain', deviceKey: 7 })
    await fence('device:7', one, two)
    expect(two.heard).toHaveLength(2)
  })

  it('hints of one node to one channel keep their order', async () => {
    const [from, to] = (await several(2)) as [Node, Node]
    await join('device:7', to)
    for (let sequence = 1; sequence <= 200; sequence++)
      from.bus.publish({ kind: 'committed', deviceKey: 7, sequence, delivery: null })
    await fence('device:7', from, to)
    expect(to.heard.map((hint) => hint.kind === 'committed' && hint.sequence)).toEqual(
      Array.from({ length: 200 }, (_, i) => i + 1),
    )
  })

  it('publish neither calls back nor throws; what a receiver throws is reported and costs nobody the next hint', async () => {
    const node = await open((error) => reported.push(error))
    let inside = false
    let calledInside = false
    const bad = await listen(node, (hint) => {
      calledInside ||= inside
      if (hint.kind === 'lookAgain') throw new Error('deaf')
    })
    const good = await listen(node)
    await whole([bad, good])
    await join('device:7', bad, good)
    inside = true
    good.bus.publish({ kind: 'lookAgain', deviceKey: 7 })
    bad.bus.publish({ kind: 'lookAgain', deviceKey: 7 })
    bad.bus.publish({ kind: 'unlinked', deviceKey: 7 })
    inside = false
    for (const each of [bad, good]) await fence('device:7', each, bad, good)
    expect(calledInside).toBe(false)
    expect(bad.heard).toHaveLength(3)
    expect(good.heard).toHaveLength(3)
    expect(reported).toEqual([new Error('deaf'), new Error('deaf')])
  })

  it('a receiver may publish; a closed node hears nothing more, and what it publishes harms nobody', async () => {
    const node = await open((error) => reported.push(error))
    const echo: Node = await listen(node, (hint) => {
      if (hint.kind === 'lookAgain') echo.bus.publish({ kind: 'unlinked', deviceKey: hint.deviceKey })
    })
    const other = await listen(node)
    await whole([other, echo])
    await join('device:7', echo, other)
    other.bus.publish({ kind: 'lookAgain', deviceKey: 7 })
    await other.hears((hint) => hint.kind === 'unlinked')
    const before = echo.heard.length
    await echo.bus.close()
    other.bus.publish({ kind: 'lookAgain', deviceKey: 7 })
    echo.bus.publish({ kind: 'presence', userId: ann })
    await fence('device:7', other, other)
    await fence(null, other, other)
    expect(echo.heard).toHaveLength(before)
  })

  it('presence: online while any node has the user; what is said twice or of nobody changes nothing [G-2]', async () => {
    const node = await open((error) => reported.push(error))
    const [one, two] = [(await node()).presence(), (await node()).presence()]
    /** Everything a node said before it asks is heard by then. */
    const online = async (...users: string[]): Promise<Set<string>> => {
      for (const each of [one, two]) await each.online([ann, bob])
      const [first, second] = [await one.online(users), await two.online(users)]
      expect(first).toEqual(second)
      return first
    }
    expect(await online(ann, bob)).toEqual(new Set())
    one.arrived(ann)
    one.arrived(ann)
    two.arrived(ann)
    two.left(bob)
    expect(await online(ann, bob, ann)).toEqual(new Set([ann]))
    one.left(ann)
    expect(await online(ann)).toEqual(new Set([ann]))
    two.left(ann)
    two.left(ann)
    expect(await online(ann)).toEqual(new Set())
    one.arrived(ann)
    expect(await online(bob, ann)).toEqual(new Set([ann]))
    expect(await online()).toEqual(new Set())
    one.left(ann)
    await Promise.all([one.close(), two.close()])
  })
})
