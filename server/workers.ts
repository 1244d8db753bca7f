// WORKERS=n: several relays as processes of one machine, on one port. This process starts them, puts another in the place of one that
// dies, tells them to go, and puts their metrics together. It serves nothing itself.
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import { type Config, StartError } from './config.ts'
import { type Exposition, expositionOf, type Observe, type Snapshot } from './observe.ts'
import { systemTime, type Time } from './time.ts'

/** What a worker is told. */
export type ToWorker =
  | { kind: 'start'; number: number; port: number; databaseUrl: string }
  | { kind: 'count'; id: number }
  | { kind: 'exposition'; id: number; exposition: Exposition }

/** What it says. failed: complaint is for the operator, null = it is in the log. scrape: somebody asks it for everybody's metrics. */
export type FromWorker =
  | { kind: 'hello' }
  | { kind: 'ready'; url: string }
  | { kind: 'failed'; complaint: string | null }
  | { kind: 'counted'; id: number; snapshot: Snapshot }
  | { kind: 'scrape'; id: number }

type Deps = {
  databaseUrl: string
  observe: Observe
  time: Time
}

const ENTRY = fileURLToPath(new URL('./worker.ts', import.meta.url))
/** Before one takes the place of another, milliseconds; twice as long after each that did not live for a while. */
const AGAIN_MS = 250
const AGAIN_MAX_MS = 30_000
const SETTLED_MS = 60_000
/** A worker too busy to count for so long is left out of a scrape, milliseconds. */
const COUNT_MAX_MS = 1_000
/** Of the grace period; who is not gone by then is ended. */
const KILL_SHARE = 0.95

/** @returns once all of them serve; close() resolves when all are gone. @throws StartError when one cannot; none is left then. */
export async function startWorkers(
  config: Config,
  { time = systemTime(), ...rest }: Omit<Deps, 'time'> & { time?: Time },
): Promise<{ url: string; close(): Promise<void> }> {
  if (process.platform !== 'linux')
    throw new StartError('WORKERS needs Linux: other systems do not share the connections of a port among processes')
  const deps = { ...rest, time }
  const port = config.port || (await freePort(config.host))
  // Timers do not keep a process alive, and for a moment there may be no worker.
  const awake = setInterval(() => {}, 60_000)
  const scrape = async (): Promise<Exposition> => {
    const counted = await Promise.all(workers.map((each) => each.count()))
    return expositionOf(counted.filter((each) => each !== null))
  }
  const workers = Array.from({ length: config.workers }, (_, i) => new Worker(i + 1, port, deps, scrape))
  const close = async (): Promise<void> => {
    const ended = await Promise.all(workers.map((each) => each.stop(config.drain.graceMs * KILL_SHARE)))
    clearInterval(awake)
    if (!ended.every(Boolean)) throw new Error('a worker did not end as it should')
  }
  try {
    // One by itself first: it brings the schema up to date, and what is wrong is said once.
    const url = await workers[0]!.start()
    await Promise.all(workers.slice(1).map((each) => each.start()))
    return { url, close }
  } catch (error) {
    await close().catch(() => {})
    throw error
  }
}

/** One place among the workers, and the process that has it. */
class Worker {
  private readonly number: number
  private readonly port: number
  private readonly deps: Deps
  private readonly scrape: () => Promise<Exposition>
  private child: ChildProcess | null = null
  /** Resolves with whether it ended in order. */
  private ended: Promise<boolean> = Promise.resolve(true)
  private readyAtMs: number | null = null
  private wasEverReady = false
  private failures = 0
  private stopping = false
  private cancelAgain = (): void => {}
  private counting = new Map<number, (snapshot: Snapshot | null) => void>()
  private countId = 0

  constructor(number: number, port: number, deps: Deps, scrape: () => Promise<Exposition>) {
    this.number = number
    this.port = port
    this.deps = deps
    this.scrape = scrape
  }

  /** @returns its URL, once it serves. @throws StartError when it ends before. */
  start(): Promise<string> {
    // What this process was started with, and its environment, are the worker's, too.
    const child = fork(ENTRY, { serialization: 'advanced', stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.child = child
    this.readyAtMs = null
    let complaint: string | null = null
    return new Promise((resolve, reject) => {
      child.on('message', (said: FromWorker) => {
        if (said.kind === 'hello') this.tell(this.order())
        else if (said.kind === 'failed') complaint = said.complaint
        else if (said.kind === 'counted') this.counting.get(said.id)?.(said.snapshot)
        else if (said.kind === 'scrape') void this.answer(said.id)
        else {
          this.readyAtMs = this.deps.time.now()
          this.wasEverReady = true
          this.deps.observe.log.info({ worker: this.number, pid: child.pid }, 'a worker serves')
          resolve(said.url)
        }
      })
      // A word to one that is just ending.
      child.on('error', () => {})
      this.ended = new Promise((resolveEnded) =>
        child.once('exit', (code, signal) => {
          const how = signal ?? `code ${code}`
          reject(new StartError(complaint ?? `worker ${this.number} ended with ${how} before it served`))
          this.over(how, child.pid)
          resolveEnded(code === 0 || (signal === 'SIGTERM' && this.readyAtMs === null))
        }),
      )
    })
  }

  /** Tells it to drain. @param killAfterMs how long it has. @returns whether it ended in order. */
  async stop(killAfterMs: number): Promise<boolean> {
    this.stopping = true
    this.cancelAgain()
    const { child } = this
    if (!child) return true
    child.kill('SIGTERM')
    const cancel = this.deps.time.after(killAfterMs, () => child.kill('SIGKILL'))
    return this.ended.finally(cancel)
  }

  /** Its metrics; null when it has none, or does not answer in time. */
  count(): Promise<Snapshot | null> {
    if (this.readyAtMs === null) return Promise.resolve(null)
    const id = ++this.countId
    return new Promise<Snapshot | null>((resolve) => {
      const cancel = this.deps.time.after(COUNT_MAX_MS, () => resolve(null))
      this.counting.set(id, (snapshot) => {
        cancel()
        resolve(snapshot)
      })
      this.tell({ kind: 'count', id })
    }).finally(() => this.counting.delete(id))
  }

  private order(): ToWorker {
    return { kind: 'start', number: this.number, port: this.port, databaseUrl: this.deps.databaseUrl }
  }

  private async answer(id: number): Promise<void> {
    this.tell({ kind: 'exposition', id, exposition: await this.scrape() })
  }

  private tell(what: ToWorker): void {
    if (this.child?.connected) this.child.send(what, () => {})
  }

  private over(how: string, pid: number | undefined): void {
    const { time, observe } = this.deps
    const livedMs = this.readyAtMs === null ? 0 : time.now() - this.readyAtMs
    this.child = null
    this.readyAtMs = null
    for (const resolve of this.counting.values()) resolve(null)
    if (this.stopping || !this.wasEverReady) return
    this.failures = livedMs >= SETTLED_MS ? 1 : this.failures + 1
    const againInMs = Math.min(AGAIN_MS * 2 ** (this.failures - 1), AGAIN_MAX_MS)
    observe.log.error({ worker: this.number, pid, how, againInMs }, 'a worker ended; another takes its place')
    this.cancelAgain = time.after(againInMs, () => void this.again())
  }

  private async again(): Promise<void> {
    const { log } = this.deps.observe
    await this.start().catch((error: Error) =>
      log.error({ worker: this.number, why: error.message }, 'a worker could not start'),
    )
  }
}

async function freePort(host: string): Promise<number> {
  const server = createServer().listen(0, host)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
