// Accepting, being invited and blocking beside sends, on two nodes: a send sees either what was before or what came after. I8 [V-6] [V-7]
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { STRANGER_MAX_MESSAGES } from '../../proto/limits.ts'
import { openBlocks } from '../../server/blocks.ts'
import { by, NOW } from '../support/conversations.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { type Node, openNode, queueFaults, refused, sendTo, waitingRows } from '../support/node.ts'
import { converse, type Person, populate } from '../support/population.ts'
import { holdLocks } from './barrier.ts'

let db: TestDatabase
let east: Node
let west: Node
beforeAll(async () => {
  db = await testDatabase({ lockMs: 60_000 })
  east = openNode(db.url, { strangers: 'ask' })
  west = openNode(db.url, { strangers: 'ask' })
})
afterAll(async () => {
  await Promise.all([east?.close(), west?.close()])
  await db?.close()
})
afterEach(async () => {
  expect(await queueFaults(db.database.sql)).toEqual([])
  expect([...east.reported, ...west.reported]).toEqual([])
})

const blocks = () => openBlocks({ sql: east.database.sql, onChanged: (id) => east.rosters.drop(id) })
const lockOf = ({ devices }: Person) =>
  holdLocks(
    db.database.sql,
    (tx) => tx`select 1 from device_locks where device_key = ${devices[0]!.deviceKey} for update`,
  )
const messagesOf = async ({ devices }: Person) =>
  (await waitingRows(db.database.sql, devices[0]!.deviceKey)).map((row) => row.message_id)
/** Ann made a direct conversation with Bob; the caches of both nodes know it as it is. */
async function direct() {
  const [ann, bob] = (await populate(db.database.sql, 2)) as [Person, Person]
  const { conversationId: id } = await east.conversations.createDirect(by(ann.userId), bob.userId)
  await Promise.all([east.rosters.load(id), west.rosters.load(id)])
  return { id, ann, bob, from: ann.devices[0]!, to: bob.devices[0]! }
}
const sentTo = async (id: string, userId: string): Promise<number> => {
  const [row] = await db.database.sql<[{ sent: number }]>`
    select stranger_messages as sent from conversation_members where conversation_id = ${id} and user_id = ${userId}`
  return row.sent
}

describe('accepting beside a send', () => {
  it('the tenth and what comes after it wait for the same lock as the word: all are taken when that came first', async () => {
    const { id, ann, bob, from, to } = await direct()
    for (let i = 0; i < STRANGER_MAX_MESSAGES; i++) await west.send(from, sendTo(id, [to]))
    const held = await lockOf(bob)
    const accepting = east.conversations.accept(id, bob.userId, NOW)
    await held.waiting(1)
    const late = west.send(from, sendTo(id, [to]))
    await held.waiting(2)
    await held.release()
    await accepting
    expect((await late).committed).toHaveLength(1)
    expect(await sentTo(id, bob.userId)).toBe(STRANGER_MAX_MESSAGES)
    expect(ann.devices).toHaveLength(1)
  })

  it('an answer on one node is word enough for the other, whose cache knows nothing of it', async () => {
    const { id, from, to } = await direct()
    for (let i = 0; i < STRANGER_MAX_MESSAGES; i++) await west.send(from, sendTo(id, [to]))
    expect((await refused(west.send(from, sendTo(id, [to])))).code).toBe('FORBIDDEN')
    await east.send(to, sendTo(id, [from]))
    expect((await west.send(from, sendTo(id, [to]))).committed).toHaveLength(1)
  })

  it('ten in all, however many nodes and devices send at once', async () => {
    const [ann, bob] = (await populate(db.database.sql, 2, 2)) as [Person, Person]
    const { conversationId: id } = await east.conversations.createDirect(by(ann.userId), bob.userId)
    const held = await lockOf(bob)
    const [a1, a2] = ann.devices as [(typeof ann.devices)[0], (typeof ann.devices)[0]]
    // Subsets with no device in common, besides those that meet.
    const one = Array.from({ length: 8 }, () => east.send(a1, sendTo(id, [bob.devices[0]!], { scope: 'SUBSET' })))
    const two = Array.from({ length: 8 }, () => west.send(a2, sendTo(id, [bob.devices[1]!], { scope: 'SUBSET' })))
    const settled = Promise.allSettled([...one, ...two])
    await held.waiting(1)
    await held.release()
    const taken = (await settled).filter((each) => each.status === 'fulfilled')
    expect(taken).toHaveLength(STRANGER_MAX_MESSAGES)
    expect(await sentTo(id, bob.userId)).toBe(STRANGER_MAX_MESSAGES)
  })
})

it.each([[-1], [1]])(
  'how many were sent is carried on whatever the clocks of the nodes say (%i) [V-6.2]',
  async (way) => {
    const { id, ann, bob, from, to } = await direct()
    const at = (userId: string, hour: number) => ({ ...by(userId), nowMs: NOW + hour * way * 3_600_000 })
    const begin = async (by: Person, other: Person, hour: number) =>
      (await east.conversations.createDirect(at(by.userId, hour), other.userId)).conversationId
    const send = (id: string, times: number) =>
      Promise.all(Array.from({ length: times }, () => west.send(from, sendTo(id, [to]))))
    await send(id, 3)
    await east.conversations.accept(id, bob.userId, NOW)
    await east.conversations.archive(id, at(ann.userId, 1))
    const second = await begin(ann, bob, 2)
    expect(await sentTo(second, bob.userId)).toBe(0)
    await send(second, 6)
    await east.conversations.archive(second, at(ann.userId, 3))
    const third = await begin(ann, bob, 4)
    expect(await sentTo(third, bob.userId)).toBe(6)
    await send(third, 1)
    await east.conversations.archive(third, at(ann.userId, 5))
    const fourth = await begin(ann, bob, 6)
    expect(await sentTo(fourth, bob.userId)).toBe(7)
    await east.conversations.archive(fourth, at(bob.userId, 7))
    // He began one himself: nothing of it counts any more.
    await east.conversations.archive(await begin(bob, ann, 8), at(bob.userId, 9))
    expect(await sentTo(await begin(ann, bob, 10), bob.userId)).toBe(0)
  },
)

describe('an invitation accepted during a send', () => {
  it('a device that is in the set by then is reported missing, and nothing is stored (I8)', async () => {
    const [ann, bob, cy] = (await populate(db.database.sql, 3)) as [Person, Person, Person]
    await converse(db.database.sql, [ann, bob])
    const made = await east.conversations.createGroup(by(ann.userId), {
      userIds: [bob.userId, cy.userId],
      name: '',
      description: '',
    })
    const id = made.conversationId
    const before = await messagesOf(bob)
    await west.rosters.load(id)
    const held = await lockOf(bob)
    const accepting = east.conversations.accept(id, cy.userId, NOW)
    await held.waiting(1)
    const send = refused(west.send(ann.devices[0]!, sendTo(id, [bob.devices[0]!])))
    await held.waiting(2)
    await held.release()
    await accepting
    expect((await send).mismatch?.missing).toMatchObject([{ userId: cy.userId, deviceId: 1 }])
    // The word of it and nothing else.
    expect(await messagesOf(bob)).toHaveLength(before.length + 1)
  })
})

describe('a block beside a send [V-7.1]', () => {
  it('what waits for the lock behind it is accepted and stored nowhere', async () => {
    const { id, ann, bob, from, to } = await direct()
    await east.send(to, sendTo(id, [from]))
    const before = await messagesOf(bob)
    const held = await lockOf(bob)
    const blocking = blocks().block(bob.userId, ann.userId)
    await held.waiting(1)
    const send = west.send(from, sendTo(id, [to]))
    await held.waiting(2)
    await held.release()
    await blocking
    expect(await send).toMatchObject({ duplicate: false, skipped: [], committed: [] })
    expect(await messagesOf(bob)).toEqual(before)
  })

  it('what was before it arrives', async () => {
    const { id, ann, bob, from, to } = await direct()
    const held = await lockOf(bob)
    const send = west.send(from, sendTo(id, [to]))
    await held.waiting(1)
    const blocking = blocks().block(bob.userId, ann.userId)
    await held.waiting(2)
    await held.release()
    await blocking
    expect(await messagesOf(bob)).toContain((await send).messageId)
  })

  it('a blocked sender waits for the locks he would wait for, and takes the tenth message like any other', async () => {
    const { id, ann, bob, from, to } = await direct()
    await blocks().block(bob.userId, ann.userId)
    const held = await lockOf(bob)
    const send = west.send(from, sendTo(id, [to]))
    await held.waiting(1)
    await held.release()
    await send
    for (let i = 1; i < STRANGER_MAX_MESSAGES; i++) await west.send(from, sendTo(id, [to]))
    expect((await refused(west.send(from, sendTo(id, [to])))).code).toBe('FORBIDDEN')
    expect((await messagesOf(bob)).length).toBe(1)
  })
})

it('a batch of two rosters of one conversation is decided on the newer one (I8)', async () => {
  const [ann, bob] = (await populate(db.database.sql, 2)) as [Person, Person]
  const id = await converse(db.database.sql, [ann, bob])
  await west.rosters.load(id)
  // Both lie in one batch: what the first was decided on is gone when the second comes.
  const filler = await lockOf(ann)
  const first = west.send(ann.devices[0]!, sendTo(id, [bob.devices[0]!]))
  await filler.waiting(1)
  const second = west.send(ann.devices[0]!, sendTo(id, [bob.devices[0]!]))
  await blocks().block(bob.userId, ann.userId)
  west.rosters.drop(id)
  await west.rosters.load(id)
  const third = west.send(ann.devices[0]!, sendTo(id, [bob.devices[0]!]))
  await filler.release()
  await Promise.all([first, second, third])
  expect(west.batches.slice(-2)).toEqual([1, 2])
  expect((await second).committed).toEqual([])
  expect(await messagesOf(bob)).toEqual([])
})
