// What is read of conversations, and by whom: strangers, the chain, the list, who shares one with whom. [V-2] [H-8] I13
import { randomUUID } from 'node:crypto'
import { afterAll, describe, expect, test } from 'vitest'
import type { Uuid } from '../../proto/ids.ts'
import { by, makeUsers, NOW, openGroups, refusal, refusalCode } from '../support/conversations.ts'
import { testDatabase } from '../support/database.ts'

const db = await testDatabase()
afterAll(() => db.close())
const { conversations, ann, bob, eve, group, read } = await openGroups(db.database.sql)

describe('what a stranger learns', () => {
  test('nothing: an unknown conversation and one he was never in answer alike, whatever he asks', async () => {
    const asks = (id: Uuid) => [
      read(id, eve),
      conversations.addMembers(id, by(eve), [eve]),
      conversations.removeMember(id, by(eve), ann),
      conversations.removeMember(id, by(eve), eve),
      conversations.setRole(id, by(eve), eve, 'admin'),
      conversations.describe(id, by(eve, { expectedRevision: 9 }), { name: 'x' }),
      conversations.archive(id, by(eve)),
      conversations.mute(id, eve, NOW),
    ]
    const archived = await group()
    await conversations.archive(archived, by(ann))
    for (const id of [randomUUID(), await group(), archived]) {
      expect(await Promise.all(asks(id).map(refusal))).toEqual(Array(8).fill('NOT_FOUND: no such conversation'))
      expect(await conversations.membershipOf(id, eve)).toBe('none')
    }
  })

  test('not even by waiting for a lock', async () => {
    const id = await group()
    await db.database.sql.begin(async (tx) => {
      await tx`set local idle_in_transaction_session_timeout = 0`
      await tx`select from conversations where conversation_id = ${id} for update`
      expect(await refusalCode(conversations.archive(id, by(eve)))).toBe('NOT_FOUND')
    })
  })
})

describe('the chain', () => {
  test('keeps each signed change and gives it back in pages', async () => {
    const id = await group()
    for (let i = 2; i <= 6; i++)
      await conversations.describe(id, by(ann, { signedChange: new Uint8Array([i, 0, 255]) }), { name: `n${i}` })
    const first = await conversations.read(id, bob, { afterRevision: 0, limit: 4 })
    expect(first).toMatchObject({ revision: 6, hasMoreChanges: true })
    expect(first.changes.map((each) => [each.revision, [...each.signedChange]])).toEqual([
      [1, []],
      [2, [2, 0, 255]],
      [3, [3, 0, 255]],
      [4, [4, 0, 255]],
    ])
    const rest = await conversations.read(id, bob, { afterRevision: 4, limit: 4 })
    expect(rest.changes.map((each) => each.revision)).toEqual([5, 6])
    expect(rest.hasMoreChanges).toBe(false)
    expect(await conversations.read(id, bob, { afterRevision: 6, limit: 4 })).toMatchObject({
      changes: [],
      hasMoreChanges: false,
    })
  })

  test('does not fork: a change made on an older revision is refused', async () => {
    const id = await group()
    await conversations.describe(id, by(ann, { expectedRevision: 1 }), { name: 'two' })
    expect(await refusal(conversations.describe(id, by(ann, { expectedRevision: 1 }), { name: 'fork' }))).toBe(
      'CONFLICT: expected_revision is 1, the chain is at 2',
    )
    expect(await read(id)).toMatchObject({ name: 'two', revision: 2 })
  })
})

describe('the list', () => {
  test('newest creation first, in pages that changes do not shift', async () => {
    const [me, other, third] = (await makeUsers(db.database.sql, 3)) as [Uuid, Uuid, Uuid]
    const made: Uuid[] = []
    // pairs of equal creation times, so that ids decide
    for (let i = 0; i < 7; i++) {
      const request = by(me, { nowMs: NOW + Math.floor(i / 2) })
      const text = { userIds: [other, third], name: `g${i}`, description: '' }
      made.push((await conversations.createGroup(request, text)).conversationId)
    }
    const all = (await conversations.list(me, { cursor: null, limit: 50 })).conversations
    expect(all.map((each) => each.conversationId).sort()).toEqual([...made].sort())
    expect(all.map((each) => each.createdAtMs)).toEqual([...all.map((each) => each.createdAtMs)].sort((a, b) => b - a))

    const seen: Uuid[] = []
    let cursor: Uuid | null = null
    do {
      const listed: Awaited<ReturnType<typeof conversations.list>> = await conversations.list(me, { cursor, limit: 2 })
      seen.push(...listed.conversations.map((each) => each.conversationId))
      cursor = listed.nextCursor
      // activity, a newer group and the cursor's own end must not move what is still to come
      await conversations.createGroup(by(me, { nowMs: NOW + 1000 }), {
        userIds: [other, third],
        name: '',
        description: '',
      })
      await conversations.describe(made[0]!, by(me), { name: 'busy' })
      if (seen.length === 2) {
        await conversations.setRole(cursor!, by(me), other, 'admin')
        await conversations.removeMember(cursor!, by(me), me)
      }
    } while (cursor)
    expect(seen).toEqual(all.map((each) => each.conversationId))
  })

  test("holds only what one is in, and one's own role and mute", async () => {
    const [me] = (await makeUsers(db.database.sql, 1)) as [Uuid]
    const id = await group([me, bob])
    const left = await group([me, bob])
    await conversations.removeMember(left, by(me), me)
    const direct = await conversations.createDirect(by(bob, { nowMs: NOW - 1 }), me)
    await conversations.mute(id, me, NOW + 9)
    expect(await conversations.list(me, { cursor: null, limit: 2 })).toMatchObject({
      conversations: [
        { conversationId: id, role: 'member', mutedUntilMs: NOW + 9, peerUserId: null, name: 'hill' },
        { conversationId: direct.conversationId, kind: 'direct', peerUserId: bob, mutedUntilMs: null },
      ],
      nextCursor: null,
    })
    expect(await conversations.list(randomUUID(), { cursor: null, limit: 2 })).toEqual({
      conversations: [],
      nextCursor: null,
    })
  })

  test("a cursor that is another's is refused like one that does not exist", async () => {
    const foreign = refusal(conversations.list(eve, { cursor: await group(), limit: 2 }))
    expect(await foreign).toBe(await refusal(conversations.list(eve, { cursor: randomUUID(), limit: 2 })))
    expect(await foreign).toContain('INVALID_REQUEST')
  })
})

test('sharing means being active together in a conversation that lives, in which the other one took part', async () => {
  const users = (await makeUsers(db.database.sql, 6)) as [Uuid, Uuid, Uuid, Uuid, Uuid, Uuid]
  const [me, friend, left, archivedOnly, stranger, pen] = users
  const { conversationId: id } = await conversations.createGroup(by(me), {
    userIds: [friend, left],
    name: '',
    description: '',
  })
  await conversations.removeMember(id, by(left), left)
  const direct = await conversations.createDirect(by(me), archivedOnly)
  await conversations.archive(direct.conversationId, by(me))
  await conversations.createDirect(by(pen), me)
  const shared = await conversations.sharesConversation(me, [...users, randomUUID()])
  // A friend who was only added has agreed to nothing; who wrote or changed something has.
  expect(shared).toEqual(new Set([me, pen]))
  expect(await conversations.sharesConversation(friend, [me])).toEqual(new Set([me]))
  expect(await conversations.sharesConversation(stranger, [me])).toEqual(new Set())
  expect(await conversations.sharesConversation(me, [])).toEqual(new Set())
})
