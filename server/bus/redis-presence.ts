// Presence in Redis: per user a sorted set of the nodes that have him, scored with the end of their word by Redis' own clock. A
// node gives its word again every minute; a node that dies takes its users along when its word ends. Redis emptied or restarted:
// every node says again whom it has.
import { randomUUID } from 'node:crypto'
import type { Uuid } from '../../proto/ids.ts'
import type { Time } from '../time.ts'
import type { PresenceStore } from './presence.ts'
import { openUnsaid } from './unsaid.ts'

/** What is used of a connection to Redis. */
export type PresenceCommands = {
  presenceArrived(key: string, node: string, ms: number): Promise<unknown>
  presenceLeft(key: string, node: string): Promise<unknown>
  presenceOnline(key: string): Promise<number>
  on(event: 'ready', listener: () => void): unknown
  off(event: string, listener: (...args: never[]) => void): unknown
  readonly status: string
}

/** The scripts behind them: one key each, so that a cluster can run them. */
export const PRESENCE_SCRIPTS = {
  presenceArrived: {
    numberOfKeys: 1,
    lua: `local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])`,
  },
  presenceLeft: { numberOfKeys: 1, lua: `return redis.call('ZREM', KEYS[1], ARGV[1])` },
  presenceOnline: {
    numberOfKeys: 1,
    lua: `local time = redis.call('TIME')
return redis.call('ZCOUNT', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000), '+inf')`,
  },
}

/** How long a node's word holds, and how often it is given, milliseconds. */
const WORD_MS = 5 * 60_000
const AGAIN_MS = 60_000
/** The round goes over all users in steps. */
const STEP_MS = 1_000
/** Users asked about or told of in one go. */
const SLICE = 500

const keyOf = (userId: Uuid): string => `sealpost:presence:${userId}`

/**
 * @param time of this node; Redis' own decides about ends. @param wordMs how long a node's word holds.
 * @returns makes one node's end.
 */
export function openRedisPresence(redis: PresenceCommands, time: Time, wordMs = WORD_MS): () => PresenceStore {
  return () => {
    const node = randomUUID()
    const here = new Set<Uuid>()
    /** Who is to be said again in this round. */
    let round: Uuid[] = []
    /** Who is gone, while Redis has this node's word that he is not. */
    const unsaid = openUnsaid<Uuid, null>(Math.ceil(wordMs / STEP_MS))
    let cancel: (() => void) | null = null
    let closed = false

    const ready = (): boolean => redis.status === 'ready'
    const goOn = (): void => {
      if (!closed && here.size + unsaid.size > 0) cancel ??= time.after(STEP_MS, step)
    }
    // What fails here is said again within the round.
    const sayHere = (userId: Uuid): void => {
      if (ready()) redis.presenceArrived(keyOf(userId), node, wordMs).catch(() => {})
    }
    const sayGone = (userId: Uuid, since?: number): void => {
      const later = (): void => {
        if (here.has(userId)) return
        unsaid.add(userId, null, since)
        goOn()
      }
      if (ready()) redis.presenceLeft(keyOf(userId), node).catch(later)
      else later()
    }
    const step = (): void => {
      cancel = null
      unsaid.step()
      if (round.length === 0) round = [...here]
      const share = Math.max(10, Math.ceil((here.size * STEP_MS) / AGAIN_MS))
      if (ready()) {
        for (const userId of round.splice(0, share)) if (here.has(userId)) sayHere(userId)
        for (const { key, since } of unsaid.take()) sayGone(key, since)
      }
      goOn()
    }
    // Who is gone waits for the next steps.
    const back = async (): Promise<void> => {
      const all = [...here]
      for (let at = 0; at < all.length; at += SLICE) {
        for (const userId of all.slice(at, at + SLICE)) if (here.has(userId)) sayHere(userId)
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
    redis.on('ready', back)

    return {
      arrived(userId) {
        here.add(userId)
        unsaid.delete(userId)
        sayHere(userId)
        goOn()
      },
      left(userId) {
        if (here.delete(userId)) sayGone(userId)
      },
      async online(userIds) {
        const counts = await Promise.all(userIds.map((each) => redis.presenceOnline(keyOf(each))))
        return new Set(userIds.filter((_, i) => counts[i]! > 0))
      },
      async close() {
        closed = true
        cancel?.()
        redis.off('ready', back)
        const gone = [...here].map((each) => (ready() ? redis.presenceLeft(keyOf(each), node) : null))
        here.clear()
        await Promise.allSettled(gone)
      },
    }
  }
}
