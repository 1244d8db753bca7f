// Who owns a data directory: one relay at a time, told apart from a dead one whose process id was given to somebody else.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { link, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { StartError } from './config.ts'

const run = promisify(execFile)

/** Whether a process with this id exists, whoever owns it. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

const ask = (pid: number, column: string): Promise<string | null> =>
  run('ps', ['-o', `${column}=`, '-p', String(pid)]).then(
    ({ stdout }) => stdout.trim() || null,
    () => null,
  )

/** Command line of a process; null when it is gone or cannot be seen. */
export async function commandOf(pid: number): Promise<string | null> {
  if (process.platform !== 'linux') return ask(pid, 'command')
  const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  return text.replaceAll('\0', ' ').trim() || null
}

// With the process id it names one process: ids are reused, start times of one id are not.
async function startedAt(pid: number): Promise<string | null> {
  if (process.platform !== 'linux') return ask(pid, 'lstart')
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  // The second field is the program's name and may hold spaces and brackets; the start time is the 22nd.
  return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? null
}

/**
 * Makes this process the owner of the directory, which is created when missing.
 * @returns gives the directory up again.
 * @throws StartError when a live relay owns it, or it cannot be read and written.
 */
export async function claimDirectory(directory: string): Promise<() => Promise<void>> {
  const file = join(directory, 'relay.pid')
  const mine = `${file}.${process.pid}`
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    // Of a process that had this id before and was cut off here: what is written now must not show in what it linked.
    await rm(mine, { force: true })
    await writeFile(mine, `${process.pid} ${await startedAt(process.pid)}\n`, { mode: 0o600 })
    await take(mine, file, directory)
  } catch (error) {
    if (error instanceof StartError) throw error
    throw new StartError(`data directory ${directory} cannot be used: ${(error as Error).message}`)
  } finally {
    await rm(mine, { force: true }).catch(() => {})
  }
  return () => rm(file, { force: true })
}

const linked = (from: string, to: string): Promise<boolean> =>
  link(from, to).then(
    () => true,
    (error: NodeJS.ErrnoException) => error.code !== 'EEXIST' && Promise.reject(error),
  )

/**
 * Puts this process into a place: linked there whole, so that nobody reads half of it. Who died there is followed by one at a time:
 * by who has taken, in the same way, the place that is named by what the dead one wrote. Nobody else touches what is in a place.
 * @throws StartError when somebody who lives has it.
 */
async function take(mine: string, place: string, directory: string): Promise<void> {
  while (!(await linked(mine, place))) {
    const found = await read(place)
    if (found === null) continue
    const [pid, started] = found.trim().split(/ (.*)/)
    if (pid && isAlive(Number(pid)) && (await startedAt(Number(pid))) === started)
      throw new StartError(`data directory ${directory} is in use by the relay with pid ${pid}`)
    const heir = join(directory, `relay.pid.${createHash('sha256').update(found).digest('hex')}`)
    await take(mine, heir, directory)
    try {
      if ((await read(place)) !== found) continue
      await rm(`${mine}.next`, { force: true })
      await link(mine, `${mine}.next`)
      await rename(`${mine}.next`, place)
      return
    } finally {
      await rm(heir, { force: true })
    }
  }
}

const read = (path: string): Promise<string | null> =>
  readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw error
  })
