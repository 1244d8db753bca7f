// The relay the demo talks to: one that runs already, or one of its own, which is gone without a trace when the demo ends.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Broken } from './narration.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const LOOK_WITHIN_MS = 3_000

export type RunningRelay = {
  /** http://host:port */
  url: string
  /** Part of every proof; not asked of the relay: one that lies would name another's. [I-2] */
  realm: string
}

export type OwnRelay = RunningRelay & {
  /** What it complained of. */
  complaints(): string
  /** Stops relay and database and removes their directory. Safe to call twice. */
  stop(): Promise<void>
}

/** The realm of a relay that was told no other. */
export const usualRealm = (url: string): string => `http://localhost:${new URL(url).port || 80}`

/** What is at this address: a relay ready for work, nothing, or a word on what else answers. */
export async function lookFor(url: string): Promise<'relay' | 'nothing' | { other: string }> {
  try {
    const answer = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(LOOK_WITHIN_MS), redirect: 'manual' })
    const text = await answer.text()
    if (!isReadiness(text)) return { other: `what answers there is not a relay (HTTP ${answer.status} for /readyz)` }
    return answer.ok ? 'relay' : { other: `the relay there takes no work: ${text}` }
  } catch (error) {
    const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException
    if (code === 'ECONNREFUSED') return 'nothing'
    return { other: `no relay answers there (${code ?? (error as Error).message})` }
  }
}

function isReadiness(text: string): boolean {
  try {
    const body: unknown = JSON.parse(text)
    return typeof body === 'object' && body !== null && 'ready' in body
  } catch {
    return false
  }
}

/**
 * Starts `npm start`'s program on a free port with a database in a temporary directory.
 * In a session of its own, so that a terminal's Ctrl-C reaches the demo alone, which then takes it down in order.
 * @throws Broken with what it said when it does not come up; nothing is left behind.
 */
export function startOwnRelay(): { relay: Promise<OwnRelay>; stop(): Promise<void> } {
  let stopped = false
  let stopping: Promise<void> | null = null
  let child: ChildProcess | null = null
  let guard: ChildProcess | null = null
  let exited: Promise<unknown> = Promise.resolve()
  const directory = mkdtemp(join(tmpdir(), 'sealpost-demo-'))

  const takeDown = async (): Promise<void> => {
    stopped = true
    const path = await directory
    child?.kill('SIGTERM')
    await exited
    await rm(path, { recursive: true, force: true })
    guard?.kill('SIGKILL')
  }
  const stop = (): Promise<void> => {
    stopping ??= takeDown()
    return stopping
  }

  const start = async (): Promise<OwnRelay> => {
    const path = await directory
    if (stopped) throw new Broken('stopped before it began')
    const env = { PATH: process.env.PATH, PORT: '0', SEALPOST_DATA_DIR: join(path, 'data'), SEALPOST_LOG_LEVEL: 'warn' }
    child = spawn(process.execPath, ['--import', 'tsx', 'server/main.ts'], {
      ...{ cwd: ROOT, env, detached: true },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    exited = once(child, 'exit')
    exited.catch(() => {})
    guard = watchOver(child.pid!, path)
    let [said, complained] = ['', '']
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      complained += text
    })
    const url = await new Promise<string>((resolve, reject) => {
      child!.stdout!.setEncoding('utf8').on('data', (text: string) => {
        said += text
        const found = /HTTP +(http:\S+)[\s\S]*Ctrl-C/.exec(said)
        if (found) resolve(found[1]!)
      })
      const ended = () => reject(new Broken(complained.trim() || 'the relay ended without a word'))
      child!.once('error', reject)
      child!.once('close', ended)
    })
    return { url, realm: 'http://localhost:0', complaints: () => complained.trim(), stop }
  }

  return {
    stop,
    relay: start().catch(async (error: unknown) => {
      await stop()
      throw error
    }),
  }
}

// Waits at a pipe this process holds: should it be killed, the relay is still stopped and its directory removed.
function watchOver(pid: number, directory: string): ChildProcess {
  const script = 'read -r _; kill -TERM "$0"; while kill -0 "$0"; do sleep 0.1; done; rm -rf "$1"'
  const guard = spawn('/bin/sh', ['-c', script, String(pid), directory], {
    ...{ cwd: '/', detached: true },
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  guard.on('error', () => {})
  guard.unref()
  return guard
}
