// The real HAProxy with the configuration operators get, in front of three relays on one database and one Redis: where devices come
// out, what happens to them when nodes go and come, and what the balancer keeps to itself.
import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { uuidToBytes } from '../../proto/ids.ts'
import type { Child } from '../../scripts/cluster/child.ts'
import { startHaproxy } from '../../scripts/cluster/programs.ts'
import { HAPROXY } from '../../scripts/debian.ts'
import type { Leaving } from '../../server/start.ts'
import { systemTime } from '../../server/time.ts'
import { Client, idOf, request, Socket } from '../support/client.ts'
import { type ClusterNode, type TestCluster, testCluster } from '../support/cluster.ts'
import { INSTALL_MAX_MS, obtain } from '../support/debian.ts'
import { poll, post } from '../support/http-frames.ts'
import { ownPort } from '../support/ports.ts'
import { until } from '../support/processes.ts'
import { type LossyProxy, openProxy } from '../support/proxy.ts'

const HERE = '127.0.0.1'
const DRAIN = { pauseMs: 3_500, perSecond: 1_000, graceMs: 30_000 }
/** Ends the pause of a node that drains: as soon as HAProxy has noticed, in which time ever. */
let pauseIsOver = (): void => {}
const { now, after } = systemTime()
const leaving: Leaving = {
  random: Math.random,
  time: {
    now,
    after(ms, call) {
      if (ms !== DRAIN.pauseMs) return after(ms, call)
      pauseIsOver = call
      return () => {}
    },
  },
}

let cluster: TestCluster
/** In HAProxy's order, also when they are gone. */
let relays: ClusterNode[]
/** Between HAProxy and the second relay: down, that relay is dead to the balancer. */
let way: LossyProxy
let haproxy: Child
let entry: { url: string; realm: string }
const logged: string[] = []

beforeAll(async () => {
  const { it: program, missing } = await obtain(HAPROXY)
  if (program === null) throw new Error(missing)
  cluster = await testCluster({ proxied: false, config: { drain: DRAIN }, leaving })
  relays = [...cluster.nodes]
  way = await openProxy(relays[1]!.url)
  const port = await ownPort()
  haproxy = await startHaproxy({
    ...{ program, host: HERE, port },
    relays: [relays[0]!, way, relays[2]!].map(({ url }) => new URL(url).host),
    onLine: (line) => logged.push(line),
  })
  entry = { url: `http://${HERE}:${port}`, realm: relays[0]!.realm }
}, INSTALL_MAX_MS)

afterAll(async () => {
  await haproxy?.stop()
  await way?.close()
  await close()
})

let closing: Promise<void> | null = null
const close = (): Promise<void> => {
  DRAIN.pauseMs = 0
  closing ??= cluster?.close() ?? Promise.resolve()
  return closing
}

/** Lines of each relay that were looked at. */
const looked = new WeakMap<ClusterNode, number>()
/** The nodes that logged such an event since the last lookAway(), once per line. */
const seen = (event: string, fits: (line: Record<string, unknown>) => boolean = () => true): number[] =>
  relays.flatMap((relay, node) => {
    const lines = relay.logged.slice(looked.get(relay) ?? 0).map((each) => JSON.parse(each))
    return lines.filter((each) => each.event === event && fits(each)).map(() => node)
  })
const lookAway = (): void => {
  for (const relay of relays) looked.set(relay, relay.logged.length)
}

/** Lets a device do something. @returns the node at which that event was logged, which is one. */
async function nodeOf(client: Client, event: string, act: () => Promise<unknown>): Promise<number> {
  lookAway()
  await act()
  const found = seen(event, ({ userId }) => userId === client.userId)
  expect(new Set(found).size, `${event} at ${found}`).toBe(1)
  return found[0]!
}

/** Waits for lines of HAProxy's log, from now on. */
function saysNext(): (text: string) => Promise<void> {
  const from = logged.length
  return (text) => until(() => logged.slice(from).some((line) => line.includes(text)))
}

const viaSocket = (client: Client): Promise<number> =>
  nodeOf(client, 'connect', async () => (await client.connect()).close())

test('a device is always at one node: natively, as a browser, over HTTP, with another token', async () => {
  for (const client of await Promise.all([1, 2, 3, 4].map(() => Client.register(entry)))) {
    const node = await viaSocket(client)
    expect(await viaSocket(client)).toBe(node)
    for (const order of [
      ['sealpost.v1', `bearer.${client.token}`],
      [`bearer.${client.token}`, 'sealpost.v1'],
    ]) {
      const browser = async () => {
        const socket = await Socket.open(entry.url, null, { subprotocols: order })
        expect(socket.ws.protocol).toBe('sealpost.v1')
        await socket.next('hello')
        await socket.close()
      }
      expect(await nodeOf(client, 'connect', browser)).toBe(node)
    }
    const ack = () => post(client, { ack: { messageIds: [uuidToBytes(randomUUID())] } })
    expect(await nodeOf(client, 'ack', ack)).toBe(node)
    const wait = async () => {
      const leaving = new AbortController()
      const waiting = poll(client, 'wait_seconds=60', leaving.signal).catch(() => {})
      await until(() => seen('connect').length > 0)
      leaving.abort()
      await waiting
    }
    expect(await nodeOf(client, 'connect', wait)).toBe(node)
    await client.refresh()
    expect(await viaSocket(client)).toBe(node)
  }
})

/** A token of nobody: the relay refuses it, the balancer does not care. */
const forged = (dev: string): string =>
  `${[{ alg: 'EdDSA' }, { dev }].map((each) => Buffer.from(JSON.stringify(each)).toString('base64url')).join('.')}.x`

/** 60 devices, the same in every run. @returns the node of each. */
async function spread(): Promise<number[]> {
  const nodesOf: number[] = []
  lookAway()
  const devices = Array.from({ length: 60 }, (_, i) => `00000000-0000-4000-8000-${String(i).padStart(12, '0')}`)
  for (const dev of devices) {
    expect((await request(entry.url, 'GET', '/v1/devices', { token: forged(dev) })).status).toBe(401)
    nodesOf.push(...seen('unauthorized'))
    lookAway()
  }
  return nodesOf
}

test('devices are spread over all nodes, whatever proves them', async () => {
  const found = await spread()
  expect(found).toHaveLength(60)
  for (const node of [0, 1, 2]) expect(found.filter((each) => each === node).length).toBeGreaterThan(12)
})

test('a dead node: its devices move, the others stay, and all come home when it is back', async () => {
  const before = await spread()
  const says = saysNext()
  await way.down()
  // From the first request on, before any check has failed: nobody is refused.
  const without = await spread()
  expect(without).toHaveLength(60)
  before.forEach((node, i) => {
    if (node === 1) expect([0, 2]).toContain(without[i])
    else expect(without[i]).toBe(node)
  })
  // To both of the others, not all to the next one.
  expect(new Set(without.filter((_, i) => before[i] === 1)).size).toBe(2)
  await says('relay-2 is DOWN')
  await way.up()
  await says('relay-2 is UP')
  expect(await spread()).toEqual(before)
})

test('people at different nodes write to each other', async () => {
  const [alice, bob] = await pairAtTwoNodes()
  const conversation = await alice.direct(bob)
  const [from, to] = [await alice.live(), await bob.live()]
  const { messageAccepted, error } = await from.send(conversation, [bob.to()])
  expect(error).toBeNull()
  const envelope = await to.next('envelope')
  expect(idOf(envelope.messageId)).toBe(idOf(messageAccepted!.messageId))
  await Promise.all([from.close(), to.close()])
})

async function pairAtTwoNodes(): Promise<[Client, Client]> {
  const alice = await Client.register(entry)
  const home = await viaSocket(alice)
  for (;;) {
    const bob = await Client.register(entry)
    if ((await viaSocket(bob)) !== home) return [alice, bob]
  }
}

test('a device that waits to be linked and the one that links it meet, wherever they are at home [I-5]', async () => {
  const primary = await Client.register(entry)
  for (let i = 0; i < 4; i++) {
    const address = randomBytes(16).toString('base64url')
    const waiting = new WebSocket(`${entry.url.replace('http', 'ws')}/v1/provisioning/${address}`)
    await once(waiting, 'open')
    const [came, ended] = [once(waiting, 'message'), once(waiting, 'close')]
    const sealed = randomBytes(64)
    const handed = await primary.put(`/v1/provisioning/${address}`, { message: sealed.toString('base64') })
    expect(handed.status).toBe(204)
    expect((await came)[0]).toEqual(sealed)
    await ended
  }
})

test('a relay hears where a client is from the balancer, whatever the client says himself', async () => {
  lookAway()
  const headers = { 'X-Forwarded-For': '203.0.113.9' }
  await request(entry.url, 'GET', '/v1/devices', { token: forged('x'), headers })
  await request(relays[0]!.url, 'GET', '/v1/devices', { token: forged('x'), headers })
  expect(seen('unauthorized', ({ address }) => address === HERE)).toHaveLength(1)
  // Without the balancer, this machine is a proxy like it.
  expect(seen('unauthorized', ({ address }) => address === '203.0.113.9')).toEqual([0])
})

test('metrics are not for the world, and the log holds no token, name, address or query. I16', async () => {
  const client = await Client.register(entry)
  await viaSocket(client)
  const hash = randomBytes(32).toString('base64url')
  await client.get(`/v1/usernames/${hash}?secret=${hash}`)
  for (const path of ['/metrics', '/metrics?x=1', '/METRICS', '/metrics/']) {
    const { status, body } = await request(entry.url, 'GET', path)
    expect([status, body.error.code]).toEqual([404, 'NOT_FOUND'])
  }
  await until(() => logged.some((line) => /GET \/metrics 404/.test(line)))
  const log = logged.join('\n')
  expect(log).toMatch(/GET \/v1\/usernames 404/)
  for (const secret of [client.token, client.token.split('.')[2]!, client.userId, hash])
    expect(log).not.toContain(secret)
})

test('a node that drains: unready first, so that nobody is refused; who is there is sent away, who is not stays', async () => {
  const clients = await Promise.all(Array.from({ length: 12 }, () => Client.register(entry)))
  const homes = new Map<Client, number>()
  const sockets = new Map<Client, Socket>()
  for (const client of clients) {
    const connect = async () => sockets.set(client, await client.connect())
    homes.set(client, await nodeOf(client, 'connect', connect))
  }
  // Not the one behind the proxy, which would accept for a relay that does not.
  const home = homes.get(clients.find((each) => homes.get(each) !== 1)!)!
  const there = clients.filter((each) => homes.get(each) === home)
  const elsewhere = clients.filter((each) => homes.get(each) !== home)

  const says = saysNext()
  const closing = relays[home]!.close()
  await says(`relay-${home + 1} is DOWN`)
  // HAProxy looks elsewhere; the relay still serves whoever is there.
  for (const client of there) await sockets.get(client)!.fence()
  pauseIsOver()
  for (const client of there) {
    const socket = sockets.get(client)!
    await socket.next('goingAway')
    expect(await socket.end()).toBe(1001)
    expect(await viaSocket(client)).not.toBe(home)
  }
  for (const client of elsewhere) {
    await sockets.get(client)!.fence()
    expect(await viaSocket(client)).toBe(homes.get(client))
  }
  await closing
})

test('no node takes work: a refusal as a relay writes it, with a time to come back', async () => {
  await close()
  await way.down()
  const { status, headers, body } = await request(entry.url, 'GET', '/v1/devices', { token: forged('x') })
  expect([status, body.error.code, headers.get('retry-after')]).toEqual([503, 'UNAVAILABLE', '2'])
})
