// The database is away: connections are kept alive and end with their tokens all the same. [C-4] [C-6.2]
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { pair } from '../support/pair.ts'
import { type LossyProxy, openProxy } from '../support/proxy.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

let db: TestDatabase
let proxy: LossyProxy
let relay: TestRelay
let aheadMs = 0
beforeAll(async () => {
  db = await testDatabase()
  proxy = await openProxy(db.url)
  relay = await testRelay({ db: { ...db, url: proxy.url }, clock: () => Date.now() + aheadMs })
})
afterAll(async () => {
  await proxy?.up()
  await relay?.close()
  await proxy?.close()
  await db?.close()
})

it('a token that ends while the database is away ends its connection', async () => {
  const { bob } = await pair(relay)
  const socket = await bob.live()
  await proxy.down()
  aheadMs = 2 * 3600 * 1000
  expect(await socket.end()).toBe(4401)
})
