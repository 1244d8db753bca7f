// `npm run cluster`: what compose.yaml starts, as processes of this machine: three relays behind HAProxy, on one PostgreSQL and one
// Redis. It is reached where `npm start` would be reached, and keeps its data there.
//
//   npm run cluster               PORT and all other settings as for one relay, see docs/configuration.md
//   DATABASE_URL=… REDIS_URL=…    yours instead of those it starts
import { resolve } from 'node:path'
import { type Config, readConfig, StartError } from '../server/config.ts'
import { startPostgres } from '../server/postgres.ts'
import type { Child } from './cluster/child.ts'
import { Kept } from './cluster/kept.ts'
import { freePorts, isFree } from './cluster/ports.ts'
import { startHaproxy, startNode, startRedis } from './cluster/programs.ts'
import { line, type Place, welcome } from './cluster/words.ts'
import { HAPROXY, obtain, REDIS, type Wanted } from './debian.ts'

const RELAYS = 3
const HERE = '127.0.0.1'
// npm passes Ctrl-C on although the terminal already sent it: two within this time are one, milliseconds.
const SAME_SIGNAL_MS = 500

/** Stopped from the last to the first: the relays before the balancer, so that their goodbyes arrive; the databases after all. */
const STAGES = ['postgres', 'redis', 'balancer', 'relays'] as const
type Stage = (typeof STAGES)[number]

const running: { stage: Stage; stop(): Promise<unknown> }[] = []
let stoppingSince = 0
let down: Promise<void> | null = null

const stop = (): Promise<void> => {
  stoppingSince ||= Date.now()
  down ??= (async () => {
    for (const stage of [...STAGES].reverse())
      await Promise.all(running.filter((each) => each.stage === stage).map((each) => each.stop()))
  })()
  return down
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // Even now nothing stays behind: the guards see this process end.
    if (stoppingSince > 0 && Date.now() - stoppingSince > SAME_SIGNAL_MS) process.exit(1)
    if (stoppingSince === 0) process.stdout.write('\nStopping: relays, balancer, Redis, PostgreSQL.\n')
    void stop().then(() => process.exit(0))
  })
}

/** Waits for it, and stops it with everything else. @throws StartError when everything is to stop by now. */
async function keep<T extends { stop(): Promise<unknown> }>(stage: Stage, starting: Promise<T>): Promise<T> {
  const started = await starting
  running.push({ stage, stop: () => started.stop() })
  if (stoppingSince > 0) throw new StartError('stopped before it ran')
  return started
}

async function find(wanted: Wanted<string>): Promise<string> {
  const { it, missing } = await obtain(wanted, (each) => process.stdout.write(`${each}\n`))
  if (it === null) throw new StartError(missing)
  return it
}

/** Starts it, and again whenever it ends. */
async function keepRunning(name: string, begin: (onLine: (text: string) => void) => Promise<Child>): Promise<Kept> {
  const say = (text: string): void => line(name, text)
  const kept = new Kept(name, () => begin(say), say)
  await kept.start()
  return kept
}

async function startRedisHere(config: Config): Promise<{ url: string; place: Place | null }> {
  if (config.redis) return { url: config.redis.urls.join(','), place: null }
  const program = await find(REDIS)
  const [port = 0] = await freePorts(6379, 1)
  const kept = await keep(
    'redis',
    keepRunning('redis', () => startRedis({ program, port })),
  )
  const place = { what: 'Redis', where: `${HERE}:${port}, nothing on disk`, pid: kept.pid }
  return { url: `redis://${HERE}:${port}`, place }
}

async function startDatabase(config: Config): Promise<{ url: string; place: Place | null }> {
  if (config.databaseUrl) return { url: config.databaseUrl, place: null }
  const postgres = await keep('postgres', startPostgres({ dataDir: config.dataDir }))
  void postgres.died.then(async () => {
    line('postgres', 'PostgreSQL ended by itself: see postgres.log in the data directory')
    await stop()
    process.exit(1)
  })
  const where = `${HERE}:${new URL(postgres.url).port}, in ${resolve(config.dataDir)}`
  return { url: postgres.url, place: { what: 'PostgreSQL', where, pid: null } }
}

async function main(): Promise<void> {
  const config = readConfig()
  const { host, realm } = config
  const haproxy = await find(HAPROXY)
  if (config.port !== 0 && !(await isFree(host, config.port))) {
    throw new StartError(
      `port ${config.port} on ${host} is in use; stop what listens there, or choose another: PORT=${config.port + 10}`,
    )
  }
  const [port = config.port] = config.port === 0 ? await freePorts(0, 1) : []
  const database = await startDatabase(config)
  const redis = await startRedisHere(config)
  const ports = await freePorts(port + 1, RELAYS)
  const relays = ports.map((each) => `${HERE}:${each}`)
  const common = {
    ...{ DATABASE_URL: database.url, REDIS_URL: redis.url, SEALPOST_REALM: realm },
    // HAProxy needs two checks to notice that a relay is on its way down.
    SEALPOST_DRAIN_PAUSE_SECONDS: process.env.SEALPOST_DRAIN_PAUSE_SECONDS || '2',
  }
  const nodes = await Promise.all(
    ports.map((each, i) => {
      const env = { ...common, HOST: HERE, PORT: `${each}`, SEALPOST_LOG_FORMAT: 'pretty' }
      return keep(
        'relays',
        keepRunning(`relay-${i + 1}`, (onLine) => startNode({ env, onLine })),
      )
    }),
  )
  const balancer = await keep(
    'balancer',
    keepRunning('haproxy', (onLine) => startHaproxy({ program: haproxy, host, port, relays, onLine })),
  )
  const places: Place[] = [
    { what: 'HAProxy', where: `${host}:${port}`, pid: balancer.pid },
    ...nodes.map(({ name, pid }, i) => ({ what: name, where: relays[i]!, pid })),
    ...(redis.place ? [redis.place] : []),
    ...(database.place ? [database.place] : []),
  ]
  const url = `http://${host === '0.0.0.0' || host === HERE ? 'localhost' : host}:${port}`
  process.stdout.write(welcome({ url, realm, places }))
}

await main().catch(async (error: unknown) => {
  const isOrdered = stoppingSince > 0
  await stop()
  if (isOrdered) process.exit(0)
  process.stderr.write(`cluster: ${(error as Error).message}\n`)
  process.exit(1)
})
