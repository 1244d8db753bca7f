// One consumer per device over three nodes: the newer connection wins, whatever happens to Redis and to hints. I6 [C-5]
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import { holdLocks } from '../server/barrier.ts'
import { deviceKeyOf } from '../support/backlog.ts'
import { Client, idOf, Socket } from '../support/client.ts'
import { type ClusterNode, type TestCluster, testCluster } from '../support/cluster.ts'
import { poll } from '../support/http-frames.ts'
import { send } from '../support/signals.ts'

let cluster: TestCluster
let [one, two, three]: ClusterNode[] = []
let ann: Client
let bob: Client
let conversation: string
let from: Socket
let bobKey: number

beforeAll(async () => {
  cluster = await testCluster({ lockMs: 60_000 })
  ;[one, two, three] = cluster.nodes
})
afterAll(() => cluster?.close())
beforeEach(async () => {
  ;[ann, bob] = await Promise.all([Client.register(one!), Client.register(one!)])
  conversation = await ann.direct(bob)
  from = await ann.live()
  bobKey = await deviceKeyOf(cluster.db.database.sql, bob)
})
afterEach(async () => {
  for (const node of cluster.nodes) node.loses = () => false
  await from.close()
  expect(cluster.reported).toEqual([])
})

const lose = (...nodes: (ClusterNode | undefined)[]): void => {
  for (const node of nodes) node!.loses = (hint) => hint.kind === 'takenOver'
}
const routeKey = (): string => `sealpost:route:${bobKey}`
/** What Redis says of the device: epoch and node. */
const route = async (): Promise<string | null> => (await cluster.redis.command('get', routeKey()))[0] as string | null
/** The epoch in the database. */
async function epoch(): Promise<number | null> {
  const [row] = await cluster.db.database.sql<{ epoch: number }[]>`
    select epoch from device_consumers where device_key = ${bobKey}`
  return row?.epoch ?? null
}
/** Connections this node ended because the device is on another, by how it learned of it. */
async function takenOver(node: ClusterNode | undefined): Promise<Record<string, number>> {
  const text = await (await fetch(`${node!.url}/metrics`)).text()
  const found = text.matchAll(/taken_over_total\{by="(\w+)"\} (\d+)/g)
  return Object.fromEntries([...found].map(([, by, count]) => [by, Number(count)]))
}
/** The route says what the database says. */
async function untilRouted(): Promise<void> {
  while (Number((await route())?.split(' ')[0]) !== (await epoch()));
}
/** Everything goes to this socket, and nothing to those that were displaced. */
async function expectAllAt(survivor: Socket, ...displaced: Socket[]): Promise<void> {
  for (const each of displaced) each.frames.length = 0
  const ids = []
  for (let i = 0; i < 3; i++) ids.push(idOf(await send(from, conversation, bob)))
  const got = []
  while (got.length < ids.length) got.push(idOf((await survivor.next('envelope')).messageId))
  expect(got).toEqual(ids)
  for (const each of displaced) expect(each.envelopes()).toEqual([])
  expect(survivor.closed).toBe(null)
}

it('a connection on another node displaces the older one at once: told by a hint', async () => {
  let [older, newer]: Socket[] = []
  // Now and then the re-poll is faster.
  while (!(await takenOver(one)).hint) {
    older = await one!.from(bob).live()
    await untilRouted()
    newer = await two!.from(bob).live()
    expect(await older.end()).toBe(4409)
  }
  await expectAllAt(newer!, older!)
  await untilRouted()
  await newer!.close()
  while ((await route()) !== null);
})

it('hint and route are lost: the database ends the older one', async () => {
  const older = await one!.from(bob).live()
  lose(one, two, three)
  const { database = 0 } = await takenOver(one)
  await cluster.redis.command('flushall')
  const newer = await two!.from(bob).live()
  expect(await older.end()).toBe(4409)
  expect((await takenOver(one)).database).toBe(database + 1)
  await expectAllAt(newer, older)
  await newer.close()
})

it('Redis is gone, and comes back empty: the older one ends, the newer stays, its route is there again', async () => {
  const older = await one!.from(bob).live()
  await cluster.redis.kill()
  const newer = await two!.from(bob).live()
  expect(await older.end()).toBe(4409)
  await expectAllAt(newer, older)
  await cluster.redis.start()
  await cluster.joined()
  await untilRouted()
  const newest = await three!.from(bob).live()
  expect(await newer.end()).toBe(4409)
  await expectAllAt(newest, older, newer)
  await newest.close()
})

it('the table of the database was emptied by a crash: who is connected says it again, and is displaced as ever', async () => {
  const older = await one!.from(bob).live()
  const before = await epoch()
  await cluster.db.database.sql`truncate device_consumers`
  while ((await epoch()) !== before);
  lose(one, two, three)
  await cluster.db.database.sql`truncate device_consumers`
  const newer = await two!.from(bob).live()
  expect(await older.end()).toBe(4409)
  await expectAllAt(newer, older)
  await newer.close()
})

it('a route with an epoch that never was, as after a restore of the database, displaces nobody and is put right', async () => {
  await cluster.redis.command('set', routeKey(), '9000000000000000 nobody', 'px', '300000')
  const only = await one!.from(bob).live()
  await untilRouted()
  await expectAllAt(only)
  await only.close()
})

it('a connection that took its number first and comes in second ends before its Hello', async () => {
  const { sql } = cluster.db.database
  const [{ last }] = await sql<[{ last: number }]>`select last_value + 10 as last from session_epoch`
  const gate = await holdLocks(sql, (tx) => tx`insert into device_consumers values (${bobKey}, ${last})`)
  const late = await Socket.open(one!.url, bob.token)
  await gate.waiting(1)
  await sql`select setval('session_epoch', ${last})`
  await gate.release()
  expect(await late.end()).toBe(4409)
  expect(late.frames).toEqual([])
  const newer = await two!.from(bob).live()
  await expectAllAt(newer)
  await newer.close()
})

it('50 connections of one device to three nodes at once, the hints lost, the route deleted midway: the newest survives', async () => {
  lose(one, two, three)
  const { sql } = cluster.db.database
  await sql`insert into device_consumers values (${bobKey}, 0) on conflict (device_key) do nothing`
  // Nobody gets on before all three nodes have somebody at the door.
  const gate = await holdLocks(sql, (tx) => tx`select from device_consumers where device_key = ${bobKey} for update`)
  const open = new Set<Socket>()
  let ended!: () => void
  const oneLeft = new Promise<void>((resolve) => {
    ended = resolve
  })
  const opening = Array.from({ length: 50 }, async (_, i) => {
    const socket = await Socket.open(cluster.nodes[i % 3]!.url, bob.token)
    open.add(socket)
    socket.ws.on('close', () => {
      open.delete(socket)
      if (all.length === 50 && open.size === 1) ended()
    })
    if (i % 5 === 0) await cluster.redis.command('del', routeKey())
    return socket
  })
  const all: Socket[] = []
  await gate.waiting(3)
  await gate.release()
  all.push(...(await Promise.all(opening)))
  await cluster.redis.command('del', routeKey())
  if (open.size > 1) await oneLeft
  const [survivor] = [...open]
  const others = all.filter((each) => each !== survivor)
  expect(others.map((each) => each.closed?.code)).toEqual(Array(49).fill(4409))
  await survivor!.next('hello')
  await survivor!.drain()
  // Nobody else connected meanwhile: the last epoch there is belongs to the survivor.
  const [{ last }] = await sql<[{ last: number }]>`select last_value as last from session_epoch`
  expect(await epoch()).toBe(last)
  await expectAllAt(survivor!, ...others)
  // With no route and no hint it is found by who is asked for it next.
  lose()
  const newer = await two!.from(bob).live()
  expect(await survivor!.end()).toBe(4409)
  await expectAllAt(newer, survivor!, ...others)
  await newer.close()
})

it('what waits by HTTP displaces across nodes, and is displaced with CONFLICT', async () => {
  const socket = await one!.from(bob).live()
  const waiting = poll(two!.from(bob), 'wait_seconds=60')
  expect(await socket.end()).toBe(4409)
  const newer = await three!.from(bob).live()
  const { status, frames } = await waiting
  expect([status, frames.at(-1)?.error?.code]).toEqual([409, 5])
  await expectAllAt(newer, socket)
  // Who only reads displaces nobody.
  expect((await poll(two!.from(bob))).status).toBe(200)
  await expectAllAt(newer)
  await newer.close()
})

it('connections that come and go on all nodes leave nothing in Redis and no subscription', async () => {
  const channels = async (): Promise<string[]> =>
    ((await cluster.redis.command('pubsub', 'shardchannels', 'sealpost:*'))[0] as string[]).sort()
  const keys = async (): Promise<string[]> =>
    ((await cluster.redis.command('keys', 'sealpost:*'))[0] as string[])
      .filter((each) => !each.startsWith('sealpost:limit:'))
      .sort()
  await from.close()
  // What former tests left behind ends.
  while ((await keys()).length > 0 || (await channels()).some((each) => /device|user/.test(each)));
  const before = await channels()
  // Two of three are displaced, many of them before their Hello.
  for (let round = 0; round < 20; round++)
    await Promise.allSettled(
      cluster.nodes.map(async (node) => {
        const socket = await node.from(bob).connect()
        await socket.close()
      }),
    )
  while ((await keys()).length > 0);
  while ((await channels()).join() !== before.join());
  expect(await cluster.db.database.sql`select 1 from device_consumers where device_key = ${bobKey}`).toHaveLength(1)
})
