// Several relays in this process as the nodes of one deployment: one database, one real redis-server, and for each node connections
// of its own, which can be cut, and hints that can be lost.
import type { Hint } from '../../server/bus/bus.ts'
import { openRedis, type RedisNodes } from '../../server/bus/redis.ts'
import type { Config } from '../../server/config.ts'
import type { Leaving } from '../../server/start.ts'
import { systemTime, type Time } from '../../server/time.ts'
import type { Client } from './client.ts'
import { type TestDatabase, testDatabase } from './database.ts'
import { ownPort } from './ports.ts'
import { type LossyProxy, openProxy } from './proxy.ts'
import { startRedis, type TestRedis } from './redis.ts'
import { type TestRelay, testRelay } from './relay.ts'

/** One of the relays. */
export type ClusterNode = TestRelay & {
  /** Its end of what the nodes have in common. */
  joined: RedisNodes
  /** Which hints never reach this node; none at first. May be replaced at any time. */
  loses: (hint: Hint) => boolean
  /** Hints that came in and were not lost, by kind. */
  hints: Map<Hint['kind'], number>
  /** Hints this node could not get out. */
  unsent: number
  /** Cuts this node's connections to Redis, and refuses new ones. Needs `proxied`. */
  cutOff(): Promise<void>
  /** Redis can be reached again: resolves when it is. */
  rejoin(): Promise<void>
  /** A client of any node, as one of this node's. */
  from(client: Client): Client
}

export type TestCluster = {
  nodes: ClusterNode[]
  db: TestDatabase
  /** kill(), start() and command('flushall') are about all of them. */
  redis: TestRedis
  /** Waits until every node, except those cut off, is connected to Redis. */
  joined(): Promise<void>
  /** One more node, at the end of `nodes`. */
  grow(): Promise<void>
  /** Errors nobody expected, from the bus. */
  reported: unknown[]
  close(): Promise<void>
}

/**
 * @param options.nodes how many; 3 unless said. @param options.servers Redis servers: 3 are a cluster, which is not proxied.
 * @param options.proxied false: straight to Redis, for measurements; nothing can be cut off then.
 * @param options.time of all nodes. @param options.leaving of their ways down. @param options.lockMs how long they wait for a lock.
 * @param options.db a database that is there already, kept at the end.
 */
export async function testCluster(
  options: {
    nodes?: number
    servers?: 1 | 3
    proxied?: boolean
    config?: Partial<Config>
    time?: Time
    leaving?: Leaving
    lockMs?: number
    db?: TestDatabase
  } = {},
): Promise<TestCluster> {
  const { servers = 1, proxied = servers === 1, config = {}, time, leaving, lockMs } = options
  const redis = await startRedis({ servers })
  const db = options.db ?? (await testDatabase())
  const nodes: ClusterNode[] = []
  const proxies: LossyProxy[] = []
  const reported: unknown[] = []
  const cut = new Set<ClusterNode>()

  async function openNode(): Promise<ClusterNode> {
    const proxy = proxied ? await openProxy(redis.urls[0]!) : null
    if (proxy) proxies.push(proxy)
    const own = { loses: (_: Hint): boolean => false, hints: new Map<Hint['kind'], number>(), unsent: 0 }
    const joined = await openRedis({
      urls: proxy ? [proxy.url] : redis.urls,
      cluster: redis.cluster,
      time: time ?? systemTime(),
      report: (error) => reported.push(error),
      onLost: (hints) => {
        node.unsent += hints
      },
    })
    const bus: RedisNodes['bus'] = (receive) =>
      joined.bus((hint) => {
        if (node.loses(hint)) return
        node.hints.set(hint.kind, (node.hints.get(hint.kind) ?? 0) + 1)
        receive(hint)
      })
    // Who looks for it there when it is gone finds nobody else.
    const port = await ownPort()
    const opening = testRelay({
      db,
      config: { port, ...config },
      nodes: { ...joined, bus },
      ...(time && { time }),
      ...(leaving && { leaving }),
      ...(lockMs && { lockMs }),
    })
    const relay = await opening.catch(async (error: unknown) => {
      await joined.close()
      throw error
    })
    const node: ClusterNode = {
      ...relay,
      ...own,
      joined,
      async cutOff() {
        if (!proxy) throw new Error('this node has no proxy before Redis')
        cut.add(node)
        await proxy.down()
      },
      async rejoin() {
        await proxy?.up()
        cut.delete(node)
        while (!joined.isConnected()) await turn()
      },
      from: (client) => Object.assign(Object.create(client), { url: relay.url }),
      async close() {
        if (!nodes.includes(node)) return
        nodes.splice(nodes.indexOf(node), 1)
        cut.delete(node)
        await relay.close()
        await joined.close()
      },
    }
    return node
  }

  async function close(): Promise<void> {
    await Promise.all([...nodes].map((each) => each.close()))
    await Promise.all(proxies.map((each) => each.close()))
    if (!options.db) await db.close()
    await redis.close()
  }
  try {
    while (nodes.length < (options.nodes ?? 3)) nodes.push(await openNode())
  } catch (error) {
    await close()
    throw error
  }
  return {
    nodes,
    db,
    redis,
    reported,
    async grow() {
      nodes.push(await openNode())
    },
    async joined() {
      while (nodes.some((each) => !cut.has(each) && !each.joined.isConnected())) await turn()
    },
    close,
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5))
