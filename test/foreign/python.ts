// The Python client as a process: one story at a time, told in lines of JSON. What it is, and what it needs: test/foreign/*.py.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { program, type Wanted } from '../support/debian.ts'

const run = promisify(execFile)
const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** A Python that sees both packages: the system's own before one of a version manager, which does not see Debian's. */
export const PYTHON: Wanted<string> = {
  what: 'Python 3.9 or newer with protobuf and websockets',
  packages: ['python3-protobuf', 'python3-websockets'],
  async find() {
    for (const python of ['/usr/bin/python3', program('python3')]) {
      const check = ['-c', 'import sys, google.protobuf, websockets; sys.exit(sys.version_info < (3, 9))']
      const fits = python && (await run(python, check).catch(() => null))
      if (fits) return python
    }
    return null
  },
}

/** What the other side of a story does when it is asked to. */
export type Cues = Record<string, (said: { device_id: number }) => Promise<unknown>>

export type Foreign = {
  /** Plays a story to its end. @throws with everything Python wrote when it does not get there. */
  // biome-ignore lint/suspicious/noExplicitAny: every story has a result of its own shape
  play(story: string, given: Record<string, unknown>, cues?: Cues): Promise<any>
  close(): Promise<void>
}

/** Compiles the frames for it; no compiler of Python code is needed. */
export async function openForeign(python: string): Promise<Foreign> {
  const folder = await mkdtemp(join(tmpdir(), 'sealpost-foreign-'))
  const descriptors = join(folder, 'sealpost.binpb')
  await run(join(ROOT, 'node_modules/.bin/buf'), ['build', '-o', descriptors], { cwd: ROOT })
  return {
    play: (story, given, cues = {}) => play(python, story, { ...given, descriptors }, cues),
    close: () => rm(folder, { recursive: true }),
  }
}

async function play(python: string, story: string, given: Record<string, unknown>, cues: Cues): Promise<unknown> {
  // -B: nothing is compiled into the tree.
  const child = spawn(python, ['-B', 'stories.py', story], { cwd: join(ROOT, 'test/foreign') })
  const closed = once(child, 'close')
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  child.stdin.on('error', () => {})
  let result: unknown
  try {
    const tell = (line: unknown) => child.stdin.write(`${JSON.stringify(line)}\n`)
    tell(given)
    for await (const line of createInterface({ input: child.stdout })) {
      const said = JSON.parse(line)
      if (said.cue === undefined) result = said.result
      else tell((await cues[said.cue]!(said)) ?? null)
    }
    const [code] = await closed
    if (code !== 0 || result === undefined) throw new Error(`the story ${story} ended with ${code}:\n${stderr}`)
    return result
  } finally {
    child.kill('SIGKILL')
  }
}
