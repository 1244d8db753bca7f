// A database of its own for a test file: a clone of the migrated template that postgres.ts made.
import { randomBytes } from 'node:crypto'
import { inject } from 'vitest'
import { type Database, openDatabase } from '../../server/database.ts'

export type TestDatabase = {
  /** For a second pool or another process. */
  url: string
  database: Database
  /** Closes the pools and drops the database, whoever is still connected. */
  close(): Promise<void>
}

/**
 * A fresh, migrated, empty database on the run's real PostgreSQL.
 * @param options.lockMs how long its connections wait for a lock; the relay's own 2 s unless said. For stories that hold one meanwhile:
 * a process may stand still for longer.
 */
export async function testDatabase(options: { lockMs?: number } = {}): Promise<TestDatabase> {
  const server = openDatabase(inject('serverUrl'))
  const name = `sealpost_test_${randomBytes(8).toString('hex')}`
  try {
    await server.sql.unsafe(`create database ${name} template ${inject('templateName')}`)
  } catch (error) {
    await server.close()
    throw error
  }
  const url = new URL(inject('serverUrl'))
  url.pathname = `/${name}`
  if (options.lockMs !== undefined) url.searchParams.set('lock_timeout', `${options.lockMs}`)
  const database = openDatabase(url.href)
  return {
    url: url.href,
    database,
    close: async () => {
      await database.close()
      await server.sql.unsafe(`drop database if exists ${name} with (force)`)
      await server.close()
    },
  }
}
