// What is needed of the machine beyond npm: found, or installed where this runs as root on Debian, or named in one line.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'

/** Something another project ships: how to tell that it is there, and what brings it. */
export type Wanted<T> = {
  /** For people, at the start of a sentence: "Python with protobuf and websockets". */
  what: string
  /** Debian packages that bring it. */
  packages: string[]
  /** @returns null when it is not there. */
  find(): T | null | Promise<T | null>
}

/** `missing`: one line that says what to install. */
export type Obtained<T> = { it: T; missing: null } | { it: null; missing: string }

const run = promisify(execFile)

const INSTALL_SECONDS = 280
/** The most that waiting for another worker's installation and one's own take, milliseconds: for the time-out of the hook that waits. */
export const INSTALL_MAX_MS = 600_000

// The lists of a fresh container are empty, and those of an old one name what is gone: only then they are fetched.
const INSTALL = 'apt-get "$@" || { apt-get -qq update && apt-get "$@"; }'
const OPTIONS = ['-o', 'Acquire::Retries=2', '-o', 'Acquire::http::Timeout=20', '-o', 'DPkg::Lock::Timeout=120']

/** Redis 7 or newer: sharded pub/sub. */
export const REDIS: Wanted<string> = {
  what: 'redis-server',
  packages: ['redis-server'],
  find: () => program('redis-server'),
}

/** HAProxy 2.6 or newer: Debian has it where only root's PATH leads. */
export const HAPROXY: Wanted<string> = {
  what: 'haproxy',
  packages: ['haproxy'],
  find: () => program('haproxy', '/usr/sbin/haproxy'),
}

/**
 * Finds it, or installs it first where this may: as root on a Debian.
 * @param say told, before it begins, what is installed and why.
 */
export async function obtain<T>(
  { what, packages, find }: Wanted<T>,
  say: (line: string) => void,
): Promise<Obtained<T>> {
  const there = await find()
  if (there !== null) return { it: there, missing: null }
  const command = `apt-get install ${packages.join(' ')}`
  let why = ''
  if (mayInstall()) {
    say(`${command}, because there is no ${what} on this machine`)
    why = await install(packages)
    const installed = await find()
    if (installed !== null) return { it: installed, missing: null }
  }
  return { it: null, missing: `there is no ${what} on this machine: ${command}${why && ` (failed: ${why})`}` }
}

/** The first of these programs that is on the PATH or, with a slash in it, there. */
export function program(...names: string[]): string | null {
  const folders = (process.env.PATH ?? '').split(delimiter)
  const places = names.flatMap((name) => (name.includes('/') ? [name] : folders.map((folder) => join(folder, name))))
  return places.find((place) => existsSync(place)) ?? null
}

const mayInstall = (): boolean =>
  process.getuid?.() === 0 && existsSync('/etc/debian_version') && program('apt-get') !== null

/** @returns why it failed, in one line, or ''. */
async function install(packages: string[]): Promise<string> {
  // The lock is a directory of apt's, so that nothing is left behind; apt's own lock does not cover `update` and `install` together.
  const locked = ['--timeout', String(INSTALL_SECONDS), '/var/lib/apt', 'timeout', '--kill-after=10']
  const apt = ['-qq', '-y', '--no-install-recommends', ...OPTIONS, 'install', ...packages]
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  try {
    await run('flock', [...locked, String(INSTALL_SECONDS), 'sh', '-c', INSTALL, 'sh', ...apt], { env })
    return ''
  } catch (error) {
    const { stderr = '', message } = error as { stderr?: string; message: string }
    return (stderr.trim().split('\n').at(-1) || message.split('\n')[0]!).slice(0, 200)
  }
}
