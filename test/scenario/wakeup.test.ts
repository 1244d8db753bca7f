// A catch-up that ends in the same moment as a sync: whatever was heard of meanwhile is still looked for.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openDatabase } from '../../server/database.ts'
import { holdLocks } from '../server/barrier.ts'
import { commitUnannounced } from '../support/backlog.ts'
import { pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { openRig } from '../support/rig.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

it('live goes on behind a page and a catch-up whose answers come in one piece', async () => {
  const { alice, bob, conversation } = await pair(relay)
  // One connection: what is asked at once is answered one behind the other, and waits for the lock as long as it is held.
  const database = openDatabase(`${relay.db.url}?lock_timeout=60000`, { sql: 2, writer: 2, acker: 1, reader: 1 })
  const rig = await openRig({ ...relay.db, database })
  const { socket, session } = await rig.connect(bob)
  const commit = () => commitUnannounced(relay.db.database.sql, { from: alice, to: bob, conversation, count: 1 })
  // Prepares the statement.
  await commit()
  session.hear(Number.POSITIVE_INFINITY)
  await socket.ack((await socket.next('envelope')).messageId)

  const held = await holdLocks(
    relay.db.database.sql,
    (tx) => tx`lock table message_deliveries_waiting in access exclusive mode`,
  )
  session.hear(Number.POSITIVE_INFINITY)
  await held.waiting(1)
  const synced = socket.sync()
  await socket.fence()
  await held.release()
  // Both answers are there when this process looks again.
  const until = performance.now() + 100
  while (performance.now() < until);
  await synced
  await socket.next('queueEmpty')
  // No frame from here on: an ack would wake it by itself.
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve))
  expect(session.behind).toBe(false)
  await socket.close()
  rig.close()
  await database.close()
})
