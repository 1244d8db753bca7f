// Traffic between three nodes while what can happen to their Redis happens: what was sent, what arrived, and how. I11
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { deviceKeyOf } from './backlog.ts'
import type { Calamity } from './calamities.ts'
import { type Chance, seeded } from './chance.ts'
import { Client, type Socket } from './client.ts'
import { type ClusterNode, type TestCluster, testCluster } from './cluster.ts'
import { FakeTime } from './faketime.ts'
import { numbered } from './http-frames.ts'
import { pass } from './signals.ts'

const { SCOPE_ALL } = sealpost.v1.Scope

/**
 * @property calamities each happens once, in an order that is the seed's. @property burst messages of each pair in a row.
 * @property awayMs how long Redis stays away: of the nodes' time, which is `real` or passes as fast as it can.
 */
export type Course = { seed: number; calamities: readonly Calamity[]; burst: number; awayMs: number; real: boolean }

/** Of one calamity. Times are from send to delivery, milliseconds. */
export type Phase = {
  calamity: Calamity
  sent: number
  /** How many of them came to the recipient's node as hints; the others were looked for. */
  hinted: number
  slowestMs: number
  /** Messages after Redis was back until one came as a hint, in the worst pair. */
  untilHinted: number
}
export type Outcome = {
  phases: Phase[]
  /** Of each pair, numbers: what was accepted, as it was answered, and what arrived, as it came. */
  pairs: { accepted: number[]; arrived: number[] }[]
  /** Subscribers that Redis dropped because they did not keep up. */
  overruns: number
  /** Rows still waiting at the end, of all devices. */
  waiting: number
  /** What the bus reported. */
  reported: unknown[]
}

/** A sender and a recipient on different nodes. */
class Lane {
  readonly accepted: number[] = []
  readonly arrived: number[] = []
  /** By number: when it was sent, and which sequence it got. */
  private readonly sentAt = new Map<number, number>()
  private readonly waiters: { count: number; resolve(): void }[] = []
  readonly sequences = new Map<number, number>()
  slowestMs = 0
  readonly at: ClusterNode
  readonly key: number
  private readonly from: Socket
  private readonly to: Socket
  private readonly peer: Client
  private readonly conversation: string

  constructor(from: Socket, to: Socket, peer: Client, conversation: string, at: ClusterNode, key: number) {
    this.from = from
    this.to = to
    this.peer = peer
    this.conversation = conversation
    this.at = at
    this.key = key
    void this.take()
  }

  async send(count: number): Promise<void> {
    const sends: Promise<unknown>[] = []
    for (let i = 0; i < count; i++) {
      const number = this.sentAt.size
      this.sentAt.set(number, performance.now())
      const clientMessageId = uuidToBytes(uuidV7(Date.now()))
      const answer = this.from.send(this.conversation, [this.peer.to(numbered(number))], {
        clientMessageId,
        scope: SCOPE_ALL,
      })
      sends.push(answer.then(({ messageAccepted }) => messageAccepted && this.accepted.push(number)))
      // A few on their way at a time, as people do.
      if (i % 5 === 4) await Promise.all(sends.splice(0))
    }
    await Promise.all(sends)
  }

  /** Resolves when all that was sent has arrived. */
  async complete(): Promise<void> {
    const count = this.sentAt.size
    if (this.arrived.length < count) await new Promise<void>((resolve) => this.waiters.push({ count, resolve }))
  }

  private async take(): Promise<void> {
    for (;;) {
      const envelope = await this.to.next('envelope').catch(() => null)
      if (!envelope) return
      const number = Buffer.from(envelope.ciphertext!.content!).readUInt32BE(0)
      this.arrived.push(number)
      this.sequences.set(number, envelope.sequence!)
      this.slowestMs = Math.max(this.slowestMs, performance.now() - (this.sentAt.get(number) ?? 0))
      await this.to.ack(envelope.messageId).catch(() => {})
      for (const each of this.waiters.filter(({ count }) => count <= this.arrived.length)) {
        this.waiters.splice(this.waiters.indexOf(each), 1)
        each.resolve()
      }
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.from.close(), this.to.close()])
  }
}

async function openLanes({ nodes }: TestCluster, heard: Set<string>): Promise<Lane[]> {
  const lanes: Lane[] = []
  for (const [i, node] of nodes.entries()) {
    node.loses = (hint) => {
      if (hint.kind === 'committed') heard.add(`${hint.deviceKey}:${hint.sequence}`)
      return false
    }
    const at = nodes[(i + 1) % nodes.length]!
    const [sender, peer] = [await Client.register(node), await Client.register(at)]
    const conversation = await sender.direct(peer)
    const [from, to] = [await sender.live(), await at.from(peer).live()]
    lanes.push(new Lane(from, to, peer, conversation, at, await deviceKeyOf(at.db.database.sql, peer)))
  }
  return lanes
}

/** Does it. @returns what makes it good again. */
async function strike(
  cluster: TestCluster,
  calamity: Calamity,
  chance: Chance,
  onOverrun: (subscribers: number) => void,
): Promise<() => Promise<void>> {
  const { redis, nodes } = cluster
  const ignored = (): void => {}
  switch (calamity) {
    case 'killed':
      await redis.kill()
      return () => redis.start()
    case 'flushed':
      await redis.command('flushall')
      await redis.command('script', 'flush')
      return async () => {}
    case 'one node cut off':
    case 'all nodes cut off': {
      const cut = calamity === 'all nodes cut off' ? [...nodes] : [chance.of(nodes)]
      await Promise.all(cut.map((each) => each.cutOff()))
      return async () => void (await Promise.all(cut.map((each) => each.rejoin())))
    }
    case 'clients dropped':
      for (const type of ['pubsub', 'normal']) await redis.command('client', 'kill', 'type', type).catch(ignored)
      return async () => {}
    case 'overrun': {
      // More at once than a subscriber may have before it: Redis drops whoever hears of conversations, which is every node.
      await redis.command('config', 'set', 'client-output-buffer-limit', 'pubsub 65536 65536 60')
      const before = await subscribers(redis)
      await redis.command('spublish', 'sealpost:nodes', 'x'.repeat(1_000_000))
      while ((await subscribers(redis)).some((each) => before.includes(each)));
      onOverrun(before.length)
      return async () => {
        await redis.command('config', 'set', 'client-output-buffer-limit', 'pubsub 33554432 8388608 60')
      }
    }
  }
}

/** Ids of the connections that hear hints. */
async function subscribers(redis: TestCluster['redis']): Promise<string[]> {
  const [list] = await redis.command('client', 'list', 'type', 'pubsub')
  return String(list).match(/^id=\d+/gm) ?? []
}

/** Runs the course to its end; messages that never arrive end it by the test's patience. */
export async function defy(course: Course): Promise<Outcome> {
  const chance = seeded(course.seed)
  const time = course.real ? null : new FakeTime()
  const cluster = await testCluster(time ? { time } : {})
  try {
    const heard = new Set<string>()
    const lanes = await openLanes(cluster, heard)
    const hinted = (lane: Lane, number: number): boolean => heard.has(`${lane.key}:${lane.sequences.get(number)}`)
    const all = (act: (lane: Lane) => Promise<unknown>): Promise<unknown> => Promise.all(lanes.map(act))
    const phases: Phase[] = []
    let overruns = 0
    const order = [...course.calamities]
    while (order.length > 0) {
      const calamity = order.splice(chance.upTo(order.length), 1)[0]!
      const began = lanes.map((each) => each.accepted.length)
      for (const lane of lanes) lane.slowestMs = 0
      // It strikes while they talk.
      const talking = all((lane) => lane.send(course.burst))
      if (chance.next() < 0.5) await new Promise((resolve) => setImmediate(resolve))
      const mend = await strike(cluster, calamity, chance, (subscribers) => {
        overruns += subscribers
      })
      const until = performance.now() + course.awayMs
      await talking
      if (time) await pass(time, course.awayMs)
      do {
        await all((lane) => lane.send(course.burst))
        await all((lane) => lane.complete())
      } while (!time && performance.now() < until)
      const sent = lanes.flatMap((lane, i) => lane.accepted.slice(began[i]).map((number) => ({ lane, number })))
      const phase = {
        calamity,
        sent: sent.length,
        hinted: sent.filter(({ lane, number }) => hinted(lane, number)).length,
        slowestMs: Math.max(...lanes.map((each) => each.slowestMs)),
      }
      await mend()
      const tries = await Promise.all(lanes.map((lane) => untilHinted(lane, (number) => hinted(lane, number))))
      phases.push({ ...phase, untilHinted: Math.max(...tries) })
    }
    const { sql } = cluster.db.database
    await all((lane) => lane.close())
    const [{ n }] = await sql<[{ n: number }]>`select count(*)::int as n from message_deliveries_waiting`
    return {
      phases,
      pairs: lanes.map(({ accepted, arrived }) => ({ accepted, arrived })),
      overruns,
      waiting: n,
      reported: cluster.reported,
    }
  } finally {
    await cluster.close()
  }
}

/** Sends one after the other until one comes as a hint. @returns how many it took. */
async function untilHinted(lane: Lane, hinted: (number: number) => boolean): Promise<number> {
  for (let tries = 1; ; tries++) {
    await lane.send(1)
    await lane.complete()
    if (hinted(lane.arrived.at(-1)!)) return tries
  }
}
