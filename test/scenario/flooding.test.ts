// What one connection may take of what all share, and how much of its answers the relay keeps. I10
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { BUFFERED_MAX_BYTES, PAGE_MAX_BYTES } from '../../proto/limits.ts'
import { holdLocks } from '../server/barrier.ts'
import { commitUnannounced } from '../support/backlog.ts'
import { type Pair, pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { openRig } from '../support/rig.ts'

const MiB = 1024 * 1024
const OVERLOADED = 10

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay({ lockMs: 60_000 })
})
afterAll(() => relay.close())

/** A pair whose conversation takes the lane `odd` or not (writer.ts). */
async function pairInLane(odd: boolean): Promise<Pair> {
  for (;;) {
    const users = await pair(relay)
    if (Boolean(Number.parseInt(users.conversation.slice(-2), 16) % 2) === odd) return users
  }
}

it('a connection with 700 large sends in work does not take the place of everybody else', async () => {
  const [greedy, modest] = [await pairInLane(true), await pairInLane(false)]
  const [from, other] = [await greedy.alice.live(), await modest.alice.live()]
  const held = await holdLocks(
    relay.db.database.sql,
    (tx) => tx`select 1 from device_locks where device_key = ${greedy.bobKey} for update`,
  )
  const content = randomBytes(96 * 1024)
  const sends = Array.from({ length: 700 }, () => from.send(greedy.conversation, [greedy.bob.to(content)]))
  // Answered without the database, after everything before it was read.
  await from.fence()
  const answer = await other.send(modest.conversation, [modest.bob.to(content)])
  await held.release()
  expect(answer.error?.code).not.toBe(OVERLOADED)
  await Promise.all(sends)
  await Promise.all([from.close(), other.close()])
})

it('answers nobody reads are bounded like everything else that is buffered', async () => {
  const users = await pair(relay)
  const rig = await openRig(relay.db)
  const { socket, session } = await rig.connect(users.bob)
  socket.ws.pause()
  // Fills the kernel's buffers.
  await commitUnannounced(relay.db.database.sql, {
    from: users.alice,
    to: users.bob,
    conversation: users.conversation,
    count: 120,
    bytes: 90 * 1024,
  })
  session.hear(Number.POSITIVE_INFINITY)
  let most = 0
  for (let round = 0; round < 200 && session.state !== 'closed'; round++) {
    // One waits for room, the others are refused.
    for (let i = 0; i < 500; i++) socket.write({ syncRequest: {} })
    await new Promise((resolve) => setImmediate(resolve))
    most = Math.max(most, session.connection.bufferedBytes())
  }
  socket.ws.terminate()
  rig.close()
  expect(most).toBeLessThan(BUFFERED_MAX_BYTES + PAGE_MAX_BYTES + MiB / 2)
}, 60_000)
