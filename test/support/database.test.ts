// Files get databases of their own, migrated and empty.
import { expect, test } from 'vitest'
import { testDatabase } from './database.ts'

test('two test databases are migrated and do not see each other', async () => {
  const [one, two] = await Promise.all([testDatabase(), testDatabase()])
  await one.database.sql`insert into accounts (user_id) values (gen_random_uuid())`
  expect(await one.database.sql`select from accounts`).toHaveLength(1)
  expect(await two.database.sql`select from accounts`).toHaveLength(0)
  await Promise.all([one.close(), two.close()])
})
