// The stories of one relay, told on several nodes: where a test asks for a relay and SEALPOST_TEST_NODES is 2 or more, it gets so
// many, on its database and joined by a real Redis. Requests go to them in turn. Devices are at home on them in turn, so that sender
// and recipient are on different ones; a second connection of a device, beside one that is open, is made to the next node.
import { openRedis, type RedisNodes } from '../../server/bus/redis.ts'
import type { Time } from '../../server/time.ts'
import { startRedis, type TestRedis } from './redis.ts'

type Spread = {
  urls: string[]
  /** Whose turn it is. */
  request: number
  device: number
  /** By device: the node it is at home on, and how many connections it has. */
  homes: Map<string, number>
  open: Map<string, number>
}

/** By the address that tests know of all its nodes: the first one's. */
const spreads = new Map<string, Spread>()
/** By database: relays that share one share a Redis. */
const joints = new Map<string, { redis: Promise<TestRedis>; users: number }>()

/** How many nodes a relay of a test is. */
export const nodesWanted = (): number => Number(process.env.SEALPOST_TEST_NODES ?? 1)

/** The address a request goes to that is made to this one. */
export function requestUrl(url: string): string {
  const spread = spreads.get(url)
  return spread ? spread.urls[spread.request++ % spread.urls.length]! : url
}

/** The addresses of all that this one stands for. */
export const allUrls = (url: string): string[] => spreads.get(url)?.urls ?? [url]

/** The node a device is at home on: where a balancer that looks at devices takes all it asks. */
export function homeUrl(url: string, token: string): string {
  const place = socketUrl(url, token)
  place.closed()
  return place.url
}

/** @param token names the device; null is nobody's. @returns the address of its next socket, and what to call when that is closed. */
export function socketUrl(url: string, token: string | null): { url: string; closed(): void } {
  const spread = spreads.get(url)
  const device = token && deviceOf(token)
  if (!spread || !device) return { url, closed: () => {} }
  const home = spread.homes.get(device) ?? spread.device++
  spread.homes.set(device, home)
  const open = spread.open.get(device) ?? 0
  spread.open.set(device, open + 1)
  return {
    url: spread.urls[(home + open) % spread.urls.length]!,
    closed: () => void spread.open.set(device, spread.open.get(device)! - 1),
  }
}

/** Requests and sockets to the first of these go to all of them in turn. @returns ends that. */
export function spreadOut(urls: string[]): () => void {
  const [first] = urls as [string]
  spreads.set(first, { urls, request: 0, device: 0, homes: new Map(), open: new Map() })
  return () => void spreads.delete(first)
}

function deviceOf(token: string): string | null {
  try {
    return JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()).dev ?? null
  } catch {
    return null
  }
}

/** A Redis for the nodes on one database, as long as anybody uses it. */
export async function sharedRedis(databaseUrl: string): Promise<{ redis: TestRedis; release(): Promise<void> }> {
  const joint = joints.get(databaseUrl) ?? { redis: startRedis(), users: 0 }
  joints.set(databaseUrl, joint)
  joint.users++
  let held = true
  return {
    redis: await joint.redis,
    async release() {
      if (!held) return
      held = false
      if (--joint.users > 0) return
      joints.delete(databaseUrl)
      await (await joint.redis).close()
    },
  }
}

/**
 * Starts so many nodes, each joined to the others.
 * @param start starts one; `index` counts from 0. @returns the first; closing it closes all.
 */
export async function spreadOver<R extends { url: string; close(): Promise<void> }>(
  { databaseUrl, time, count = nodesWanted() }: { databaseUrl: string; time: Time; count?: number },
  start: (nodes: RedisNodes, index: number) => Promise<R>,
): Promise<R> {
  const { redis, release } = await sharedRedis(databaseUrl)
  const report = (error: unknown): void => void console.error(error)
  const open: { close(): Promise<void> }[] = []
  const close = async (): Promise<void> => {
    for (const each of open.reverse()) await each.close()
    await release()
  }
  const started: R[] = []
  try {
    while (started.length < count) {
      const joined = await openRedis({ urls: redis.urls, cluster: false, time, report, onLost: () => {} })
      open.push(joined)
      const one = await start(joined, started.length)
      open.push(one)
      started.push(one)
    }
  } catch (error) {
    await close()
    throw error
  }
  const [first] = started
  const forget = spreadOut(started.map((each) => each.url))
  return {
    ...first!,
    async close() {
      forget()
      await close()
    },
  }
}
