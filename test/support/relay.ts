// A whole relay in this process, on a database and a port of its own.
import { type Config, readConfig } from '../../server/config.ts'
import { liftedRates } from '../../server/limits.ts'
import { openObserve } from '../../server/observe.ts'
import { type Clock, type Leaving, type Nodes, startRelay } from '../../server/start.ts'
import { systemTime, type Time } from '../../server/time.ts'
import { type TestDatabase, testDatabase } from './database.ts'
import { nodesWanted, spreadOver } from './spread.ts'

export type TestRelay = {
  /** http://127.0.0.1:port */
  url: string
  /** ws://127.0.0.1:port/v1/ws */
  socketUrl: string
  /** Part of every proof. */
  realm: string
  config: Config
  db: TestDatabase
  /** Everything logged, at debug: one JSON text a line. */
  logged: string[]
  /** Stops the relay; drops the database unless it was given. */
  close(): Promise<void>
}

type Options = {
  config?: Partial<Config>
  db?: TestDatabase
  clock?: Clock
  time?: Time
  nodes?: Nodes
  leaving?: Leaving
  lockMs?: number
}

/**
 * Several nodes behind one address, where SEALPOST_TEST_NODES says so: see spread.ts.
 * @param options.config changes to what an empty environment gives without limits. @param options.db for a second node or a restart.
 * @param options.time clock and timers of what is gathered. @param options.nodes what several nodes have in common.
 * @param options.leaving clock, timers and chance of close(); the machine's unless given.
 * @param options.lockMs how long it waits for a lock; the relay's own 2 s unless said. For stories that hold one meanwhile.
 */
export async function testRelay(options: Options = {}): Promise<TestRelay> {
  const db = options.db ?? (await testDatabase())
  const logged: string[] = []
  const start = (nodes: Nodes | undefined, config: Partial<Config> = {}): Promise<TestRelay> =>
    startOne({ ...options, ...(nodes && { nodes }), config: { ...options.config, ...config } }, db, logged)
  try {
    const relay =
      nodesWanted() > 1 && !options.nodes
        ? await spreadOver({ databaseUrl: db.url, time: options.time ?? systemTime(options.clock) }, (nodes, index) =>
            start(nodes, index > 0 ? { port: 0 } : {}),
          )
        : await start(options.nodes)
    return {
      ...relay,
      close: async () => {
        await relay.close()
        if (!options.db) await db.close()
      },
    }
  } catch (error) {
    if (!options.db) await db.close()
    throw error
  }
}

async function startOne(options: Options, db: TestDatabase, logged: string[]): Promise<TestRelay> {
  // Most tests are about something else than limits, and faster than people.
  const config: Config = {
    ...readConfig({ PORT: '0', SEALPOST_REALM: 'https://relay.test' }),
    limits: liftedRates(),
    // And in most stories people know each other; strangers are asked in those about strangers. [V-6]
    strangers: 'open',
    ...options.config,
  }
  const observe = openObserve({ level: 'debug', format: 'json', write: (line) => logged.push(line) })
  const { clock, time, nodes, leaving, lockMs } = options
  const more = { ...(clock && { clock }), ...(time && { time }), ...(nodes && { nodes }), ...(leaving && { leaving }) }
  const databaseUrl = lockMs === undefined ? db.url : `${db.url}?lock_timeout=${lockMs}`
  const relay = await startRelay(config, { databaseUrl, observe, ...more })
  return {
    url: relay.url,
    socketUrl: `${relay.url.replace(/^http/, 'ws')}/v1/ws`,
    realm: config.realm,
    config,
    db,
    logged,
    close: relay.close,
  }
}
