// A relay in a process of its own, on a test's database: to be killed with -9 and started again.
import type { TestDatabase } from './database.ts'
import { runScript, type Watched } from './processes.ts'

export type KillableRelay = {
  /** http://127.0.0.1:port */
  url: string
  realm: string
  process: Watched
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>
}

const REALM = 'https://relay.test'

/** Starts `server/main.ts`; another one on the same database is a restart: tokens stay valid, the port changes. */
export async function startKillable(db: TestDatabase): Promise<KillableRelay> {
  const watched = runScript('server/main.ts', [], {
    DATABASE_URL: db.url,
    PORT: '0',
    SEALPOST_REALM: REALM,
    SEALPOST_LIMIT_MESSAGES: 'off',
    SEALPOST_STRANGERS: 'open',
    SEALPOST_LIMIT_DELIVERIES: 'off',
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
