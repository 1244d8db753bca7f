// `npm start` as an operator meets it: one clear line when it cannot, nothing left behind when it ends, data kept.
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, inject, test } from 'vitest'
import { openDatabase } from '../../server/database.ts'
import { findPostgres } from '../../server/postgres.ts'
import { enrolmentJson } from '../support/enrolment.ts'
import { TestDevice } from '../support/keys.ts'
import { processesWith, runScript, until, type Watched } from '../support/processes.ts'

let root: string
let dataDir: string
const started: Watched[] = []

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'sealpost-start-'))
  dataDir = join(root, 'data')
})

afterEach(async () => {
  for (const relay of started.splice(0)) {
    relay.kill('SIGKILL')
    await relay.ended
  }
  await until(() => processesWith(`-D ${dataDir}`).length === 0)
  await rm(root, { recursive: true, force: true })
})

const start = (env: Record<string, string> = {}): Watched => {
  const relay = runScript('server/main.ts', [], { PORT: '0', SEALPOST_DATA_DIR: dataDir, ...env })
  started.push(relay)
  return relay
}

const up = async (relay: Watched): Promise<string> => {
  const [, url] = await relay.says(/HTTP +(http:\S+)[\s\S]*Ctrl-C/)
  return url!
}

const REALM = 'http://localhost:0'
const post = (url: string, body: unknown) =>
  fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) })

const register = async (url: string, device: TestDevice, oneTime = 1) =>
  (await post(`${url}/v1/accounts`, enrolmentJson(device, REALM, { oneTime, kyberOneTime: 0 }))).status

/** A client that waits at a WebSocket and never says a word, also not when it is told goodbye. */
async function mute(url: string): Promise<Socket> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  socket.on('error', () => {})
  socket.write(
    `GET /v1/provisioning/${'A'.repeat(22)} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
  )
  // The answer may come in pieces.
  let answer = ''
  while (!answer.includes('\r\n\r\n')) answer += (await once(socket, 'data'))[0]
  expect(answer).toMatch(/^HTTP\/1.1 101/)
  return socket
}

test('it says where it listens and what to try; Ctrl-C stops relay and database with exit code 0', async () => {
  const relay = start()
  const url = await up(relay)
  expect((await fetch(`${url}/readyz`)).status).toBe(200)
  expect(relay.stdout()).toMatch(/ws:\/\/127\.0\.0\.1:\d+\/v1\/ws/)
  expect(relay.stdout()).toContain('npm run demo')
  expect(relay.stdout()).toContain(dataDir)
  const client = await mute(url)
  const goodbye = once(client, 'data')
  relay.kill('SIGINT')
  // npm passes a terminal's Ctrl-C on a second time: still an orderly end.
  relay.kill('SIGINT')
  // A close frame with 1001.
  expect(((await goodbye)[0] as Buffer).subarray(0, 4)).toEqual(Buffer.from([0x88, 12, 0x03, 0xe9]))
  expect(await relay.ended).toBe(0)
  client.destroy()
  expect(processesWith(dataDir)).toEqual([])
  expect(relay.stderr()).not.toContain('"level":50')
})

test('SIGTERM while it is still starting ends it, too', async () => {
  const relay = start()
  await until(() =>
    readFile(join(dataDir, 'relay.pid')).then(
      () => true,
      () => false,
    ),
  )
  relay.kill('SIGTERM')
  expect(await relay.ended).toBe(0)
  expect(relay.stderr()).not.toContain('sealpost:')
  expect(processesWith(dataDir)).toEqual([])
})

test('killed with SIGKILL, it leaves no database process, and the next start finds its accounts', async () => {
  const device = new TestDevice()
  const first = start()
  expect(await register(await up(first), device)).toBe(201)
  first.kill('SIGKILL')
  expect(await first.ended).toBe('SIGKILL')
  const second = start()
  // One account per identity key: the first one is still there.
  expect(await register(await up(second), device)).toBe(409)
  second.kill('SIGTERM')
  expect(await second.ended).toBe(0)
  expect(processesWith(dataDir)).toEqual([])
})

test('a second relay on the same data directory is refused, the first goes on', async () => {
  const first = start()
  const url = await up(first)
  const second = start()
  expect(await second.ended).toBe(1)
  expect(second.stderr()).toBe(`sealpost: data directory ${dataDir} is in use by the relay with pid ${first.pid}\n`)
  expect((await fetch(`${url}/readyz`)).status).toBe(200)
})

test('a second relay on the same port is refused', async () => {
  const first = start()
  const { port } = new URL(await up(first))
  const second = start({ PORT: port, SEALPOST_DATA_DIR: join(root, 'other') })
  expect(await second.ended).toBe(1)
  expect(second.stderr()).toMatch(
    new RegExp(`^sealpost: port ${port} on 127.0.0.1 is in use; .*PORT=${Number(port) + 1}\n$`),
  )
  expect(processesWith(join(root, 'other'))).toEqual([])
})

test('keys:void refuses while the relay runs; stopped, it voids the stock and the relay starts again', async () => {
  const first = start()
  expect(await register(await up(first), new TestDevice(), 7)).toBe(201)
  const command = () => runScript('server/operator.ts', ['void-keys'], { SEALPOST_DATA_DIR: dataDir })
  const early = command()
  expect(await early.ended).toBe(1)
  expect(early.stderr()).toMatch(/^sealpost: the relay in .* is running: stop it first/)
  first.kill('SIGINT')
  await first.ended
  const late = command()
  expect(await late.ended).toBe(0)
  expect(late.stdout()).toMatch(/^7 one-time prekeys are void/)
  expect(processesWith(dataDir)).toEqual([])
})

test('with registration by invitation, `npm run invite` makes a token beside the running relay', async () => {
  const url = await up(start({ SEALPOST_REGISTRATION: 'invite' }))
  const invite = runScript('server/operator.ts', ['invite'], { SEALPOST_DATA_DIR: dataDir })
  expect(await invite.ended).toBe(0)
  const invitation = invite.stdout().trim()
  const attempt = (token?: string) =>
    post(`${url}/v1/accounts`, enrolmentJson(new TestDevice(), REALM, token ? { invitation: token } : {}))
  expect((await attempt()).status).toBe(403)
  expect((await attempt(invitation)).status).toBe(201)
  expect((await attempt(invitation)).status).toBe(403)
})

test('DATABASE_URL is used instead, and migrated', async () => {
  const name = `sealpost_start_${process.pid}`
  const server = openDatabase(inject('serverUrl'))
  await server.sql.unsafe(`create database ${name}`)
  const url = new URL(inject('serverUrl'))
  url.pathname = `/${name}`
  const relay = start({ DATABASE_URL: url.href })
  expect(await register(await up(relay), new TestDevice())).toBe(201)
  expect(relay.stdout()).toMatch(new RegExp(`PostgreSQL at .*/${name}`))
  if (url.password) expect(relay.stdout() + relay.stderr()).not.toContain(url.password)
  relay.kill('SIGTERM')
  expect(await relay.ended).toBe(0)
  await server.sql.unsafe(`drop database ${name} with (force)`)
  await server.close()
  await expect(readFile(dataDir)).rejects.toThrow(/ENOENT/)
})

test('a wrong password is one clear line that does not repeat it', async () => {
  await up(start())
  const url = new URL((await findPostgres(dataDir))!)
  url.password = 'hunter2'
  const relay = start({ DATABASE_URL: url.href })
  expect(await relay.ended).toBe(1)
  expect(relay.stderr()).toMatch(/^sealpost: PostgreSQL at \S+ refused the password of DATABASE_URL\n$/)
})

test('what hangs does not outlive the grace period: exit code 1, and no database process is left', async () => {
  const relay = start({ SEALPOST_GRACE_SECONDS: '1' })
  await up(relay)
  const [postmaster] = processesWith(`-D ${join(dataDir, 'postgres')} `)
  process.kill(postmaster!, 'SIGSTOP')
  relay.kill('SIGTERM')
  expect(await relay.ended).toBe(1)
  expect(relay.stderr()).toContain('not everything ended within the grace period')
  process.kill(postmaster!, 'SIGCONT')
  await until(() => processesWith(dataDir).length === 0)
})

test('a second Ctrl-C ends it at once, and still leaves no database process', async () => {
  const relay = start()
  await up(relay)
  const [postmaster] = processesWith(`-D ${join(dataDir, 'postgres')} `)
  // A server that does not react keeps the first one from finishing.
  process.kill(postmaster!, 'SIGSTOP')
  relay.kill('SIGINT')
  await until(() => relay.stderr().includes('stopping'))
  await new Promise((resolve) => setTimeout(resolve, 600))
  relay.kill('SIGINT')
  expect(await relay.ended).toBe(1)
  process.kill(postmaster!, 'SIGCONT')
  await until(() => processesWith(dataDir).length === 0)
})

const closedPort = async (): Promise<number> => {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

test.each<[string, () => Promise<Record<string, string>>, RegExp]>([
  [
    'a wrong port',
    async () => ({ PORT: 'http' }),
    /^sealpost: PORT=http is not a whole number; for example PORT=8080\n$/,
  ],
  [
    'an unknown variable',
    async () => ({ SEALPOST_DATADIR: 'x' }),
    /^sealpost: SEALPOST_DATADIR is not .* SEALPOST_DATA_DIR\?\n$/,
  ],
  [
    'an address that is not ours',
    async () => ({ HOST: '192.0.2.1' }),
    /^sealpost: cannot listen on HOST=192\.0\.2\.1: .*\n$/,
  ],
  [
    'an unreadable data directory',
    async () => {
      await writeFile(dataDir, 'a file')
      return {}
    },
    /^sealpost: data directory .*data cannot be used: EEXIST.*\n$/,
  ],
  [
    'a database that is not there',
    async () => ({ DATABASE_URL: `postgres://me:hunter2@127.0.0.1:${await closedPort()}/db` }),
    /^sealpost: PostgreSQL at 127\.0\.0\.1:\d+\/db cannot be reached: .*\n$/,
  ],
  [
    'a Redis that is not there',
    async () => ({ REDIS_URL: `redis://:hunter2@127.0.0.1:${await closedPort()}` }),
    /^sealpost: Redis at 127\.0\.0\.1:\d+ cannot be reached: connect ECONNREFUSED .*\n$/,
  ],
  [
    'a database of another name',
    async () => {
      const url = new URL(inject('serverUrl'))
      url.pathname = '/nobody_made_this'
      return { DATABASE_URL: url.href }
    },
    /^sealpost: PostgreSQL at .*\/nobody_made_this has no database of that name: create it first\n$/,
  ],
])('%s: one clear line, exit code 1, no password in it', async (_what, make, line) => {
  const relay = start(await make())
  expect(await relay.ended).toBe(1)
  expect(relay.stderr()).toMatch(line)
  expect(relay.stdout() + relay.stderr()).not.toContain('hunter2')
  expect(processesWith(dataDir)).toEqual([])
})
