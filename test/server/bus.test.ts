// The bus between nodes: what every implementation does, and what a hint may do to nobody even when it goes astray. I11
import { randomUUID } from 'node:crypto'
import { afterEach, describe, expect, it } from 'vitest'
import type { Bus, Channel, Hint, OpenBus } from '../../server/bus/bus.ts'
import { openLocalHub } from '../../server/bus/local.ts'
import { openLocalPresence, type PresenceStore } from '../../server/bus/presence.ts'
import type { Delivery } from '../../server/frames.ts'

/** How a hub of nodes and their presence store is made; each node may be a process of its own. */
type Implementation = {
  name: string
  open(report: (error: unknown) => void): Promise<OpenBus>
  presence(): Promise<() => PresenceStore>
}
const implementations: Implementation[] = [
  { name: 'in process', open: async (report) => openLocalHub(report), presence: async () => openLocalPresence() },
]

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
  [{ kind: 'unlinked', deviceKey: Number.MAX_SAFE_INTEGER }, `device:${Number.MAX_SAFE_INTEGER}`],
  [{ kind: 'keysLow', deviceKey: 7, counts }, 'device:7'],
  [{ kind: 'signal', userIds: [ann, bob], frame: { kind: 'typing', bytes: Uint8Array.from([9]) } }, `user:${bob}`],
  [
    { kind: 'acked', userId: ann, messages: [{ messageId: randomUUID(), conversationId: bob }], countable: true },
    `user:${ann}`,
  ],
  [{ kind: 'read', userIds: [ann], conversationId: bob, after: null, upTo: randomUUID() }, `user:${ann}`],
  [{ kind: 'ownRead', userId: ann, deviceKey: 7, conversationId: bob, messageId: randomUUID() }, `user:${ann}`],
  [{ kind: 'settings', userId: ann }, `user:${ann}`],
  [{ kind: 'presence', userId: ann }, `presence:${ann}`],
  [{ kind: 'conversation', conversationId: randomUUID(), moved: [ann], members: [ann, bob] }, null],
]

describe.each(implementations)('$name', ({ open, presence }) => {
  const opened: Bus[] = []
  const reported: unknown[] = []
  afterEach(async () => {
    await Promise.all(opened.splice(0).map((each) => each.close()))
    reported.length = 0
  })

  /** A node that keeps what it hears, and says when it has heard a certain hint. */
  function listen(hub: OpenBus, receive: (hint: Hint) => void = () => {}) {
    const heard: Hint[] = []
    const waiting: { fits(hint: Hint): boolean; resolve(): void }[] = []
    const bus = hub((hint) => {
      heard.push(hint)
      for (const each of waiting) if (each.fits(hint)) each.resolve()
      receive(hint)
    })
    opened.push(bus)
    return {
      bus,
      heard,
      hears: (fits: (hint: Hint) => boolean): Promise<void> =>
        heard.some(fits) ? Promise.resolve() : new Promise((resolve) => waiting.push({ fits, resolve })),
    }
  }
  type Node = ReturnType<typeof listen>

  /** Resolves when what this node published before now has reached every listener: hints of one node keep their order. */
  async function fence(from: Node, ...listeners: Node[]): Promise<void> {
    const conversationId = randomUUID()
    const isFence = (hint: Hint): boolean => hint.kind === 'conversation' && hint.conversationId === conversationId
    from.bus.publish({ kind: 'conversation', conversationId, moved: [], members: [] })
    await Promise.all(listeners.map((each) => each.hears(isFence)))
    for (const each of listeners) each.heard.splice(each.heard.findIndex(isFence), 1)
  }
  const hub = () => open((error) => reported.push(error))

  it.each(EVERY)(
    '$kind arrives as it was, on every node that joined, once, the one that published included',
    async (hint, channel) => {
      const made = await hub()
      const [one, two, three] = [listen(made), listen(made), listen(made)]
      for (const each of [one, two]) if (channel) each.bus.join(channel)
      await fence(one, one, two, three)
      one.bus.publish(hint)
      await fence(one, one, two, three)
      expect(one.heard).toEqual([hint])
      expect(two.heard).toEqual([hint])
      expect(three.heard).toEqual(channel ? [] : [hint])
    },
  )

  it('a node that joined several channels of one hint hears it once', async () => {
    const node = listen(await hub())
    for (const user of [ann, bob]) node.bus.join(`user:${user}`)
    await fence(node, node)
    node.bus.publish({ kind: 'read', userIds: [ann, bob], conversationId: ann, after: null, upTo: bob })
    await fence(node, node)
    expect(node.heard).toHaveLength(1)
  })

  it('joining twice is joining once; leaving once ends it; leaving what was never joined is no error', async () => {
    const node = listen(await hub())
    node.bus.join('device:1')
    node.bus.join('device:1')
    await fence(node, node)
    node.bus.publish({ kind: 'lookAgain', deviceKey: 1 })
    await fence(node, node)
    expect(node.heard).toHaveLength(1)
    node.bus.leave('device:1')
    node.bus.leave('device:2')
    await fence(node, node)
    node.bus.publish({ kind: 'lookAgain', deviceKey: 1 })
    await fence(node, node)
    expect(node.heard).toHaveLength(1)
  })

  it('hints of one node to one channel keep their order', async () => {
    const made = await hub()
    const [from, to] = [listen(made), listen(made)]
    to.bus.join('device:5')
    await fence(from, to)
    for (let sequence = 1; sequence <= 200; sequence++)
      from.bus.publish({ kind: 'committed', deviceKey: 5, sequence, delivery: null })
    await fence(from, to)
    expect(to.heard.map((hint) => hint.kind === 'committed' && hint.sequence)).toEqual(
      Array.from({ length: 200 }, (_, i) => i + 1),
    )
  })

  it('publish neither calls back nor throws; what a receiver throws is reported and costs nobody the next hint', async () => {
    const made = await hub()
    let inside = false
    let calledInside = false
    const bad = listen(made, (hint) => {
      calledInside ||= inside
      if (hint.kind === 'lookAgain') throw new Error('deaf')
    })
    const good = listen(made)
    for (const each of [bad, good]) each.bus.join('device:1')
    await fence(bad, bad, good)
    inside = true
    bad.bus.publish({ kind: 'lookAgain', deviceKey: 1 })
    bad.bus.publish({ kind: 'unlinked', deviceKey: 1 })
    inside = false
    await fence(bad, bad, good)
    expect(calledInside).toBe(false)
    expect(bad.heard).toHaveLength(2)
    expect(good.heard).toHaveLength(2)
    expect(reported).toEqual([new Error('deaf')])
  })

  it('a receiver may publish; a closed node hears nothing more, and what it publishes harms nobody', async () => {
    const made = await hub()
    const echo = listen(made, (hint) => {
      if (hint.kind === 'lookAgain') echo.bus.publish({ kind: 'unlinked', deviceKey: hint.deviceKey })
    })
    const other = listen(made)
    for (const each of [echo, other]) each.bus.join('device:1')
    await fence(other, echo, other)
    other.bus.publish({ kind: 'lookAgain', deviceKey: 1 })
    await other.hears((hint) => hint.kind === 'unlinked')
    const before = echo.heard.length
    await echo.bus.close()
    other.bus.publish({ kind: 'lookAgain', deviceKey: 1 })
    echo.bus.publish({ kind: 'presence', userId: ann })
    await fence(other, other)
    expect(echo.heard).toHaveLength(before)
  })

  it('presence: online while any node has the user; what is said twice or of nobody changes nothing [G-2]', async () => {
    const node = await presence()
    const [one, two] = [node(), node()]
    expect(await two.online([ann, bob])).toEqual(new Set())
    one.arrived(ann)
    one.arrived(ann)
    two.arrived(ann)
    two.left(bob)
    expect(await two.online([ann, bob, ann])).toEqual(new Set([ann]))
    one.left(ann)
    expect(await one.online([ann])).toEqual(new Set([ann]))
    two.left(ann)
    two.left(ann)
    expect(await one.online([ann])).toEqual(new Set())
    one.arrived(ann)
    expect(await two.online([bob, ann])).toEqual(new Set([ann]))
    expect(await one.online([])).toEqual(new Set())
  })
})
