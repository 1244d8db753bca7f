// Processes under test: started in a session of their own, watched line by line, never left behind.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

export type Watched = {
  pid: number
  /** What it wrote so far. */
  stdout(): string
  stderr(): string
  /** Resolves with the match once stdout matches. @throws with all output if the process ends before. */
  says(pattern: RegExp): Promise<RegExpMatchArray>
  /** Exit code, or the signal's name. */
  ended: Promise<number | string>
  kill(signal: NodeJS.Signals): void
}

/** Runs a TypeScript file of the repository with the given variables, and none of the caller's but PATH. */
export function runScript(file: string, args: string[] = [], env: Record<string, string> = {}): Watched {
  const child: ChildProcess = spawn(process.execPath, ['--import', 'tsx', file, ...args], {
    cwd: ROOT,
    env: { PATH: process.env.PATH, ...env },
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]!.setEncoding('utf8').on('data', (text: string) => {
      output[name] += text
    })
  }
  const ended = once(child, 'close').then(([code, signal]) => (code ?? signal) as number | string)
  return {
    pid: child.pid!,
    stdout: () => output.stdout,
    stderr: () => output.stderr,
    ended,
    kill: (signal) => {
      child.kill(signal)
    },
    says: (pattern) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const found = output.stdout.match(pattern)
          if (found) resolve(found)
          return found !== null
        }
        if (look()) return
        child.stdout!.on('data', look)
        void ended.then((code) => look() || reject(new Error(`ended with ${code}:\n${output.stdout}${output.stderr}`)))
      }),
  }
}

/** Ids of the processes whose command line holds the text. */
export function processesWith(text: string): number[] {
  return commandLines()
    .filter(({ command }) => command.includes(text))
    .map(({ pid }) => pid)
}

// Not every machine has ps; Linux needs none.
function commandLines(): { pid: number; command: string }[] {
  if (process.platform !== 'linux') {
    const lines = execFileSync('ps', ['-A', '-ww', '-o', 'pid=,args='], { encoding: 'utf8' }).split('\n')
    return lines.map((line) => ({ pid: Number.parseInt(line, 10), command: line }))
  }
  const ids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return ids.map((id) => ({ pid: Number(id), command: commandLine(id) }))
}

function commandLine(id: string): string {
  try {
    return readFileSync(`/proc/${id}/cmdline`, 'utf8').replaceAll('\0', ' ')
  } catch {
    return ''
  }
}

/** Resolves when the condition holds, looking again every few milliseconds: for what other processes do. */
export async function until(holds: () => boolean | Promise<boolean>, withinMs = 20_000): Promise<void> {
  const end = Date.now() + withinMs
  while (!(await holds())) {
    if (Date.now() > end) throw new Error('did not happen in time')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
