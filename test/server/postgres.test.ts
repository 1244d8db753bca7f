// The embedded PostgreSQL: kept data, one owner, nothing left behind, one clear line when it cannot be.
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openDatabase, type Sql } from '../../server/database.ts'
import { findPostgres, startPostgres } from '../../server/postgres.ts'
import { processesWith, runScript, until } from '../support/processes.ts'

let root: string
let dataDir: string

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'sealpost-own-'))
  dataDir = join(root, 'data')
})

afterEach(async () => {
  // The server, and the guard that carries its directory, if a test left them.
  for (const pid of processesWith(dataDir)) process.kill(pid, 'SIGKILL')
  await rm(root, { recursive: true, force: true })
})

const start = (directory = dataDir) => startPostgres({ dataDir: directory, settings: { shared_buffers: '32MB' } })

async function asking<T>(url: string, ask: (sql: Sql) => Promise<T>): Promise<T> {
  const database = openDatabase(url)
  try {
    return await ask(database.sql)
  } finally {
    await database.close()
  }
}

test('the next start finds the data, and stop leaves neither process nor lock', async () => {
  const first = await start()
  await asking(first.url, (sql) => sql`create table kept as select 42 as answer`)
  expect(await findPostgres(dataDir)).toBe(first.url)
  await first.stop()
  await first.stop()
  expect(processesWith(dataDir)).toEqual([])
  expect(await findPostgres(dataDir)).toBeNull()
  const second = await start()
  expect(await asking(second.url, (sql) => sql`select answer from kept`)).toEqual([{ answer: 42 }])
  expect(await asking(second.url, (sql) => sql`show max_wal_size`)).toEqual([{ max_wal_size: '4GB' }])
  await second.stop()
})

test('only the password opens it, and only the owner can read the password', async () => {
  const { url, stop } = await start()
  const wrong = new URL(url)
  wrong.password = 'guess'
  await expect(asking(wrong.href, (sql) => sql`select 1`)).rejects.toThrow(/password authentication failed/)
  expect((await stat(join(dataDir, 'postgres.password'))).mode & 0o077).toBe(0)
  expect((await stat(dataDir)).mode & 0o077).toBe(0)
  await stop()
})

test('errors in its log show neither statement nor values (I16)', async () => {
  const { url, stop } = await start()
  await asking(url, async (sql) => {
    await sql`create table once (key text primary key)`
    await sql`insert into once values (${'s3cret'})`
    await expect(sql`insert into once values (${'s3cret'})`).rejects.toThrow(/once_pkey/)
  })
  await stop()
  const log = await readFile(join(dataDir, 'postgres.log'), 'utf8')
  expect(log).toContain('once_pkey')
  expect(log).not.toContain('s3cret')
})

test('a directory in use by a living relay is refused with its pid', async () => {
  const other = runScript('test/support/own-postgres.ts', [dataDir])
  const [url] = await other.says(/postgres:.*/)
  await expect(start()).rejects.toThrow(`data directory ${dataDir} is in use by the relay with pid ${other.pid}`)
  expect(await asking(url, (sql) => sql`select 1 as one`)).toEqual([{ one: 1 }])
  other.kill('SIGKILL')
  await other.ended
})

test('a killed relay leaves no server behind', async () => {
  const other = runScript('test/support/own-postgres.ts', [dataDir])
  await other.says(/postgres:.*/)
  other.kill('SIGKILL')
  await other.ended
  await until(() => processesWith(join(dataDir, 'postgres')).length === 0)
})

test('a server whose relay and guard were killed is stopped cleanly and started again', async () => {
  const other = runScript('test/support/own-postgres.ts', [dataDir])
  const [url] = await other.says(/postgres:.*/)
  await asking(url, (sql) => sql`create table kept as select 42 as answer`)
  const postmaster = Number.parseInt(await readFile(join(dataDir, 'postgres/postmaster.pid'), 'utf8'), 10)
  // The guard's arguments hold the postmaster's pid.
  for (const pid of processesWith(`read -r _; kill -INT`)) {
    if (processesWith(` ${postmaster} `).includes(pid)) process.kill(pid, 'SIGKILL')
  }
  other.kill('SIGKILL')
  await other.ended
  expect(processesWith(`-D ${join(dataDir, 'postgres')} `)).toContain(postmaster)
  const again = await start()
  expect(processesWith(`-D ${join(dataDir, 'postgres')} `)).not.toContain(postmaster)
  expect(await asking(again.url, (sql) => sql`select answer from kept`)).toEqual([{ answer: 42 }])
  await again.stop()
  expect(await readFile(join(dataDir, 'postgres.log.old'), 'utf8')).toContain('database system is shut down')
})

test('a lock left by a process whose number now belongs to another program is no obstacle', async () => {
  const first = await start()
  const lock = join(dataDir, 'postgres/postmaster.pid')
  const text = await readFile(lock, 'utf8')
  await first.stop()
  await writeFile(lock, text.replace(/^\d+/, String(process.pid)))
  await writeFile(join(dataDir, 'relay.pid'), `${process.pid} 1\n`)
  const second = await start()
  await second.stop()
})

test('an interrupted first start is begun anew', async () => {
  await mkdir(join(dataDir, 'postgres.new'), { recursive: true })
  await writeFile(join(dataDir, 'postgres.new/PG_VERSION'), '18\n')
  const { stop } = await start()
  await stop()
})

test('its end is noticed', async () => {
  const { died, stop } = await start()
  const [postmaster] = processesWith(`-D ${join(dataDir, 'postgres')} `)
  process.kill(postmaster!, 'SIGQUIT')
  await died
  await stop()
})

test('a directory of another user below a closed one is served as that user, when root starts the relay', async () => {
  await chmod(root, 0o700)
  await (await start()).stop()
  const cluster = join(dataDir, 'postgres')
  if (process.getuid!() === 0) {
    for (const each of [cluster, ...(await filesBelow(cluster))]) await chown(each, 5432, 5432)
  }
  const { url, stop } = await start()
  await asking(url, (sql) => sql`create table made_by_owner ()`)
  await stop()
})

async function filesBelow(directory: string): Promise<string[]> {
  return (await readdir(directory, { recursive: true })).map((each) => join(directory, each))
}

test.each([
  ['a file', (path: string) => writeFile(path, 'x'), /^data directory .*data cannot be used: EEXIST/],
  [
    'a directory of something else',
    async (path: string) => {
      await mkdir(join(path, 'postgres'), { recursive: true })
      await writeFile(join(path, 'postgres/holiday.jpg'), 'x')
    },
    /postgres is not a PostgreSQL data directory: it has files, but no PG_VERSION$/,
  ],
  [
    'another version',
    async (path: string) => {
      await mkdir(join(path, 'postgres'), { recursive: true })
      await writeFile(join(path, 'postgres/PG_VERSION'), '15\n')
    },
    /postgres belongs to PostgreSQL 15, this relay brings 18: dump and restore it/,
  ],
  [
    'a damaged cluster',
    async (path: string) => {
      await (await start(path)).stop()
      await rm(join(path, 'postgres/global/pg_control'))
    },
    /^PostgreSQL did not start in .*: could not find the database system \(see .*postgres.log\)$/,
  ],
])('%s is refused in one line, and nothing keeps running', async (_what, make, line) => {
  await make(dataDir)
  const error = await start().then(
    () => null,
    (reason: Error) => reason,
  )
  expect(error?.name).toBe('StartError')
  expect(error?.message).toMatch(line)
  expect(error?.message).not.toContain('\n')
  expect(processesWith(dataDir)).toEqual([])
})
