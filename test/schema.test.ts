// schema.sql is what the migrations make, whichever PostgreSQL runs them; two nodes may start at once.
import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { describeSchema, SCHEMA } from '../scripts/schema.ts'
import { openDatabase } from '../server/database.ts'
import { MIGRATION_LOCK, migrate } from '../server/migrate.ts'
import { holdLocks } from './server/barrier.ts'
import { type TestDatabase, testDatabase } from './support/database.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await testDatabase()
})
afterAll(() => db.close())

test('schema.sql is current: run `npm run schema` after changing a migration', async () => {
  expect(await describeSchema(db.database.sql)).toBe(await readFile(SCHEMA, 'utf8'))
})

test('two nodes that start together migrate once', async () => {
  const empty = new URL(db.url)
  empty.pathname = `${empty.pathname}_empty`
  await db.database.sql.unsafe(`create database ${empty.pathname.slice(1)}`)
  const nodes = [openDatabase(empty.href), openDatabase(empty.href)]
  const applied = await Promise.all(nodes.map((node) => migrate(node.sql)))
  expect(applied.filter((files) => files.length > 0)).toHaveLength(1)
  expect(await migrate(nodes[0]!.sql)).toEqual([])
  expect(await describeSchema(nodes[1]!.sql)).toBe(await describeSchema(db.database.sql))
  await Promise.all(nodes.map((node) => node.close()))
  await db.database.sql.unsafe(`drop database ${empty.pathname.slice(1)}`)
})

test('a node that comes while another one migrates says so and waits', async () => {
  const { sql } = db.database
  const first = await holdLocks(sql, (tx) => tx`select pg_advisory_xact_lock(${MIGRATION_LOCK})`)
  const second = openDatabase(db.url)
  let migrated: Promise<string[]> | null = null
  await new Promise<void>((resolve) => {
    migrated = migrate(second.sql, resolve)
  })
  await first.waiting(1)
  await first.release()
  expect(await migrated).toEqual([])
  await second.close()
})
