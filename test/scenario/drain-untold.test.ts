// More than the buffer limit queued in one turn, all of it taken by the network at once: uWebSockets tells of no drain then, and
// whoever waits for room must be woken all the same.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { commitUnannounced, numberOf } from '../support/backlog.ts'
import { pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { openRig, type Rig } from '../support/rig.ts'

let relay: TestRelay
let rig: Rig
beforeAll(async () => {
  relay = await testRelay()
  rig = await openRig(relay.db)
})
afterAll(async () => {
  rig.close()
  await relay.close()
})

it('a live reader gets 12 large envelopes that commit together without acking one', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const { socket, session } = await rig.connect(bob)
  await commitUnannounced(relay.db.database.sql, { from: alice, to: bob, conversation, count: 12, bytes: 90 * 1024 })
  for (const row of await rig.rows(bob, 1)) session.offer(row)
  for (let i = 0; i < 12; i++) expect(numberOf((await socket.next('envelope')).ciphertext?.content)).toBe(i)
  await socket.close()
})

it('a SyncRequest that comes while three large envelopes leave is answered', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const { socket, session } = await rig.connect(bob)
  await commitUnannounced(relay.db.database.sql, { from: alice, to: bob, conversation, count: 3, bytes: 90 * 1024 })
  const rows = await rig.rows(bob, 1)
  const answer = new Promise((resolve, reject) => {
    setImmediate(() => {
      const asked = socket.ask({ syncRequest: {} })
      for (const row of rows) session.offer(row)
      asked.then(resolve, reject)
    })
  })
  expect(await answer).toMatchObject({ syncResponse: { hasMore: false } })
  await socket.close()
})
