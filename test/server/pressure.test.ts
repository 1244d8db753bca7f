// Signals when there is too much to do, too much unsent or too much to remember: left out, put off or refused. I12 I10
import { randomUUID } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidFromBytes } from '../../proto/ids.ts'
import { BUFFERED_MAX_BYTES } from '../../proto/limits.ts'
import type { Bus, Hint } from '../../server/bus/bus.ts'
import { openLocalHub } from '../../server/bus/local.ts'
import { openLocalPresence } from '../../server/bus/presence.ts'
import { type AnyFeature, type Features, openFeatures } from '../../server/features/feature.ts'
import { presence } from '../../server/features/presence.ts'
import { receipts } from '../../server/features/receipts.ts'
import { status } from '../../server/features/status.ts'
import { typing } from '../../server/features/typing.ts'
import type { Outgoing } from '../../server/frames.ts'
import { Queue } from '../../server/queue.ts'
import { Reach } from '../../server/reach.ts'
import { ReadMarks } from '../../server/read-marks.ts'
import { Session } from '../../server/session.ts'
import { Sessions } from '../../server/sessions.ts'
import { encodeSignal } from '../../server/signal-codec.ts'
import { FakeTime } from '../support/faketime.ts'
import { pass } from '../support/signals.ts'

const report = (error: unknown): void => {
  throw error
}
/** Nothing here asks the database. */
const queue = new Queue(null as never)

let time: FakeTime
let busy: boolean
let leftOut: string[]
let hints: Hint[]
let sessions: Sessions
let bus: Bus
let features: Features
const store = openLocalPresence()()
beforeEach(() => {
  ;[time, busy, leftOut, hints] = [new FakeTime(), false, [], []]
  sessions = new Sessions({ queue, clock: () => time.now(), report })
  bus = openLocalHub(report)((hint) => {
    hints.push(hint)
    features.hear(hint)
  })
})
const open = (...list: AnyFeature[]): void => {
  features = openFeatures(list, () => time.now(), report)
}
const parts = () => ({ bus, sessions, time, report, pressed: () => busy, meter() {} })

let deviceKeys = 0
/** A connected device, and what was sent to it. */
function connect(userId = randomUUID(), state: Session['state'] = 'live') {
  const sent: Outgoing[] = []
  const device = { unsent: 0 }
  const connection = {
    address: '',
    send: (frame: Outgoing) => sent.push(frame) > 0,
    bufferedBytes: () => device.unsent,
    ping() {},
    close() {},
  }
  const caller = { userId, deviceId: 1, deviceKey: ++deviceKeys, deviceUuid: randomUUID() }
  const session = new Session(caller, connection, Number.POSITIVE_INFINITY, {
    queue,
    onDelivered() {},
    onLeftOut: (kind) => leftOut.push(kind),
    report,
  })
  session.state = state
  sessions.register(session)
  bus.join(`user:${userId}`)
  features.connected(session)
  const kinds = () => sent.map((frame) => sealpost.v1.ServerFrame.decode(frame.bytes).body)
  return { userId, session, sent, device, kinds }
}

it('a feature that was stopped hears nothing more: other nodes go on, and its database is going', () => {
  const heard: string[] = []
  open({
    kind: 'typing',
    handle() {},
    hear: ({ kind }) => heard.push(kind),
    stop: () => heard.push('stop'),
  } as AnyFeature)
  features.hear({ kind: 'presence', userId: randomUUID() })
  features.stop()
  features.hear({ kind: 'presence', userId: randomUUID() })
  expect(heard).toEqual(['presence', 'stop'])
})

describe('a signal to one device', () => {
  const frame = encodeSignal.typing({ conversationId: randomUUID(), isTyping: true, userId: randomUUID(), deviceId: 1 })
  beforeEach(() => open())

  it.each(['held', 'syncing', 'live'] as const)('is sent while the session is %s', (state) => {
    const { session, kinds } = connect(randomUUID(), state)
    expect(session.signal(frame)).toBe(true)
    expect(kinds()).toEqual(['typing'])
  })

  it.each(['starting', 'closed'] as const)('is not while it is %s', (state) => {
    const { session, kinds } = connect(randomUUID(), state)
    expect(session.signal(frame)).toBe(false)
    expect(kinds()).toEqual([])
  })

  it('is left out while more than a quarter of what may be unsent is', () => {
    const { session, device, kinds } = connect()
    device.unsent = BUFFERED_MAX_BYTES / 4 + 1
    expect(session.signal(frame)).toBe(false)
    device.unsent--
    expect(session.signal(frame)).toBe(true)
    expect(kinds()).toEqual(['typing'])
    expect(leftOut).toEqual(['typing'])
  })
})

it('a signal to a full group is told over several turns of the event loop, in order, and all of it. I14', async () => {
  open()
  const reach = new Reach(sessions, bus)
  const devices = Array.from({ length: 700 }, () => connect())
  const userIds = devices.map((each) => each.userId)
  const [start, stop] = [true, false].map((isTyping) =>
    encodeSignal.typing({ conversationId: randomUUID(), isTyping, userId: randomUUID(), deviceId: 1 }),
  )
  const told = () => devices.reduce((sum, each) => sum + each.sent.length, 0)
  reach.receive({ kind: 'signal', userIds, frame: start! })
  reach.receive({ kind: 'signal', userIds, frame: stop! })
  const turns = [told()]
  while (turns.at(-1) !== 1_400) {
    await new Promise((resolve) => setImmediate(resolve))
    turns.push(told())
  }
  expect(turns).toEqual([250, 500, 750, 1_000, 1_250, 1_400])
  for (const { sent } of devices) expect(sent).toEqual([start, stop])
})

it('typing is left out before anything is looked up, and nobody is told', async () => {
  let looked = 0
  const membershipOf = async () => 'none' as const
  const rosters = {
    recent: async () => {
      looked++
      return null
    },
  }
  const onLeftOut = () => leftOut.push('typing')
  open(typing({ ...parts(), rosters, clock: () => time.now(), membershipOf, onLeftOut }))
  const { session, sent } = connect()
  busy = true
  await features.handle(session, { requestId: 1, kind: 'typing', conversationId: randomUUID(), isTyping: true })
  expect([leftOut, looked, hints, sent]).toEqual([['typing'], 0, [], []])
  busy = false
  const asked = features.handle(session, { requestId: 1, kind: 'typing', conversationId: randomUUID(), isTyping: true })
  await expect(asked).rejects.toMatchObject({ code: 'INVALID_REQUEST' })
  expect(looked).toBe(1)
})

describe('presence', () => {
  const settings = { hidden: async () => new Set<string>() }
  const visibleTo = async (_viewer: string, targets: readonly string[]) => new Set(targets)
  const openPresence = (maxPairs?: number): void =>
    open(presence({ ...parts(), store, settings, visibleTo, onWatch() {}, ...(maxPairs && { maxPairs }) }))
  const subscribe = async (session: Session, ...userIds: string[]): Promise<void> =>
    features.handle(session, { requestId: 1, kind: 'presence', userIds })

  it('waits for better times, and tells then how it stands', async () => {
    openPresence()
    const ann = connect()
    const friend = randomUUID()
    await subscribe(ann.session, friend)
    expect(ann.kinds()).toEqual(['presence'])
    busy = true
    connect(friend)
    await pass(time, 5_000)
    expect(ann.kinds()).toEqual(['presence'])
    busy = false
    await pass(time, 1_000)
    expect(ann.kinds()).toEqual(['presence', 'presence'])
  })

  it('above what may be watched it is OVERLOADED, the former subscription stays, and room comes back', async () => {
    openPresence(5)
    const [ann, bob] = [connect(), connect()]
    const friends = Array.from({ length: 4 }, () => randomUUID())
    await subscribe(ann.session, ...friends.slice(0, 3))
    await expect(subscribe(bob.session, ...friends)).rejects.toMatchObject({ code: 'OVERLOADED', retryAfterMs: 30_000 })
    await expect(subscribe(ann.session, ...friends)).rejects.toMatchObject({ code: 'OVERLOADED' })
    connect(friends[2])
    await pass(time, 1_000)
    expect(ann.kinds()).toEqual(['presence', 'presence'])
    sessions.remove(ann.session)
    ann.session.over()
    features.gone(ann.session)
    await subscribe(bob.session, ...friends)
    expect(bob.kinds()).toEqual(['presence'])
  })

  it('nor do those who ask at the same time get more than that together. I10', async () => {
    openPresence(5)
    const all = Array.from({ length: 4 }, () => subscribe(connect().session, randomUUID(), randomUUID()))
    const outcomes = await Promise.allSettled(all)
    expect(outcomes.map((each) => each.status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'rejected'])
  })

  it('everybody’s coming at once is told over several turns of the event loop. I14', async () => {
    openPresence()
    const friends = Array.from({ length: 500 }, () => randomUUID())
    const watchers = Array.from({ length: 40 }, () => connect())
    for (const { session } of watchers) await subscribe(session, ...friends)
    for (const userId of friends) {
      store.arrived(userId)
      bus.publish({ kind: 'presence', userId })
    }
    await new Promise((resolve) => setImmediate(resolve))
    time.advance(1_000)
    const told = () => watchers.filter((each) => each.sent.length === 2).length
    const turns = [told()]
    while (turns.at(-1) !== watchers.length) {
      await new Promise((resolve) => setImmediate(resolve))
      turns.push(told())
    }
    const most = Math.max(...turns.map((each, i) => each - (turns[i - 1] ?? 0)))
    expect(most).toBe(8)
    for (const userId of friends) store.left(userId)
  })

  it('when it fails the former subscription stays', async () => {
    let away = false
    open(
      presence({
        ...parts(),
        store,
        settings,
        onWatch() {},
        visibleTo: async (viewer, targets) => {
          if (away) throw new Error('away')
          return visibleTo(viewer, targets)
        },
      }),
    )
    const ann = connect()
    const friend = randomUUID()
    await subscribe(ann.session, friend)
    away = true
    await expect(subscribe(ann.session, randomUUID())).rejects.toThrow('away')
    connect(friend)
    await pass(time, 1_000)
    expect(ann.kinds()).toEqual(['presence', 'presence'])
  })

  it('when the node goes down its users are gone at once', async () => {
    openPresence()
    const ann = connect()
    await pass(time, 100)
    expect(await store.online([ann.userId])).toEqual(new Set([ann.userId]))
    features.stop()
    expect(await store.online([ann.userId])).toEqual(new Set())
  })
})

it('status waits for better times', async () => {
  const rosters = { cached: () => ({ kind: 'direct', pendingUser: null, blockers: [] }) as never }
  const statuses = { count: async () => [], senders: async () => [] }
  open(status({ ...parts(), rosters, statuses }))
  const [ann, bob] = [connect(), connect()]
  // What is sent in the first seconds of a connection is counted.
  time.advance(60_000)
  const message = { messageId: `${'f'.repeat(8)}-ffff-7fff-8fff-${'f'.repeat(12)}`, conversationId: randomUUID() }
  busy = true
  features.acked(bob.session, [{ deviceKey: 2, sequence: 1, senderId: ann.userId, ...message }], [])
  await pass(time, 5_000)
  expect(ann.kinds()).toEqual([])
  busy = false
  await pass(time, 1_000)
  expect(ann.kinds()).toEqual(['statusUpdate'])
})

describe('a mark for one’s other devices [G-4.2]', () => {
  const [userId, conversationId, other] = [randomUUID(), randomUUID(), randomUUID()]
  const ids = [1, 2, 3].map((n) => `01900000-0000-7000-8000-00000000000${n}`)
  const told = (sent: Outgoing[]) =>
    sent.flatMap((frame) => {
      const { ownReads } = sealpost.v1.ServerFrame.decode(frame.bytes).statusUpdate!
      return ownReads!.map((each) => [uuidFromBytes(each.conversationId!), uuidFromBytes(each.messageId!)])
    })
  const mark = (deviceKey: number, messageId: string | undefined, where = conversationId) =>
    bus.publish({ kind: 'ownRead', userId, deviceKey, conversationId: where, messageId: messageId! })
  beforeEach(() =>
    open(
      receipts({
        ...parts(),
        marks: new ReadMarks(null as never),
        rosters: { recent: async () => null },
        onRead() {},
      }),
    ),
  )

  it('is kept while too much lies unsent: the last of each conversation, in one frame, once', async () => {
    const [reader, slow] = [connect(userId), connect(userId)]
    const by = reader.session.caller.deviceKey
    slow.device.unsent = BUFFERED_MAX_BYTES
    for (const id of [ids[0], ids[2], ids[1]]) mark(by, id)
    mark(by, ids[1], other)
    await pass(time, 2_000)
    expect(slow.sent).toEqual([])
    slow.device.unsent = 0
    await pass(time, 1_000)
    expect([slow.sent.length, told(slow.sent)]).toEqual([
      1,
      [
        [conversationId, ids[2]],
        [other, ids[1]],
      ],
    ])
    expect(reader.sent).toEqual([])
    await pass(time, 5_000)
    expect(slow.sent).toHaveLength(1)
    expect(time.nextMs()).toBe(Number.POSITIVE_INFINITY)
  })

  it('is kept for who waits for the first read, and nothing is for who is gone', async () => {
    const [reader, coming, going] = [connect(userId), connect(userId, 'starting'), connect(userId, 'starting')]
    mark(reader.session.caller.deviceKey, ids[0])
    await pass(time, 1_000)
    going.session.over()
    sessions.remove(going.session)
    features.gone(going.session)
    coming.session.state = 'live'
    await pass(time, 1_000)
    expect([told(coming.sent), going.sent]).toEqual([[[conversationId, ids[0]]], []])
    expect(time.nextMs()).toBe(Number.POSITIVE_INFINITY)
  })
})
