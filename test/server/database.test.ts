// The pools: arrays there and back, and connections that ask nothing of their own.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openDatabase, type Sql } from '../../server/database.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { openProxy } from '../support/proxy.ts'

let db: TestDatabase
let sql: Sql
beforeAll(async () => {
  db = await testDatabase()
  sql = db.database.sql
})
afterAll(() => db?.close())

const id = '00000000-0000-4000-8000-00000000000a'

describe('arrays', () => {
  it.each<[string, unknown[]]>([
    ['smallint', [1, -2]],
    ['int', [1, 0, -2147483648]],
    ['bigint', [0, 9007199254740991]],
    ['uuid', [id, id]],
    ['text', ['', 'plain', 'NULL', 'null', 'a,b', '{c}', 'quo"te', 'back\\slash', ' space ', 'ünïcödé\n']],
  ])('of %s come back as they went', async (type, values) => {
    const [row] =
      await sql`select ${values as string[]}::${sql.unsafe(type)}[] as it, ${[]}::${sql.unsafe(type)}[] as empty`
    expect(row).toEqual({ it: values, empty: [] })
  })

  it('of booleans and times come back too', async () => {
    const times = [new Date(0), new Date(1_800_000_000_123)]
    const [row] =
      await sql`select array[true, false] as truths, array[${times[0]!}, ${times[1]!}]::timestamptz[] as times`
    expect(row).toEqual({ truths: [true, false], times })
  })

  it('hold nulls', async () => {
    const [row] =
      await sql`select ${[1, null] as number[]}::int[] as numbers, array[null, 'NULL', 'x'] as texts, null::uuid[] as none`
    expect(row).toEqual({ numbers: [1, null], texts: [null, 'NULL', 'x'], none: null })
  })
})

it('bigint comes back as a number', async () => {
  expect(await sql`select 9007199254740991::bigint as n`).toEqual([{ n: 9007199254740991 }])
})

it('a new connection asks for no catalogue: a question nobody waits for would end the process when the connection does', async () => {
  const proxy = await openProxy(db.url)
  const database = openDatabase(proxy.url, { sql: 1, writer: 1, acker: 1, reader: 1 })
  let asked = false
  void proxy.lose('request', 'typarray').then(() => {
    asked = true
  })
  for (const pool of [database.sql, database.writer, database.reader])
    expect(await pool`select ${[id]}::uuid[] as ids`).toEqual([{ ids: [id] }])
  expect(asked).toBe(false)
  await database.close()
  await proxy.close()
})
