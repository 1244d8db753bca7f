// A database as it is now, kept aside: what a restore brings back. PostgreSQL copies its files, so nothing of it is made up.
import { randomBytes } from 'node:crypto'
import { inject } from 'vitest'
import { openDatabase } from '../../server/database.ts'
import type { TestDatabase } from './database.ts'

/** Of a database that no relay serves at the moment. The copy is a database of its own, to be closed by whoever asked for it. */
export async function backup(db: TestDatabase): Promise<TestDatabase> {
  const server = openDatabase(inject('serverUrl'))
  const [from, name] = [new URL(db.url).pathname.slice(1), `sealpost_test_${randomBytes(8).toString('hex')}`]
  // Whoever is still connected, the test's own pool, connects again with its next question.
  await server.sql`select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = ${from}`
  await server.sql.unsafe(`create database ${name} template ${from}`)
  const url = new URL(db.url)
  url.pathname = `/${name}`
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
