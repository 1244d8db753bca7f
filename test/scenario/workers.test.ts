// `WORKERS=2 npm start`: two relays on one port, joined by a real Redis, and the process that looks after them.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { isAlive } from '../../server/ownership.ts'
import { Client, request, type Socket } from '../support/client.ts'
import { ownPort } from '../support/ports.ts'
import { processesWith, runScript, until, type Watched } from '../support/processes.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'

// Three processes start in each.
vi.setConfig({ testTimeout: 60_000 })

let redis: TestRedis
let root: string
let dataDir: string
const started: Watched[] = []

beforeAll(async () => {
  redis = await startRedis()
  root = await mkdtemp(join(tmpdir(), 'sealpost-workers-'))
  dataDir = join(root, 'data')
})
afterAll(async () => {
  for (const each of started) {
    each.kill('SIGKILL')
    await each.ended
  }
  await until(() => processesWith(`-D ${dataDir}`).length === 0)
  await rm(root, { recursive: true, force: true })
  await redis.close()
})

async function start(): Promise<{ process: Watched; url: string }> {
  const process = runScript('server/main.ts', [], {
    ...{ WORKERS: '2', PORT: `${await ownPort()}`, REDIS_URL: redis.urls[0]!, SEALPOST_DATA_DIR: dataDir },
    ...{ SEALPOST_REALM: 'https://relay.test', SEALPOST_STRANGERS: 'open' },
  })
  started.push(process)
  const [, url] = await process.says(/HTTP +(http:\S+)[\s\S]*Ctrl-C/)
  return { process, url: url! }
}

/** Every process that came to serve, by the number of its place, in order. */
const serving = ({ stderr }: Watched): { worker: number; pid: number }[] =>
  stderr()
    .split('\n')
    // The last one has not come in whole yet.
    .slice(0, -1)
    .filter((line) => line.includes('"a worker serves"'))
    .map((line) => JSON.parse(line))

/** Worker → open WebSockets, as everybody's metrics have them. One too busy to count is left out of them: they are read until both are in. */
async function connections(url: string): Promise<Map<number, number>> {
  for (;;) {
    const { body } = await request(url, 'GET', '/metrics')
    const found = (body as string).matchAll(/^sealpost_connections\{worker="(\d+)"\} (\d+)/gm)
    const open = new Map([...found].map(([, worker, count]) => [Number(worker), Number(count)]))
    if (open.size === 2) return open
  }
}

/** Connects until the kernel has given the connection to a worker that has none. @returns which. */
async function alone(client: Client): Promise<{ socket: Socket; worker: number }> {
  for (;;) {
    const before = await connections(client.url)
    const socket = await client.live()
    const now = await connections(client.url)
    const worker = [...now.keys()].find((each) => now.get(each) === 1 && before.get(each) === 0)
    if (worker !== undefined) return { socket, worker }
    await socket.close()
    await until(async () => [...(await connections(client.url))].every(([each, open]) => open === before.get(each)))
  }
}

test('devices of different workers talk; a worker that is killed is replaced; SIGTERM ends all with exit code 0', async () => {
  const { process: command, url } = await start()
  expect(command.stdout()).toMatch(/workers +2, all on this port/)
  const relay = { url, realm: 'https://relay.test' }
  const [alice, bob] = [await Client.register(relay), await Client.register(relay)]
  const conversation = await alice.direct(bob)
  const a = await alone(alice)
  const b = await alone(bob)
  expect([a.worker, b.worker].sort()).toEqual([1, 2])
  const sent = await a.socket.send(conversation, [bob.to()])
  const { messageId } = await b.socket.next('envelope')
  expect(messageId).toEqual(sent.messageAccepted!.messageId)
  await b.socket.ack(messageId)

  const killed = serving(command).find((each) => each.worker === a.worker)!
  process.kill(killed.pid, 'SIGKILL')
  expect(await a.socket.end()).toBe(1006)
  await until(() => serving(command).length === 3)
  expect(command.stderr()).toContain('"how":"SIGKILL"')
  const again = await alone(alice)
  expect(again.worker).toBe(killed.worker)
  expect((await again.socket.send(conversation, [bob.to()])).messageAccepted).toBeTruthy()
  await b.socket.next('envelope')

  command.kill('SIGTERM')
  await Promise.all([again.socket, b.socket].map((each) => each.next('goingAway')))
  expect(await Promise.all([again.socket.end(), b.socket.end()])).toEqual([1001, 1001])
  expect(await command.ended).toBe(0)
  expect(serving(command).filter(({ pid }) => isAlive(pid))).toEqual([])
  expect(processesWith(dataDir)).toEqual([])
})

test('killed with SIGKILL, it leaves no worker and no database behind', async () => {
  const { process: command, url } = await start()
  expect([...(await connections(url)).keys()].sort()).toEqual([1, 2])
  command.kill('SIGKILL')
  await command.ended
  await until(() => serving(command).every(({ pid }) => !isAlive(pid)))
  await until(() => processesWith(`-D ${dataDir}`).length === 0)
})
