// The only importer of ioredis: connections to one Redis or to a cluster, and what nodes have in common through them.
import { Cluster, Redis, type RedisOptions } from 'ioredis'
import type { Time } from '../time.ts'
import type { OpenBus } from './bus.ts'
import type { PresenceStore } from './presence.ts'
import { openRedisHints, type Publisher, type Subscriber } from './redis-hints.ts'
import { openRedisPresence, PRESENCE_SCRIPTS, type PresenceCommands } from './redis-presence.ts'

export type RedisNodes = {
  bus: OpenBus
  presence(): PresenceStore
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
  /** How long a node's word about its users holds, milliseconds; 5 minutes unless said. */
  presenceMs?: number
}

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
 * @throws the error of the first attempt. Nothing is left open then.
 */
export async function openRedis(settings: RedisSettings): Promise<RedisNodes> {
  const { urls, cluster, time, report, onLost, presenceMs } = settings
  const [commands, subscriber] = cluster ? openCluster(urls) : openSingle(urls[0]!)
  const all = [...new Set([commands, subscriber])]
  for (const each of all) {
    // An outage is shown by what it costs (onLost); each failed attempt by itself says nothing.
    each.on('error', () => {})
    for (const [name, script] of Object.entries(PRESENCE_SCRIPTS)) each.defineCommand(name, script)
  }
  try {
    await Promise.all(all.map((each) => each.connect()))
  } catch (error) {
    for (const each of all) each.disconnect()
    throw error
  }
  return {
    bus: openRedisHints({
      publisher: commands as Publisher,
      subscriber: subscriber as unknown as Subscriber,
      report,
      onLost,
    }),
    presence: openRedisPresence(commands as unknown as PresenceCommands, time, presenceMs),
    async close() {
      for (const each of all) each.disconnect()
    },
  }
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
