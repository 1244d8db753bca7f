// A real PostgreSQL server in the data directory, owned by this process: create, start, stop, survive a killed relay.
// It listens on 127.0.0.1 with a password: a Unix socket's path may be no longer than 107 bytes, a data directory's may.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, open, readdir, readFile, realpath, rename, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { totalmem } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { CLEAN_ENV, findLauncher, type Launcher } from './binaries.ts'
import { StartError } from './config.ts'
import { claimDirectory, commandOf, isAlive } from './ownership.ts'

const run = promisify(execFile)

const MAJOR = '18'
const USER = 'sealpost'
const MIB = 1024 * 1024

export type PostgresOptions = {
  /** Holds postgres/ (the cluster), postgres.password, postgres.log and relay.pid. Created when missing. */
  dataDir: string
  /** Server settings that differ from the relay's defaults. */
  settings?: Record<string, string>
  /** Removes the data directory when the server stops, also when this process is killed. */
  ephemeral?: boolean
}

export type Postgres = {
  /** postgres://sealpost:password@127.0.0.1:port/postgres. Holds the password: never logged (I16). */
  url: string
  /** Settles when the server ended without stop(): the relay cannot go on. */
  died: Promise<void>
  /** Fast shutdown; resolves when the process is gone and the directory is free. Safe to call twice. */
  stop(): Promise<void>
}

/**
 * Creates the cluster when the directory has none, and starts it. A server left over from a killed relay is stopped first.
 * @throws StartError with one line for the operator; nothing keeps running then.
 */
export async function startPostgres(options: PostgresOptions): Promise<Postgres> {
  const release = await claimDirectory(options.dataDir)
  // One name for one directory: a server left over is recognised by the path it was started with.
  const dataDir = await realpath(options.dataDir)
  const cluster = join(dataDir, 'postgres')
  try {
    const launch = await prepare(dataDir, cluster)
    const password = await readFile(join(dataDir, 'postgres.password'), 'utf8')
    const { child, exited, guard, port } = await boot(launch, dataDir, cluster, options)
    let stopped: Promise<void> | null = null
    const stop = async () => {
      child.kill('SIGINT')
      await exited
      guard.kill('SIGKILL')
      await release()
      if (options.ephemeral) await rm(dataDir, { recursive: true, force: true })
    }
    return {
      url: urlOf(password, port),
      died: exited.then(() => (stopped ? new Promise<void>(() => {}) : undefined)),
      stop: () => {
        stopped ??= stop()
        return stopped
      },
    }
  } catch (error) {
    await release()
    if (options.ephemeral) await rm(dataDir, { recursive: true, force: true })
    throw asStartError(error, dataDir)
  }
}

/** The server a live relay keeps in this directory, for commands beside it; null when none runs. */
export async function findPostgres(dataDir: string): Promise<string | null> {
  const directory = await realpath(dataDir).catch(() => null)
  if (directory === null) return null
  const cluster = join(directory, 'postgres')
  const [pid, , , port, , , , state] = await readLock(cluster)
  if (state?.trim() !== 'ready' || !(await serves(Number(pid), cluster))) return null
  const password = await readFile(join(directory, 'postgres.password'), 'utf8').catch(() => null)
  return password === null ? null : urlOf(password, Number(port))
}

const urlOf = (password: string, port: number): string =>
  `postgres://${USER}:${password.trim()}@127.0.0.1:${port}/postgres`

function asStartError(error: unknown, dataDir: string): StartError {
  if (error instanceof StartError) return error
  const { message, path } = error as NodeJS.ErrnoException
  return new StartError(`data directory ${dataDir}: ${path ? message : `PostgreSQL could not be started: ${message}`}`)
}

async function prepare(dataDir: string, cluster: string): Promise<Launcher> {
  const found = await readdir(cluster).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error
  })
  if (found.length === 0) return create(dataDir, cluster)
  const version = await readFile(join(cluster, 'PG_VERSION'), 'utf8').catch(() => null)
  if (version === null)
    throw new StartError(`${cluster} is not a PostgreSQL data directory: it has files, but no PG_VERSION`)
  if (version.trim() !== MAJOR) {
    throw new StartError(
      `${cluster} belongs to PostgreSQL ${version.trim()}, this relay brings ${MAJOR}: dump and restore it, or run that server and set DATABASE_URL`,
    )
  }
  const launch = await findLauncher(cluster)
  await stopLeftover(cluster)
  return launch
}

// Made under another name and renamed, so that an interrupted first start leaves nothing half made.
async function create(dataDir: string, cluster: string): Promise<Launcher> {
  const fresh = `${cluster}.new`
  await rm(fresh, { recursive: true, force: true })
  await mkdir(fresh, { mode: 0o700 })
  const launch = await findLauncher(fresh)
  const passwordFile = join(dataDir, 'postgres.password')
  // A file that another user left would keep its owner.
  await rm(passwordFile, { force: true })
  await writeFile(passwordFile, randomBytes(24).toString('base64url'), { mode: 0o600 })
  const { command, args } = launch('initdb', [
    ...['-D', fresh, '-U', USER, `--pwfile=${passwordFile}`, '--auth=scram-sha-256'],
    ...['--encoding=UTF8', '--locale=C', '--no-instructions'],
  ])
  await run(command, args, { env: CLEAN_ENV }).catch((error: Error & { stderr?: string }) => {
    const lines = (error.stderr || error.message).trim().split('\n')
    throw new StartError(
      `cannot create a database in ${cluster}: ${lines.find((line) => /error|fatal/i.test(line)) ?? lines.at(-1)}`,
    )
  })
  await rm(cluster, { recursive: true, force: true })
  await rename(fresh, cluster)
  return launch
}

const readLock = async (cluster: string): Promise<string[]> =>
  (await readFile(join(cluster, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n')

const serves = async (pid: number, cluster: string): Promise<boolean> =>
  isAlive(pid) && ((await commandOf(pid)) ?? '').includes(`-D ${cluster} `)

// Only called once this process owns the directory: whoever started that server is dead.
async function stopLeftover(cluster: string): Promise<void> {
  const pid = Number.parseInt((await readLock(cluster))[0]!, 10)
  if (!pid || !isAlive(pid)) return
  if (!(await serves(pid, cluster))) {
    // The number now belongs to another program (a new container counts from 1 again); PostgreSQL itself would give up.
    await rm(join(cluster, 'postmaster.pid'), { force: true })
    return
  }
  try {
    process.kill(pid, 'SIGINT')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH')
      throw new StartError(`${cluster} is served by process ${pid}, which belongs to another user`)
  }
  while (await serves(pid, cluster)) await delay(20)
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

async function boot(
  launch: Launcher,
  dataDir: string,
  cluster: string,
  options: PostgresOptions,
): Promise<{ child: ChildProcess; exited: Promise<unknown>; guard: ChildProcess; port: number }> {
  const logFile = join(dataDir, 'postgres.log')
  await rename(logFile, `${logFile}.old`).catch(() => {})
  let last = ''
  for (let attempt = 0; attempt < 20; attempt++) {
    const port = await freePort()
    const settings: Record<string, string> = {
      listen_addresses: '127.0.0.1',
      port: String(port),
      unix_socket_directories: '',
      shared_buffers: `${Math.max(32, Math.min(4096, Math.floor(totalmem() / 4 / MIB)))}MB`,
      max_wal_size: '4GB',
      timezone: 'UTC',
      log_timezone: 'UTC',
      // Details and statements of an error can hold what clients sent (I16).
      log_error_verbosity: 'terse',
      log_min_error_statement: 'panic',
      ...options.settings,
    }
    const { command, args } = launch('postgres', [
      '-D',
      cluster,
      ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
    ])
    const log = await open(logFile, 'w', 0o600)
    // In a session of its own: Ctrl-C reaches every process of the terminal's group, and this one has to outlive the drain.
    const child = spawn(command, args, { detached: true, env: CLEAN_ENV, stdio: ['ignore', 'ignore', log.fd] })
    const exited = once(child, 'exit')
    exited.catch(() => {})
    if (child.pid === undefined) await exited
    const guard = watchOver(child.pid!, options.ephemeral ? dataDir : null)
    const ready = await becomesReady(child, cluster)
    await log.close()
    if (ready) return { child, exited, guard, port }
    guard.kill('SIGKILL')
    last = reason(await readFile(logFile, 'utf8'))
    // Lost the port to somebody, or the backends of a killed server are still on their way out.
    if (!/address already in use|could not create any TCP|pre-existing shared memory/i.test(last)) break
    await delay(250)
  }
  throw new StartError(`PostgreSQL did not start in ${cluster}: ${last} (see ${logFile})`)
}

function reason(log: string): string {
  const lines = log.trim().split('\n')
  const line =
    lines.findLast((each) => /(FATAL|PANIC|^postgres|error while loading)\b/.test(each)) ?? lines.at(-1) ?? ''
  return line.replace(/^.*?(FATAL|PANIC|postgres):\s*/, '') || 'it ended without a word'
}

async function becomesReady(child: ChildProcess, cluster: string): Promise<boolean> {
  for (;;) {
    if (child.exitCode !== null || child.signalCode !== null) return false
    const lock = await readLock(cluster)
    if (Number(lock[0]) === child.pid && lock[7]?.trim() === 'ready') return true
    await delay(10)
  }
}

// Waits at a pipe this process holds. However this process ends, the pipe closes, and the server is not left behind.
function watchOver(pid: number, doomed: string | null): ChildProcess {
  const script = 'read -r _; kill -INT "$0"; [ -z "$1" ] && exit; while kill -0 "$0"; do sleep 0.1; done; rm -rf "$1"'
  const guard = spawn('/bin/sh', ['-c', script, String(pid), doomed ?? ''], {
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
    env: CLEAN_ENV,
  })
  guard.on('error', () => {})
  guard.unref()
  return guard
}
