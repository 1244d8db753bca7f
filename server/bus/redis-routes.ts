// Routes in Redis: per device the epoch of its consumer and the node that has it, for five minutes. A node says its routes again
// every 30 seconds, and when Redis is back, by the same script that took them: it never puts a lower epoch over a higher one, and
// whoever finds a higher one has lost the device, as far as Redis knows.
import { randomUUID } from 'node:crypto'
import type { Time } from '../time.ts'
import type { OpenRoutes, Route } from './routes.ts'
import { openUnsaid } from './unsaid.ts'

/** What is used of a connection to Redis. */
export type RouteCommands = {
  routeTake(key: string, epoch: number, node: string, ms: number, insists: 0 | 1): Promise<string | null>
  routeRelease(key: string, epoch: number): Promise<unknown>
  get(key: string): Promise<string | null>
  on(event: 'ready', listener: () => void): unknown
  off(event: string, listener: (...args: never[]) => void): unknown
  readonly status: string
}

/** The scripts behind them: one key each, so that a cluster can run them. A value is the epoch, a blank, the node. */
export const ROUTE_SCRIPTS = {
  /** Answers a higher epoch that stays; nothing when the route is taken. */
  routeTake: {
    numberOfKeys: 1,
    lua: `local there = redis.call('GET', KEYS[1])
if there and ARGV[4] == '0' then
  local epoch = string.match(there, '^%d+')
  if tonumber(epoch) > tonumber(ARGV[1]) then return epoch end
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return nil`,
  },
  routeRelease: {
    numberOfKeys: 1,
    lua: `local there = redis.call('GET', KEYS[1])
if there and string.match(there, '^%d+') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`,
  },
}

/** How long a route holds, and how often it is said again, milliseconds. */
const HOLDS_MS = 5 * 60_000
const AGAIN_MS = 30_000
/** The round goes over all devices in steps. They are counted, not clocked: a clock may be set back. */
const STEP_MS = 1_000
const AGAIN_STEPS = AGAIN_MS / STEP_MS
/** Routes said in one go when Redis is back. */
const SLICE = 500

const keyOf = (deviceKey: number): string => `sealpost:route:${deviceKey}`

/**
 * @param report a listener threw. @param time of this node; Redis' own decides about ends. @param holdsMs how long a route holds.
 */
export function openRedisRoutes(
  redis: RouteCommands,
  { time, report, holdsMs = HOLDS_MS }: { time: Time; report(error: unknown): void; holdsMs?: number | undefined },
): OpenRoutes {
  return (onNewer) => {
    const node = randomUUID()
    const held = new Map<number, number>()
    /** Epochs released without a word to Redis, whose routes are still there. */
    const unsaid = openUnsaid<number, number>(Math.ceil(holdsMs / STEP_MS))
    const saying = new Set<Promise<void>>()
    let round: number[] = []
    let stepsSince = 0
    let cancel: (() => void) | null = null
    let closed = false

    const ready = (): boolean => redis.status === 'ready'
    const track = (said: Promise<void>): void => {
      const over = said.catch(report).then(() => void saying.delete(over))
      saying.add(over)
    }
    const take = (deviceKey: number, insists: 0 | 1 = 0): void => {
      const epoch = held.get(deviceKey)
      if (epoch === undefined || !ready()) return
      const said = redis.routeTake(keyOf(deviceKey), epoch, node, holdsMs, insists).then(
        (newer) => {
          if (newer !== null && held.get(deviceKey) === epoch) onNewer(deviceKey, Number(newer))
        },
        // It is said again within the round.
        () => {},
      )
      track(said)
    }
    const goOn = (): void => {
      if (!closed && held.size + unsaid.size > 0) cancel ??= time.after(STEP_MS, step)
    }
    const release = (deviceKey: number, epoch: number, since?: number): void => {
      const later = (): void => {
        unsaid.add(deviceKey, epoch, since)
        goOn()
      }
      if (!ready()) later()
      else track(redis.routeRelease(keyOf(deviceKey), epoch).then(() => {}, later))
    }
    const step = (): void => {
      cancel = null
      unsaid.step()
      stepsSince++
      if (ready()) {
        if (round.length === 0 && stepsSince >= AGAIN_STEPS) {
          stepsSince = 0
          round = [...held.keys()]
        }
        const share = Math.max(10, Math.ceil((held.size * STEP_MS) / AGAIN_MS))
        for (const deviceKey of round.splice(0, share)) take(deviceKey)
        for (const { key, value, since } of unsaid.take()) release(key, value, since)
      }
      goOn()
    }
    // What is unsaid waits for the next steps.
    const back = async (): Promise<void> => {
      const all = [...held.keys()]
      for (let at = 0; at < all.length; at += SLICE) {
        for (const deviceKey of all.slice(at, at + SLICE)) take(deviceKey)
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
    redis.on('ready', back)

    return {
      hold(deviceKey, epoch) {
        if (epoch < (held.get(deviceKey) ?? 0)) return
        held.set(deviceKey, epoch)
        unsaid.delete(deviceKey)
        take(deviceKey)
        goOn()
      },
      release(deviceKey, epoch) {
        if (held.get(deviceKey) !== epoch) return
        held.delete(deviceKey)
        release(deviceKey, epoch)
      },
      insist(deviceKey, epoch) {
        if (held.get(deviceKey) === epoch) take(deviceKey, 1)
      },
      async find(deviceKey) {
        const there = await redis.get(keyOf(deviceKey))
        return there === null ? null : routeOf(there)
      },
      async close() {
        closed = true
        cancel?.()
        redis.off('ready', back)
        for (const [deviceKey, epoch] of held) release(deviceKey, epoch)
        held.clear()
        await Promise.all(saying)
      },
    }
  }
}

function routeOf(value: string): Route {
  const at = value.indexOf(' ')
  return { epoch: Number(value.slice(0, at)), node: value.slice(at + 1) }
}
