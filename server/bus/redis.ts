// What nodes have in common through one Redis or a cluster.
import { type OpenMeter, openLocalMeters } from '../../keys/meter.ts'
import { PROVISIONING_TTL_MS } from '../../proto/limits.ts'
import type { Time } from '../time.ts'
import type { OpenBus } from './bus.ts'
import type { Places } from './places.ts'
import type { PresenceStore } from './presence.ts'
import { type ConnectionSettings, connectRedis } from './redis-connection.ts'
import { openRedisHints } from './redis-hints.ts'
import { openRedisMeters } from './redis-meters.ts'
import { openRedisPlaces } from './redis-places.ts'
import { openRedisPresence } from './redis-presence.ts'
import { openRedisRoutes } from './redis-routes.ts'
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

export type RedisSettings = ConnectionSettings & {
  time: Time
  /** An error nobody expected. */
  report(error: unknown): void
  /** So many hints did not get out. */
  onLost(hints: number): void
  /** A limit of this name was counted by this node alone, or refused, because Redis did not answer. */
  onAlone?(limit: string): void
  /** Limits wait so long for Redis, milliseconds, and no longer than commandMs; a quarter of a second unless said. */
  patienceMs?: number
  /** How long a node's word about its users holds, milliseconds; 5 minutes unless said. */
  presenceMs?: number
  /** How long a route holds, milliseconds; 5 minutes unless said. */
  routeMs?: number
}

/** A new device waits at most so long, and closes a little later. [I-5.2] */
const PLACE_MS = PROVISIONING_TTL_MS + 10_000

/**
 * Connects, so that a wrong address is noticed at the start; from then on a Redis that goes away is waited for.
 * @throws Error saying why in words without a password: not reachable, not let in, too old, not (or only) a cluster. Nothing is
 * left open then.
 */
export async function openRedis(settings: RedisSettings): Promise<RedisNodes> {
  const { time, report, onLost, onAlone, patienceMs, presenceMs, routeMs } = settings
  const { commands, subscriber, isConnected, close } = await connectRedis(settings)
  return {
    bus: openRedisHints({ publisher: commands, subscriber, report, onLost }),
    presence: openRedisPresence(commands, time, presenceMs),
    places: openRedisPlaces(commands, PLACE_MS),
    routes: openRedisRoutes(commands, { time, report, holdsMs: routeMs }),
    meters: openRedisMeters(
      commands,
      openLocalMeters(() => time.now()),
      onAlone,
      patienceMs,
    ),
    isConnected,
    close: async () => close(),
  }
}
