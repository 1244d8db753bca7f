// The only importer of ioredis: connections to one Redis or to a cluster, and what nodes have in common through them.
import { Cluster, Redis, type RedisOptions } from 'ioredis'
import { type OpenMeter, openLocalMeters } from '../../keys/meter.ts'
import { PROVISIONING_TTL_MS } from '../../proto/limits.ts'
import type { Time } from '../time.ts'
import type { OpenBus } from './bus.ts'
import type { Places } from './places.ts'
import type { PresenceStore } from './presence.ts'
import { openRedisHints, type Publisher, type Subscriber } from './redis-hints.ts'
import { METER_SCRIPTS, type MeterCommands, openRedisMeters } from './redis-meters.ts'
import { openRedisPlaces, PLACE_SCRIPTS, type PlaceCommands } from './redis-places.ts'
import { openRedisPresence, PRESENCE_SCRIPTS, type PresenceCommands } from './redis-presence.ts'
import { openRedisRoutes, ROUTE_SCRIPTS, type RouteCommands } from './redis-routes.ts'
import type { OpenRoutes } from './routes.ts'

export type RedisNodes = {
  bus: OpenBus
  presence(): PresenceStore
  routes: OpenRoutes
  places(node: string): Places
  /** Limits are counted for all nodes together. */
  meters: OpenMeter
  /** False: hints do not get through now, and who is online cannot be asked. */
  isConnected(): boolean
  /** Closes the connections; the ends of the bus before it. */
  close(): Promise<void>
}

export type RedisSettings = {
  /** redis:// or rediss:// URLs. They may hold a password: never logged (I16). */
  urls: string[]
  /** The URLs are nodes of one cluster, by which the others are found. */
  cluster: boolean
  time: Time
  /** An error nobody expected. */
  report(error: unknown): void
  /** So many hints did not get out. */
  onLost(hints: number): void
  /** Redis is there again, or is not; not told of the start. */
  onConnected?(isConnected: boolean): void
  /** How long a node's word about its users holds, milliseconds; 5 minutes unless said. */
  presenceMs?: number
  /** How long a route holds, milliseconds; 5 minutes unless said. */
  routeMs?: number
}

/** A new device waits at most so long, and closes a little later. [I-5.2] */
const PLACE_MS = PROVISIONING_TTL_MS + 10_000
/** Sharded channels. */
const OLDEST = 7
/** Redis is a hint: nobody waits for it. */
const COMMAND_TIMEOUT_MS = 1_000
const CONNECT_TIMEOUT_MS = 5_000
const RECONNECT_MAX_MS = 1_000

const OPTIONS = {
  lazyConnect: true,
  connectTimeout: CONNECT_TIMEOUT_MS,
  commandTimeout: COMMAND_TIMEOUT_MS,
  // What cannot be said now is not worth saying later.
  enableOfflineQueue: false,
  maxRetriesPerRequest: 0,
  autoResendUnfulfilledCommands: false,
  // Channels are joined again by redis-hints.ts, in slices.
  autoResubscribe: false,
  retryStrategy: (times: number) => Math.min(50 * 2 ** times, RECONNECT_MAX_MS),
} satisfies RedisOptions

/**
 * Connects, so that a wrong address is noticed at the start; from then on a Redis that goes away is waited for.
 * @throws Error saying why in words without a password: not reachable, not let in, too old, not (or only) a cluster. Nothing is
 * left open then.
 */
export async function openRedis(settings: RedisSettings): Promise<RedisNodes> {
  const { urls, cluster, time, report, onLost, presenceMs, routeMs } = settings
  const [commands, subscriber] = cluster ? openCluster(urls) : openSingle(urls[0]!)
  const all = [...new Set([commands, subscriber])]
  let why = ''
  const noteWhy = (error: Error & { lastNodeError?: Error }): void => {
    why = (error.lastNodeError ?? error).message
  }
  for (const each of all) {
    // Of an outage onConnected tells; each failed attempt by itself says nothing more.
    for (const event of ['error', 'node error']) each.on(event, noteWhy)
    for (const [name, script] of Object.entries({
      ...PRESENCE_SCRIPTS,
      ...ROUTE_SCRIPTS,
      ...PLACE_SCRIPTS,
      ...METER_SCRIPTS,
    }))
      each.defineCommand(name, script)
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
  return {
    bus: openRedisHints({
      publisher: commands as Publisher,
      subscriber: subscriber as unknown as Subscriber,
      report,
      onLost,
    }),
    presence: openRedisPresence(commands as unknown as PresenceCommands, time, presenceMs),
    places: openRedisPlaces(commands as unknown as PlaceCommands, PLACE_MS),
    routes: openRedisRoutes(commands as unknown as RouteCommands, time, routeMs),
    meters: openRedisMeters(
      commands as unknown as MeterCommands,
      openLocalMeters(() => time.now()),
    ),
    isConnected,
    async close() {
      for (const each of all) {
        for (const event of ['ready', 'close']) each.off(event, look)
        each.disconnect()
      }
    },
  }
}

/** @throws Error with what is wrong with it. */
async function checkServer(commands: Redis | Cluster, cluster: boolean): Promise<void> {
  const info = await commands.info()
  const [, version = ''] = /^redis_version:(\S+)/m.exec(info) ?? []
  if (Number.parseInt(version, 10) < OLDEST)
    throw new Error(`is version ${version}; the relay needs ${OLDEST} or newer`)
  if (!cluster && /^cluster_enabled:1/m.test(info)) throw new Error('is a cluster: set SEALPOST_REDIS_CLUSTER=yes')
}

function openSingle(url: string): [Redis, Redis] {
  const commands = new Redis(url, { ...OPTIONS, enableAutoPipelining: true, connectionName: 'sealpost-commands' })
  // A connection that has subscribed does nothing else.
  return [commands, new Redis(url, { ...OPTIONS, connectionName: 'sealpost-hints' })]
}

function openCluster(urls: string[]): [Cluster, Cluster] {
  const first = new URL(urls[0]!)
  const cluster = new Cluster(urls, {
    lazyConnect: true,
    shardedSubscribers: true,
    enableOfflineQueue: false,
    enableAutoPipelining: true,
    clusterRetryStrategy: (times) => Math.min(50 * 2 ** times, RECONNECT_MAX_MS),
    redisOptions: {
      connectTimeout: CONNECT_TIMEOUT_MS,
      commandTimeout: COMMAND_TIMEOUT_MS,
      ...(first.password && { password: decodeURIComponent(first.password) }),
      ...(first.username && { username: decodeURIComponent(first.username) }),
      ...(first.protocol === 'rediss:' && { tls: {} }),
    },
  })
  return [cluster, cluster]
}
