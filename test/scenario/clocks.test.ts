// A node whose clock is wrong is started beside others: their devices' mail stays. I3
import { afterAll, beforeAll, expect, it } from 'vitest'
import { commitUnannounced, waitingFor } from '../support/backlog.ts'
import { pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

it('a clock 40 days ahead expires nothing that the database holds to be new', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const { sql } = relay.db.database
  const ids = await commitUnannounced(sql, { from: alice, to: bob, conversation, count: 3 })
  const wrong = await testRelay({ db: relay.db, clock: () => Date.now() + 40 * 24 * 3600 * 1000 })
  await wrong.close()
  expect(await waitingFor(sql, bob)).toEqual(ids)
})
