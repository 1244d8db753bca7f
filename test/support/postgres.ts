// vitest's globalSetup: one real PostgreSQL for the run and a migrated template in it. Databases are cloned in database.ts.
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { openDatabase } from '../../server/database.ts'
import { migrate } from '../../server/migrate.ts'
import { startPostgres } from '../../server/postgres.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** Where databases are made; a superuser or a role with CREATEDB. */
    serverUrl: string
    templateName: string
  }
}

const named = (url: string, database: string): string => {
  const changed = new URL(url)
  changed.pathname = `/${database}`
  return changed.href
}

/** Starts PostgreSQL, unless DATABASE_URL names one, and returns what stops it. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const given = process.env.DATABASE_URL
  const own = given
    ? null
    : await startPostgres({
        dataDir: await mkdtemp(join(tmpdir(), 'sealpost-test-')),
        settings: { max_connections: '300', shared_buffers: '256MB' },
        ephemeral: true,
      })
  const serverUrl = given ?? own!.url
  const templateName = `sealpost_template_${process.pid}`
  const server = openDatabase(serverUrl)
  const drop = () => server.sql.unsafe(`drop database if exists ${templateName} with (force)`)
  try {
    await drop()
    await server.sql.unsafe(
      `create database ${templateName} template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C'`,
    )
    const template = openDatabase(named(serverUrl, templateName))
    await migrate(template.sql).finally(() => template.close())
  } catch (error) {
    await server.close()
    await own?.stop()
    throw error
  }
  project.provide('serverUrl', serverUrl)
  project.provide('templateName', templateName)
  return async () => {
    if (given) await drop()
    await server.close()
    await own?.stop()
  }
}
