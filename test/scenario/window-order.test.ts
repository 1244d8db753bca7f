// Announcements that come late, twice, in any order or never, offered to one session on a real socket and queue. I4
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { WINDOW_MAX_MESSAGES } from '../../proto/limits.ts'
import type { Delivery } from '../../server/frames.ts'
import type { Session } from '../../server/session.ts'
import { commitUnannounced, endElsewhere, numberOf } from '../support/backlog.ts'
import type { Socket } from '../support/client.ts'
import { type Pair, pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { openRig, type Rig } from '../support/rig.ts'

let relay: TestRelay
let rig: Rig
let users: Pair
let socket: Socket
let session: Session
let tail = 0
beforeAll(async () => {
  relay = await testRelay()
  rig = await openRig(relay.db)
})
afterAll(async () => {
  rig.close()
  await relay.close()
})
beforeEach(async () => {
  rig.afterRead = async () => {}
  users = await pair(relay)
  // The group's own event is the only thing that was ever there.
  tail = 1
  ;({ socket, session } = await rig.connect(users.bob))
})

/** Commits so many; what an announcement of each would be. */
async function committed(count: number, bytes = 64): Promise<Delivery[]> {
  const { alice, bob, conversation } = users
  await commitUnannounced(relay.db.database.sql, { from: alice, to: bob, conversation, count, bytes })
  const rows = await rig.rows(bob, tail)
  tail += count
  return rows.slice(-count)
}
async function arrived(count: number): Promise<number[]> {
  const got: number[] = []
  while (got.length < count) got.push(numberOf((await socket.next('envelope')).ciphertext?.content))
  await socket.fence()
  expect(socket.envelopes()).toEqual([])
  return got
}
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i)

it.each([
  ['in order', [1, 2, 3]],
  ['3, 1, 2, 1', [3, 1, 2, 1]],
  ['backwards', [3, 2, 1]],
  ['all twice', [1, 2, 3, 1, 2, 3]],
  ['the last one only', [3]],
  ['without the first', [2, 3]],
  ['without the middle one', [1, 3]],
])('%s: every envelope once, in order', async (_what, order) => {
  const rows = await committed(3)
  for (const place of order) session.offer(rows[place - 1]!)
  expect(await arrived(3)).toEqual(range(3))
})

it('in any order, one announcement per turn of the event loop', async () => {
  const rows = await committed(200)
  // A fixed shuffle; with every tenth missing and every seventh twice.
  const order = [...rows.keys()].sort((a, b) => ((a * 7919) % 211) - ((b * 7919) % 211))
  for (const place of order) {
    if (place % 10 !== 9) session.offer(rows[place]!)
    if (place % 7 === 0) session.offer(rows[place]!)
    await new Promise((resolve) => setImmediate(resolve))
  }
  expect(await arrived(200)).toEqual(range(200))
})

it('a reordered announcement is sent from memory when the gap before it closes: no row is needed', async () => {
  const rows = await committed(3)
  // Gone from the queue: only the announcements can bring them.
  await endElsewhere(
    relay.db.database.sql,
    users.bob,
    rows.map((each) => each.messageId),
  )
  for (const place of [2, 1, 0]) session.offer(rows[place]!)
  expect(await arrived(3)).toEqual(range(3))
})

it('an empty catch-up page: behind rows that were acked elsewhere, it catches up to the tail, and live goes on', async () => {
  const rows = await committed(3)
  await endElsewhere(
    relay.db.database.sql,
    users.bob,
    rows.map((each) => each.messageId),
  )
  session.hear(rows[2]!.sequence)
  while (session.behind) await socket.fence()
  const [next] = await committed(1)
  session.offer(next!)
  expect(await arrived(1)).toEqual([0])
})

it('told that rows of unknown number may exist, it looks: none, then some', async () => {
  session.hear(Number.POSITIVE_INFINITY)
  while (session.behind) await socket.fence()
  expect(socket.envelopes()).toEqual([])
  await committed(150)
  session.hear(Number.POSITIVE_INFINITY)
  expect(await arrived(150)).toEqual(range(150))
})

it('announcements into a closed window are not lost: acks bring them from the queue', async () => {
  const rows = await committed(WINDOW_MAX_MESSAGES + 50)
  for (const row of rows) session.offer(row)
  const got = []
  while (got.length < WINDOW_MAX_MESSAGES) got.push(await socket.next('envelope'))
  await socket.fence()
  expect(socket.envelopes()).toEqual([])
  await socket.ack(...got.map((each) => each.messageId))
  expect(await arrived(50)).toEqual(range(WINDOW_MAX_MESSAGES + 50).slice(WINDOW_MAX_MESSAGES))
})

it('a closed session takes announcements and does nothing', async () => {
  const rows = await committed(2)
  session.close(4409, 'connected elsewhere')
  for (const row of rows) session.offer(row)
  session.hear(Number.POSITIVE_INFINITY)
  expect(await socket.end()).toBe(4409)
  expect(socket.envelopes()).toEqual([])
})

describe('committed and announced between a read and its use', () => {
  it("of a sync's last page: it comes live, behind QueueEmpty", async () => {
    await committed(2)
    let late: Delivery[] = []
    rig.afterRead = async () => {
      rig.afterRead = async () => {}
      late = await committed(2)
      for (const row of late) session.offer(row)
    }
    const page = await socket.sync()
    expect(page.messages?.length).toBe(2)
    expect(page.hasMore).toBe(false)
    while (socket.frames.length < 3) await socket.fence()
    expect(socket.frames.map((frame) => frame.body)).toEqual(['queueEmpty', 'envelope', 'envelope'])
    expect(await arrived(2)).toEqual([0, 1])
  })

  it('of what waits at connect: it comes behind Hello', async () => {
    socket.ws.terminate()
    rig.afterRead = async () => {
      rig.afterRead = async () => {}
      for (const row of await committed(2)) rig.session(deviceKey)?.offer(row)
    }
    const deviceKey = users.bobKey
    const again = await rig.connect(users.bob)
    socket = again.socket
    expect(await arrived(2)).toEqual([0, 1])
  })

  it('of a catch-up: nothing is doubled, nothing left behind', async () => {
    const first = await committed(2)
    rig.afterRead = async () => {
      rig.afterRead = async () => {}
      // The announcement of what was just read, and of one more.
      for (const row of [...first, ...(await committed(1))]) session.offer(row)
    }
    session.hear(Number.POSITIVE_INFINITY)
    const got = [await socket.next('envelope'), await socket.next('envelope'), await socket.next('envelope')]
    const sequences = got.map((each) => each.sequence!)
    expect(sequences).toEqual([tail - 2, tail - 1, tail])
    await socket.fence()
    expect(socket.envelopes()).toEqual([])
  })

  it('an ack that frees the window while the pump reads wakes it again', async () => {
    const rows = await committed(WINDOW_MAX_MESSAGES + 100)
    session.hear(Number.POSITIVE_INFINITY)
    const got = []
    while (got.length < rows.length) {
      const envelope = await socket.next('envelope')
      got.push(numberOf(envelope.ciphertext?.content))
      socket.write({ ack: { messageIds: [envelope.messageId!] } })
    }
    expect(got).toEqual(range(rows.length))
  })
})
