// The relay under load, as its own process with its own PostgreSQL, and registered devices to load it with.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Client } from '../../test/support/client.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

async function freePort(): Promise<number> {
  const server = createServer().listen(0)
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

export type Bench = { url: string; realm: string; pid: number; dataDir: string; stop(): Promise<void> }

/** Starts `npm start`'s relay in a temporary data directory; `stop` removes both. @param more variables, for one node of several. */
export async function startBench(more: Record<string, string> = {}): Promise<Bench> {
  const port = await freePort()
  const realm = 'https://bench.test'
  const dataDir = mkdtempSync(join(tmpdir(), 'sealpost-bench-'))
  const { DATABASE_URL: _, ...inherited } = process.env
  const env = {
    ...inherited,
    PORT: String(port),
    HOST: '127.0.0.1',
    SEALPOST_DATA_DIR: dataDir,
    SEALPOST_REALM: realm,
    SEALPOST_LOG_LEVEL: 'warn',
    SEALPOST_LOG_FORMAT: 'json',
    ...more,
    // What one machine does, not what one user may; a limit that is set for the run stays.
    SEALPOST_STRANGERS: 'open',
    SEALPOST_LIMIT_MESSAGES: process.env.SEALPOST_LIMIT_MESSAGES ?? 'off',
    SEALPOST_LIMIT_DELIVERIES: process.env.SEALPOST_LIMIT_DELIVERIES ?? 'off',
  }
  // What `npm start` runs, without npm in between.
  const [, ...args] = JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8')).scripts.start.split(' ')
  const child = spawn(process.execPath, args, { cwd: ROOT, env, stdio: ['ignore', 'pipe', 'inherit'] })
  let said = ''
  await new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (text) => {
      said += text
      if (said.includes('WebSocket')) resolve()
    })
    child.once('exit', (code) => reject(new Error(`the relay ended with ${code}`)))
  })
  return {
    url: `http://127.0.0.1:${port}`,
    realm,
    pid: child.pid!,
    dataDir,
    async stop() {
      const ended = once(child, 'exit')
      child.kill('SIGTERM')
      await ended
      rmSync(dataDir, { recursive: true, force: true })
    },
  }
}

export type Pair = { a: Client; b: Client; conversationId: string }

/** Registers so many pairs of users, each with a direct conversation. */
export async function registerPairs(bench: Bench, count: number): Promise<Pair[]> {
  const pairs: Pair[] = []
  const one = async (): Promise<void> => {
    const [a, b] = await Promise.all([
      Client.register(bench, { kyberOneTime: 0, oneTime: 100 }),
      Client.register(bench, { kyberOneTime: 0, oneTime: 100 }),
    ])
    pairs.push({ a, b, conversationId: await a.direct(b) })
  }
  for (let left = count; left > 0; left -= 4) await Promise.all(Array.from({ length: Math.min(4, left) }, one))
  return pairs
}
