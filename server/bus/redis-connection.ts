// The only importer of ioredis: connections to one Redis or to a cluster that never throw, wait for nobody, and notice when the
// other side is gone.
import { Cluster, Redis, type RedisOptions } from 'ioredis'
import type { Publisher, Subscriber } from './redis-hints.ts'
import { METER_SCRIPTS, type MeterCommands } from './redis-meters.ts'
import { PLACE_SCRIPTS, type PlaceCommands } from './redis-places.ts'
import { PRESENCE_SCRIPTS, type PresenceCommands } from './redis-presence.ts'
import { ROUTE_SCRIPTS, type RouteCommands } from './redis-routes.ts'

export type ConnectionSettings = {
  /** redis:// or rediss:// URLs. They may hold a password: never logged (I16). */
  urls: string[]
  /** The URLs are nodes of one cluster, by which the others are found. */
  cluster: boolean
  /** Redis is there again, or is not; not told of the start. */
  onConnected?(isConnected: boolean): void
  /** A connection on which something is owed is given up after so much silence, milliseconds; 3 seconds unless said. */
  silenceMs?: number
  /** Redis has so long to answer a command, milliseconds; 1 second unless said. */
  commandMs?: number
}

/** What is used of Redis. Nothing of it throws: what cannot be done rejects. */
export type Commands = Publisher & PresenceCommands & RouteCommands & PlaceCommands & MeterCommands

/** @property subscriber hears, and does nothing else. */
export type RedisConnection = {
  commands: Commands
  subscriber: Subscriber
  isConnected(): boolean
  close(): void
}

/** Sharded channels. */
const OLDEST = 7
/**
 * Redis is a hint: nobody waits long for it. Counted from when a command is written; one that finds others on their way is written
 * when these are answered or given up, so who asks for something waits up to twice as long.
 */
const COMMAND_TIMEOUT_MS = 1_000
const CONNECT_TIMEOUT_MS = 5_000
const RECONNECT_MAX_MS = 1_000
/**
 * A host that lost its power, or a firewall that forgot, says nothing at all, and TCP takes a quarter of an hour to believe it. So
 * each connection is asked something now and then, also the one that only hears: noticed within the sum of both.
 */
const SILENCE_MS = 3_000
const PINGS_PER_SILENCE = 1.5
const SILENCES_PER_REFRESH = 5

const SCRIPTS = { ...PRESENCE_SCRIPTS, ...ROUTE_SCRIPTS, ...PLACE_SCRIPTS, ...METER_SCRIPTS }
/** What is used besides. */
const HEARING = ['ssubscribe', 'sunsubscribe']
const COMMANDS = ['get', 'set', 'spublish', ...HEARING, ...Object.keys(SCRIPTS)]

const OPTIONS = {
  lazyConnect: true,
  connectTimeout: CONNECT_TIMEOUT_MS,
  // What cannot be said now is not worth saying later.
  enableOfflineQueue: false,
  maxRetriesPerRequest: 0,
  autoResendUnfulfilledCommands: false,
  // Channels are joined again by redis-hints.ts, in slices.
  autoResubscribe: false,
  retryStrategy: (times: number) => Math.min(50 * 2 ** times, RECONNECT_MAX_MS),
} satisfies RedisOptions

/** @throws Error as openRedis says. Nothing is left open then. */
export async function connectRedis(settings: ConnectionSettings): Promise<RedisConnection> {
  const { urls, cluster, silenceMs = SILENCE_MS, commandMs = COMMAND_TIMEOUT_MS } = settings
  const waits = { socketTimeout: silenceMs, commandTimeout: commandMs }
  const [commands, subscriber] = cluster ? openCluster(urls, waits) : openSingle(urls[0]!, waits)
  const all = [...new Set([commands, subscriber])]
  let why = ''
  const noteWhy = (error: Error & { lastNodeError?: Error }): void => {
    why = (error.lastNodeError ?? error).message
  }
  for (const each of all) {
    // Of an outage onConnected tells; each failed attempt by itself says nothing more.
    for (const event of ['error', 'node error']) each.on(event, noteWhy)
    for (const [name, script] of Object.entries(SCRIPTS)) each.defineCommand(name, script)
  }
  try {
    await Promise.all(all.map((each) => each.connect()))
    why = ''
    await checkServer(commands, cluster)
  } catch (error) {
    for (const each of all) each.disconnect()
    throw why ? new Error(why) : error
  }
  const isConnected = (): boolean => all.every((each) => each.status === 'ready')
  let told = true
  const look = (): void => {
    if (isConnected() === told) return
    told = !told
    settings.onConnected?.(told)
  }
  for (const each of all) for (const event of ['ready', 'close']) each.on(event, look)
  const ping = (): void => {
    for (const each of all.flatMap(socketsOf)) if (each.status === 'ready') each.ping().catch(() => {})
  }
  const pinging = setInterval(ping, silenceMs / PINGS_PER_SILENCE).unref()
  return {
    commands: rejecting(commands) as Commands,
    subscriber: rejecting(subscriber) as Subscriber,
    isConnected,
    close() {
      clearInterval(pinging)
      for (const each of all) {
        for (const event of ['ready', 'close']) each.off(event, look)
        each.disconnect()
      }
    },
  }
}

/**
 * Some commands throw at once, in a cluster for a slot no server has: here all of them reject. Beside the client, not in it: its
 * pipelines call what is in it for themselves.
 */
function rejecting(client: Redis | Cluster): unknown {
  const own = client as unknown as Record<string, (...given: unknown[]) => Promise<unknown>>
  return {
    get status() {
      return client.status
    },
    on: client.on.bind(client),
    off: client.off.bind(client),
    ...Object.fromEntries(COMMANDS.map((name) => [name, async (...given: unknown[]) => own[name]!(...given)])),
  }
}

/** What a cluster's client keeps to itself: the connections that hear, one for each master. */
type Hearing = { shardedSubscribers?: { shardedSubscribers?: Map<string, { getInstance(): Redis | null }> } }

/** Each connection behind it. */
function socketsOf(client: Redis | Cluster): Redis[] {
  if (client instanceof Redis) return [client]
  const { shardedSubscribers } = client as unknown as Hearing
  const hearing = [...(shardedSubscribers?.shardedSubscribers?.values() ?? [])].map((each) => each.getInstance())
  return [...client.nodes(), ...hearing.filter((each) => each !== null)]
}

/** @throws Error with what is wrong with it. */
async function checkServer(commands: Redis | Cluster, cluster: boolean): Promise<void> {
  const info = await commands.info()
  const [, version = ''] = /^redis_version:(\S+)/m.exec(info) ?? []
  if (Number.parseInt(version, 10) < OLDEST)
    throw new Error(`is version ${version}; the relay needs ${OLDEST} or newer`)
  if (!cluster && /^cluster_enabled:1/m.test(info)) throw new Error('is a cluster: set SEALPOST_REDIS_CLUSTER=yes')
}

type Waits = { socketTimeout: number; commandTimeout: number }

function openSingle(url: string, waits: Waits): [Redis, Redis] {
  const options = { ...OPTIONS, ...waits }
  const commands = new Redis(url, { ...options, enableAutoPipelining: true, connectionName: 'sealpost-commands' })
  // A connection that has subscribed does nothing else.
  return [commands, new Redis(url, { ...options, connectionName: 'sealpost-hints' })]
}

function openCluster(urls: string[], waits: Waits): [Cluster, Cluster] {
  const first = new URL(urls[0]!)
  const cluster = new Cluster(urls, {
    lazyConnect: true,
    shardedSubscribers: true,
    enableOfflineQueue: false,
    enableAutoPipelining: true,
    // In a pipeline they throw where nobody can catch it, for a slot no server has.
    autoPipeliningIgnoredCommands: HEARING,
    // Of slots that nobody had nothing is asked, so nothing else says that somebody has them now.
    slotsRefreshInterval: waits.socketTimeout * SILENCES_PER_REFRESH,
    clusterRetryStrategy: (times) => Math.min(50 * 2 ** times, RECONNECT_MAX_MS),
    redisOptions: {
      connectTimeout: CONNECT_TIMEOUT_MS,
      ...waits,
      ...(first.password && { password: decodeURIComponent(first.password) }),
      ...(first.username && { username: decodeURIComponent(first.username) }),
      ...(first.protocol === 'rediss:' && { tls: {} }),
    },
  })
  return [cluster, cluster]
}
