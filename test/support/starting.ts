// Relays started as `npm start` does, each test's in a data directory of its own; nothing of them stays.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach } from 'vitest'
import { enrolmentJson } from './enrolment.ts'
import type { TestDevice } from './keys.ts'
import { processesWith, runScript, until, type Watched } from './processes.ts'

/** The origin that relays without a port of their own hold for theirs. */
const REALM = 'http://localhost:0'

export type Starting = {
  /** A directory of the test's own. */
  readonly root: string
  /** In it, where relays keep their data; not there yet. */
  readonly dataDir: string
  /** Ends with the test, killed if need be. */
  start(env?: Record<string, string>): Watched
}

/** For all tests of the file that calls it. */
export function starting(): Starting {
  const started: Watched[] = []
  const own = {
    root: '',
    dataDir: '',
    start(env: Record<string, string> = {}): Watched {
      const relay = runScript('server/main.ts', [], { PORT: '0', SEALPOST_DATA_DIR: own.dataDir, ...env })
      started.push(relay)
      return relay
    },
  }
  beforeEach(async () => {
    own.root = await mkdtemp(join(tmpdir(), 'sealpost-start-'))
    own.dataDir = join(own.root, 'data')
  })
  afterEach(async () => {
    for (const relay of started.splice(0)) {
      relay.kill('SIGKILL')
      await relay.ended
    }
    await until(() => processesWith(`-D ${own.dataDir}`).length === 0)
    await rm(own.root, { recursive: true, force: true })
  })
  return own
}

/** Where it listens, once it says so. */
export async function up(relay: Watched): Promise<string> {
  const [, url] = await relay.says(/HTTP +(http:\S+)[\s\S]*Ctrl-C/)
  return url!
}

/** Registers an account. @returns the status of the answer. */
export async function register(
  url: string,
  device: TestDevice,
  options: { oneTime?: number; invitation?: string } = {},
): Promise<number> {
  const answer = await fetch(`${url}/v1/accounts`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(enrolmentJson(device, REALM, { oneTime: 1, kyberOneTime: 0, ...options })),
  })
  return answer.status
}
