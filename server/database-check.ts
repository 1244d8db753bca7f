// Is this a database the relay can live in? Asked once, before anything is served; the answer is one line for the operator.
import { StartError } from './config.ts'
import { openDatabase } from './database.ts'
import { migrate } from './migrate.ts'

const OLDEST = 15

/** Where a database is, without user and password. */
export function describeDatabase(url: string): string {
  const { hostname, port, pathname } = new URL(url)
  return `PostgreSQL at ${hostname || 'localhost'}:${port || 5432}${pathname}`
}

/**
 * Checks that the server answers and is new enough, and migrates.
 * @throws StartError with one line; what was there before is unchanged.
 */
export async function prepareDatabase(url: string): Promise<void> {
  const database = openDatabase(url)
  try {
    const [row] = await database.sql<{ major: number }[]>`
      select current_setting('server_version_num')::int / 10000 as major`
    if (row!.major < OLDEST) {
      throw new StartError(`${describeDatabase(url)} is version ${row!.major}; the relay needs ${OLDEST} or newer`)
    }
    await migrate(database.sql)
  } catch (error) {
    throw error instanceof StartError ? error : new StartError(`${describeDatabase(url)} ${complaint(error)}`)
  } finally {
    await database.close()
  }
}

function complaint(error: unknown): string {
  const { code = '', message } = error as NodeJS.ErrnoException
  if (code === '28P01') return 'refused the password of DATABASE_URL'
  if (code === '28000') return `refused the user of DATABASE_URL: ${message}`
  if (code === '3D000') return 'has no database of that name: create it first'
  if (code === '42501') return `lets the user of DATABASE_URL make no schema: ${message}`
  if (/^(E[A-Z_]+|CONNECT)/.test(code)) return `cannot be reached: ${message}`
  return `cannot be used: ${message}`
}
