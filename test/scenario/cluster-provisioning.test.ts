// A new device waits on one node, its user's primary is on another: the first message wins, and only one. [I-5.2] [I-5.3]
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { Client, type HttpAnswer } from '../support/client.ts'
import { type ClusterNode, type TestCluster, testCluster } from '../support/cluster.ts'

let cluster: TestCluster
let [one, two, three]: ClusterNode[] = []
let ann: Client
beforeAll(async () => {
  cluster = await testCluster()
  ;[one, two, three] = cluster.nodes
  ann = await Client.register(one!)
})
afterAll(async () => {
  expect(cluster.reported).toEqual([])
  await cluster.close()
})

const newAddress = (): string => randomBytes(16).toString('base64url')
type Waiter = { ws: WebSocket; messages: Buffer[]; ended: Promise<number> }

function knock(node: ClusterNode | undefined, address: string): WebSocket {
  const ws = new WebSocket(`${node!.url.replace(/^http/, 'ws')}/v1/provisioning/${address}`)
  ws.on('error', () => {})
  return ws
}
async function waitAt(node: ClusterNode | undefined, address: string): Promise<Waiter> {
  const ws = knock(node, address)
  const messages: Buffer[] = []
  ws.on('message', (data: Buffer) => messages.push(data))
  const ended = new Promise<number>((resolve) => ws.on('close', resolve))
  await once(ws, 'open')
  return { ws, messages, ended }
}
const hand = (node: ClusterNode | undefined, address: string, sealed: Uint8Array): Promise<HttpAnswer> =>
  node!.from(ann).put(`/v1/provisioning/${address}`, { message: Buffer.from(sealed).toString('base64') })
const statuses = (answers: HttpAnswer[]): number[] => answers.map((each) => each.status).sort()

it('64 KiB handed over at another node arrive, once; afterwards nobody waits on any node', async () => {
  const address = newAddress()
  const waiter = await waitAt(one, address)
  const sealed = randomBytes(65_536)
  expect((await hand(two, address, sealed)).status).toBe(204)
  expect(await waiter.ended).toBe(1000)
  expect(waiter.messages.map((each) => each.equals(sealed))).toEqual([true])
  expect(statuses(await Promise.all(cluster.nodes.map((each) => hand(each, address, sealed))))).toEqual([404, 404, 404])
})

it('by all nodes at once: one of them does it', async () => {
  ann = await Client.register(one!)
  for (let round = 0; round < 2; round++) {
    const address = newAddress()
    const waiter = await waitAt(cluster.nodes[round], address)
    const bodies = cluster.nodes.map(() => randomBytes(20))
    const answers = await Promise.all(cluster.nodes.map((each, i) => hand(each, address, bodies[i]!)))
    expect(statuses(answers)).toEqual([204, 404, 404])
    expect(await waiter.ended).toBe(1000)
    expect(waiter.messages).toEqual([bodies[answers.findIndex((each) => each.status === 204)]])
  }
})

it('somebody waits there already, on another node: 409; when he has left, the place is free', async () => {
  const address = newAddress()
  const waiter = await waitAt(one, address)
  const [, refused] = await once(knock(two, address), 'unexpected-response')
  expect(refused.statusCode).toBe(409)
  // The one who was refused has changed nothing.
  waiter.ws.close()
  await waiter.ended
  while ((await cluster.redis.command('keys', 'sealpost:place:*')).flat().length > 0);
  const next = await waitAt(two, address)
  expect((await hand(three, address, Buffer.of(1))).status).toBe(204)
  expect(await next.ended).toBe(1000)
})

it('Redis gone: on the same node as before, elsewhere UNAVAILABLE; back and empty: everywhere again', async () => {
  ann = await Client.register(one!)
  const [here, there] = [newAddress(), newAddress()]
  const [near, far] = [await waitAt(one, here), await waitAt(two, there)]
  await cluster.redis.kill()
  expect((await hand(one, here, Buffer.of(1))).status).toBe(204)
  expect(await near.ended).toBe(1000)
  const refused = await hand(one, there, Buffer.of(2))
  expect([refused.status, refused.body.error.code]).toEqual([503, 'UNAVAILABLE'])
  await cluster.redis.start()
  await cluster.joined()
  while ((await cluster.redis.command('keys', 'sealpost:place:*')).flat().length === 0);
  // Channels are joined again at the same time; who asks too early is told to ask again.
  while ((await hand(three, there, Buffer.of(3))).status === 503);
  expect(await far.ended).toBe(1000)
  expect(far.messages).toEqual([Buffer.of(3)])
})
