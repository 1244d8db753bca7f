// `npm start` as an operator meets it: one clear line when it cannot, nothing left behind when it ends, data kept.
// More of how it ends, and the operator's commands: start-operator.test.ts.
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { expect, inject, test } from 'vitest'
import { openDatabase } from '../../server/database.ts'
import { findPostgres } from '../../server/postgres.ts'
import { TestDevice } from '../support/keys.ts'
import { ownPort } from '../support/ports.ts'
import { processesWith } from '../support/processes.ts'
import { register, starting, up } from '../support/starting.ts'

const own = starting()

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
  const relay = own.start()
  const url = await up(relay)
  expect((await fetch(`${url}/readyz`)).status).toBe(200)
  expect(relay.stdout()).toMatch(/ws:\/\/127\.0\.0\.1:\d+\/v1\/ws/)
  expect(relay.stdout()).toContain('npm run demo')
  expect(relay.stdout()).toContain(own.dataDir)
  const client = await mute(url)
  const goodbye = once(client, 'data')
  relay.kill('SIGINT')
  // npm passes a terminal's Ctrl-C on a second time: still an orderly end.
  relay.kill('SIGINT')
  // A close frame with 1001.
  expect(((await goodbye)[0] as Buffer).subarray(0, 4)).toEqual(Buffer.from([0x88, 12, 0x03, 0xe9]))
  expect(await relay.ended).toBe(0)
  client.destroy()
  expect(processesWith(own.dataDir)).toEqual([])
  expect(relay.stderr()).not.toContain('"level":50')
})

test('killed with SIGKILL, it leaves no database process, and the next start finds its accounts', async () => {
  const device = new TestDevice()
  const first = own.start()
  expect(await register(await up(first), device)).toBe(201)
  first.kill('SIGKILL')
  expect(await first.ended).toBe('SIGKILL')
  const second = own.start()
  // One account per identity key: the first one is still there.
  expect(await register(await up(second), device)).toBe(409)
  second.kill('SIGTERM')
  expect(await second.ended).toBe(0)
  expect(processesWith(own.dataDir)).toEqual([])
})

test('a second relay on the same data directory is refused, the first goes on', async () => {
  const first = own.start()
  const url = await up(first)
  const second = own.start()
  expect(await second.ended).toBe(1)
  expect(second.stderr()).toBe(`sealpost: data directory ${own.dataDir} is in use by the relay with pid ${first.pid}\n`)
  expect((await fetch(`${url}/readyz`)).status).toBe(200)
})

test('DATABASE_URL is used instead, and migrated', async () => {
  const name = `sealpost_start_${process.pid}`
  const server = openDatabase(inject('serverUrl'))
  await server.sql.unsafe(`create database ${name}`)
  const url = new URL(inject('serverUrl'))
  url.pathname = `/${name}`
  const relay = own.start({ DATABASE_URL: url.href })
  expect(await register(await up(relay), new TestDevice())).toBe(201)
  expect(relay.stdout()).toMatch(new RegExp(`PostgreSQL at .*/${name}`))
  if (url.password) expect(relay.stdout() + relay.stderr()).not.toContain(url.password)
  relay.kill('SIGTERM')
  expect(await relay.ended).toBe(0)
  await server.sql.unsafe(`drop database ${name} with (force)`)
  await server.close()
  await expect(readFile(own.dataDir)).rejects.toThrow(/ENOENT/)
})

test('a wrong password is one clear line that does not repeat it', async () => {
  await up(own.start())
  const url = new URL((await findPostgres(own.dataDir))!)
  url.password = 'hunter2'
  const relay = own.start({ DATABASE_URL: url.href })
  expect(await relay.ended).toBe(1)
  expect(relay.stderr()).toMatch(/^sealpost: PostgreSQL at \S+ refused the password of DATABASE_URL\n$/)
})

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
      await writeFile(own.dataDir, 'a file')
      return {}
    },
    /^sealpost: data directory .*data cannot be used: EEXIST.*\n$/,
  ],
  [
    'a database that is not there',
    async () => ({ DATABASE_URL: `postgres://me:hunter2@127.0.0.1:${await ownPort()}/db` }),
    /^sealpost: PostgreSQL at 127\.0\.0\.1:\d+\/db cannot be reached: .*\n$/,
  ],
  [
    'a Redis that is not there',
    async () => ({ REDIS_URL: `redis://:hunter2@127.0.0.1:${await ownPort()}` }),
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
  const relay = own.start(await make())
  expect(await relay.ended).toBe(1)
  expect(relay.stderr()).toMatch(line)
  expect(relay.stdout() + relay.stderr()).not.toContain('hunter2')
  expect(processesWith(own.dataDir)).toEqual([])
})
