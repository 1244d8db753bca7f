// A request that was accepted is answered before the relay goes: whoever registers or links learns his secret.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { holdLocks } from '../server/barrier.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { pair } from '../support/pair.ts'
import { testRelay } from '../support/relay.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await testDatabase()
})
afterAll(() => db.close())

it('a change that commits while the relay shuts down is answered', async () => {
  const relay = await testRelay({ db, lockMs: 60_000 })
  const { alice, conversation } = await pair(relay)
  const held = await holdLocks(
    db.database.sql,
    (tx) => tx`select 1 from conversations where conversation_id = ${conversation} for update`,
  )
  const answer = alice.post(`/v1/conversations/${conversation}/archive`).then(
    ({ status }) => status,
    (error: Error) => error.message,
  )
  await held.waiting(1)
  const closing = relay.close()
  // Longer than the goodbyes take.
  await new Promise((resolve) => setTimeout(resolve, 300))
  await held.release()
  await closing
  const [row] = await db.database.sql`select archived_at from conversations where conversation_id = ${conversation}`
  expect(row!.archived_at).not.toBeNull()
  expect(await answer).toBe(200)
})
