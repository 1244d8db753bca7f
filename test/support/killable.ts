// A relay in a process of its own, on a test's database: to be killed with -9 and started again.
import type { TestDatabase } from './database.ts'
import { runScript, type Watched } from './processes.ts'
import { nodesWanted, sharedRedis, spreadOut } from './spread.ts'

export type KillableRelay = {
  /** http://127.0.0.1:port */
  url: string
  realm: string
  process: Watched
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>
}

const REALM = 'https://relay.test'

/**
 * Starts `server/main.ts`; another one on the same database is a restart: tokens stay valid, the port changes. Where
 * SEALPOST_TEST_NODES says so it is several, which are killed together: see spread.ts.
 */
export async function startKillable(db: TestDatabase): Promise<KillableRelay> {
  const count = nodesWanted()
  if (count < 2) return startOne(db)
  const { redis, release } = await sharedRedis(db.url)
  const all = await Promise.all(Array.from({ length: count }, () => startOne(db, { REDIS_URL: redis.urls[0]! })))
  const forget = spreadOut(all.map((each) => each.url))
  return {
    ...all[0]!,
    process: {
      ...all[0]!.process,
      ended: Promise.all(all.map((each) => each.process.ended)).then((codes) => codes[0]!),
      kill: (signal) => {
        for (const each of all) each.process.kill(signal)
      },
    },
    kill: async () => {
      forget()
      await Promise.all(all.map((each) => each.kill()))
      await release()
    },
  }
}

async function startOne(db: TestDatabase, more: Record<string, string> = {}): Promise<KillableRelay> {
  const watched = runScript('server/main.ts', [], {
    DATABASE_URL: db.url,
    PORT: '0',
    SEALPOST_REALM: REALM,
    SEALPOST_LIMIT_MESSAGES: 'off',
    SEALPOST_STRANGERS: 'open',
    SEALPOST_LIMIT_DELIVERIES: 'off',
    ...more,
  })
  const [, url] = await watched.says(/HTTP +(http:\S+)[\s\S]*Ctrl-C/)
  return {
    url: url!,
    realm: REALM,
    process: watched,
    kill: async () => {
      watched.kill('SIGKILL')
      await watched.ended
    },
  }
}
