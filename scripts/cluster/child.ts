// One program of the cluster as a process: what it says line by line, how it ends, and never left behind.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
/** An order to end that is not followed is followed by SIGKILL, milliseconds. */
const KILL_AFTER_MS = 45_000

export type Command = {
  program: string
  args: string[]
  env?: Record<string, string | undefined>
  /** Each line it writes, to stdout or stderr. */
  onLine(line: string): void
}

export type Child = {
  pid: number
  /** Exit code, or the signal's name. */
  ended: Promise<number | string>
  /** Asks it to end, and sees to it that it does. */
  stop(signal?: NodeJS.Signals): Promise<void>
}

/**
 * In a session of its own: a terminal's Ctrl-C reaches every process of its group, and these are stopped in order.
 * @throws Error when the program is not there.
 */
export async function startChild({ program, args, env = {}, onLine }: Command): Promise<Child> {
  const child = spawn(program, args, {
    ...{ cwd: ROOT, env: { ...process.env, ...env }, detached: true },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  await once(child, 'spawn')
  for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', onLine)
  const guard = watchOver(child.pid!)
  const ended = once(child, 'close').then(([code, signal]) => {
    guard.kill('SIGKILL')
    return (code ?? signal) as number | string
  })
  return {
    pid: child.pid!,
    ended,
    async stop(signal = 'SIGTERM') {
      child.kill(signal)
      const late = setTimeout(() => child.kill('SIGKILL'), KILL_AFTER_MS)
      await ended
      clearTimeout(late)
    },
  }
}

// Waits at a pipe this process holds. However this process ends, the pipe closes, and the child is stopped.
function watchOver(pid: number): ChildProcess {
  const guard = spawn('/bin/sh', ['-c', 'read -r _; kill -TERM "$0"', String(pid)], {
    ...{ cwd: '/', detached: true },
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  guard.on('error', () => {})
  guard.unref()
  return guard
}
