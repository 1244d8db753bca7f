// Devices that come and go, between two nodes, in every way there is: what is left of them. I10
import { readdirSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Time } from '../../server/time.ts'
import { seeded } from './chance.ts'
import { Client, request, Socket } from './client.ts'
import { type ClusterNode, type TestCluster, testCluster } from './cluster.ts'
import { FakeTime } from './faketime.ts'
import { poll } from './http-frames.ts'
import { send, typing, watch } from './signals.ts'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void

/** @property cycles connections that are made and ended. */
export type Churn = { cycles: number; seed: number }

/** What there is, over both nodes and Redis, when nobody is connected. */
export type Left = {
  /** In Redis, of devices and users: keys, and channels somebody listens to, by name. */
  keys: string[]
  channels: string[]
  /** Gauges of both nodes. */
  connections: number
  watched: number
  /** Of the nodes' clock, that will still go off. */
  timers: number
  /** Listeners on what the nodes share in this process. */
  listeners: number
  /** Open files of this process, sockets included; not those to PostgreSQL, whose pools grow to their size when they have to. */
  files: number
  /** After a collection. */
  heapBytes: number
}
export type Outcome = { before: Left; after: Left; cycles: Record<string, number>; ends: Record<string, number> }

/** Buckets end by themselves when they are full again, and are not of connections; the nodes themselves are there to the end. */
const IGNORED = /^sealpost:(limit:|nodes?(:|$))/

/** Some are open at one look and not at the other: of fetch, and of whoever looks. */
export const SPARE_FILES = 8
/** The relay and fetch keep a connection for less than that, milliseconds. */
const IDLE_MS = 15_000

/** A clock that knows how many timers it still owes, and can be put forward. */
type Clock = Time & { owed: number; skip(ms: number): void; stop(): void }

function openClock(): Clock {
  const fake = new FakeTime()
  let seenMs = performance.now()
  const going = setInterval(() => {
    const passedMs = Math.floor(performance.now() - seenMs)
    fake.advance(passedMs)
    seenMs += passedMs
  }, 10)
  const clock: Clock = {
    owed: 0,
    now: () => fake.now(),
    after(ms, call) {
      clock.owed++
      let over = false
      const end = (): void => {
        if (!over) clock.owed--
        over = true
      }
      const cancel = fake.after(ms, () => {
        end()
        call()
      })
      return () => {
        end()
        cancel()
      }
    },
    skip: (ms) => fake.advance(ms),
    stop: () => clearInterval(going),
  }
  return clock
}

async function gauge({ url }: ClusterNode, name: string): Promise<number> {
  const { body } = await request(url, 'GET', '/metrics')
  return Number(new RegExp(`^sealpost_${name} (\\d+)`, 'm').exec(body)?.[1])
}

async function look({ nodes, redis, db }: TestCluster, time: Clock): Promise<Left> {
  const sum = async (name: string): Promise<number> =>
    (await Promise.all(nodes.map((each) => gauge(each, name)))).reduce((all, each) => all + each, 0)
  const names = async (...words: string[]): Promise<string[]> =>
    ((await redis.command(...words))[0] as string[]).map(String).sort()
  for (const each of nodes) each.logged.length = 0
  const [connections, watched] = [await sum('connections'), await sum('watched_users')]
  const keys = (await names('keys', '*')).filter((each) => !IGNORED.test(each))
  const channels = (await names('pubsub', 'shardchannels')).filter((each) => !IGNORED.test(each))
  const [{ pooled }] = await db.database.sql<[{ pooled: number }]>`
    select count(*) as pooled from pg_stat_activity where datname = current_database()`
  gc()
  const { heapUsed, external } = process.memoryUsage()
  const listeners = process.eventNames().reduce((all, name) => all + process.listenerCount(name), 0)
  const files = readdirSync('/proc/self/fd').length - pooled
  return { keys, channels, connections, watched, timers: time.owed, listeners, files, heapBytes: heapUsed + external }
}

/**
 * Looks until nothing of devices is there any more: goodbyes are on their way for a moment, and HTTP connections that nobody uses
 * stay for as long as IDLE_MS. @param files to come down to in that time.
 */
async function settled(cluster: TestCluster, time: Clock, timers: number, files: number): Promise<Left> {
  const patientUntilMs = performance.now() + IDLE_MS
  for (;;) {
    const left = await look(cluster, time)
    const isQuiet = left.keys.length === 0 && left.channels.length === 0 && left.timers <= timers
    const isClosed = left.files <= files || performance.now() > patientUntilMs
    if (isQuiet && isClosed && left.connections + left.watched === 0) return left
    // What is gathered or expires need not be waited for.
    time.skip(500)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const WAYS = ['looks', 'syncs', 'watches', 'types', 'sends', 'polls'] as const
const ENDS = ['says goodbye', 'vanishes', 'is displaced at another node', 'is displaced at the same'] as const

/** Runs it. Nothing that stays is waited for for ever: the test's patience ends it. */
export async function churn({ cycles, seed }: Churn): Promise<Outcome> {
  const chance = seeded(seed)
  const time = openClock()
  const cluster = await testCluster({ nodes: 2, proxied: false, time })
  try {
    const { nodes } = cluster
    const timers = time.owed
    const clients: { client: Client; peer: Client; conversation: string }[] = []
    for (let i = 0; i < 10; i++) {
      const [client, peer] = [await Client.register(nodes[0]!), await Client.register(nodes[1]!)]
      const conversation = await client.direct(peer)
      clients.push({ client, peer, conversation }, { client: peer, peer: client, conversation })
    }
    const count: Outcome['cycles'] = {}
    const ends: Outcome['ends'] = {}
    const open = async (node: ClusterNode, client: Client): Promise<Socket> => {
      const socket = await Socket.open(node.url, client.token)
      await socket.next('hello')
      return socket
    }

    async function cycle({ client, peer, conversation }: (typeof clients)[number]): Promise<void> {
      const [way, end] = [chance.of(WAYS), chance.of(ENDS)]
      count[way] = (count[way] ?? 0) + 1
      ends[end] = (ends[end] ?? 0) + 1
      const node = chance.of(nodes)
      if (way === 'polls') {
        const leaving = new AbortController()
        await poll(node.from(client))
        const waiting = poll(node.from(client), 'wait_seconds=60', leaving.signal).catch(() => {})
        if (end === 'vanishes') leaving.abort()
        // Otherwise it waits, has its page, is displaced or displaces, whatever comes first.
        else
          await open(node, client).then(
            (socket) => socket.close(),
            () => {},
          )
        leaving.abort()
        await waiting
        return
      }
      const socket = await open(node, client)
      if (way !== 'looks') await socket.drain()
      if (way === 'watches') await watch(socket, peer).catch(() => {})
      if (way === 'types') socket.write(typing(conversation))
      if (way === 'sends') await send(socket, conversation, peer)
      if (end === 'says goodbye') await socket.close()
      else if (end === 'vanishes') {
        socket.ws.terminate()
        await socket.end()
      } else {
        const at = end === 'is displaced at the same' ? node : nodes.find((each) => each !== node)!
        const newer = await open(at, client)
        await socket.end()
        await newer.close()
      }
    }
    const run = async (total: number): Promise<void> => {
      // Some at once; a device's connections are one after the other.
      for (let done = 0, turn = 0; done < total; turn++) {
        const some = clients.filter((_, at) => at % 4 === turn % 4)
        await Promise.all(some.map(cycle))
        done += some.length
        if (turn % 50 === 0) for (const each of nodes) each.logged.length = 0
      }
    }
    /** Everybody's mail is read, so that only what connections leave is left. */
    const empty = async (): Promise<void> => {
      for (const { client } of clients) await (await client.live()).close()
    }
    // What is made once, and code that gets warm, is not counted.
    await run(Math.min(cycles / 3, 500))
    await empty()
    const before = await settled(cluster, time, timers, Number.POSITIVE_INFINITY)
    await run(cycles)
    await empty()
    return { before, after: await settled(cluster, time, timers, before.files + SPARE_FILES), cycles: count, ends }
  } finally {
    await cluster.close()
    time.stop()
  }
}
