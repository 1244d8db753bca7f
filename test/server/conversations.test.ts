// Who may do what to a conversation, and what it does. F1, F2, F5; [V-2] [V-3]
import { randomUUID } from 'node:crypto'
import { afterAll, describe, expect, test } from 'vitest'
import type { Uuid } from '../../proto/ids.ts'
import { by, makeUsers, NOW, openGroups, refusal, refusalCode } from '../support/conversations.ts'
import { testDatabase } from '../support/database.ts'

const db = await testDatabase()
afterAll(() => db.close())
const { conversations, changed, ann, bob, cy, eve, group, read, roles } = await openGroups(db.database.sql)

describe('direct', () => {
  test('both of a pair get one conversation, whoever asks', async () => {
    const [one, two] = (await makeUsers(db.database.sql, 2)) as [Uuid, Uuid]
    const first = await conversations.createDirect(by(one), two)
    expect(first).toMatchObject({ revision: 1, created: true })
    expect(await conversations.createDirect(by(two), one)).toEqual({ ...first, created: false })
    expect(await conversations.createDirect(by(one), two)).toEqual({ ...first, created: false })
    const view = await read(first.conversationId, two)
    expect(view).toMatchObject({ kind: 'direct', privacyMode: 'strict_e2e', name: '', peerUserId: one, role: 'member' })
    expect(view.changes).toMatchObject([
      { revision: 1, change: 'CREATED', actorUserId: one, subjectUserIds: [one, two], role: null },
    ])
  })

  test('with oneself or with nobody is refused and leaves nothing', async () => {
    const nobody = randomUUID()
    expect(await refusalCode(conversations.createDirect(by(ann), ann))).toBe('INVALID_REQUEST')
    expect(await refusal(conversations.createDirect(by(ann), nobody))).toBe(
      `INVALID_REQUEST: user ${nobody} does not exist`,
    )
    expect(await db.database.sql`select from conversations where ${nobody} in (low_user, high_user)`).toHaveLength(0)
  })

  test('has no admins, no name and no way out but the archive, after which the pair may begin another', async () => {
    const [one, two] = (await makeUsers(db.database.sql, 2)) as [Uuid, Uuid]
    const { conversationId: id } = await conversations.createDirect(by(one), two)
    const refused = [
      conversations.addMembers(id, by(one), [eve]),
      conversations.removeMember(id, by(one), two),
      conversations.removeMember(id, by(one), one),
      conversations.setRole(id, by(one), two, 'admin'),
      conversations.describe(id, by(one), { name: 'us' }),
    ]
    expect(await Promise.all(refused.map(refusalCode))).toEqual(Array(5).fill('INVALID_REQUEST'))
    await conversations.archive(id, by(two))
    expect((await read(id, one)).archivedAtMs).toBe(NOW)
    const next = await conversations.createDirect(by(one), two)
    expect(next.created).toBe(true)
    expect(next.conversationId).not.toBe(id)
  })
})

describe('making a group', () => {
  test('its creator is admin, the others are members, the chain begins', async () => {
    const id = await group()
    expect(await roles(id)).toEqual({ [ann]: 'admin', [bob]: 'member', [cy]: 'member' })
    const view = await read(id, bob)
    expect(view).toMatchObject({
      kind: 'group',
      privacyMode: 'strict_e2e',
      name: 'hill',
      description: 'walks',
      createdAtMs: NOW,
      archivedAtMs: null,
      revision: 1,
      role: 'member',
      peerUserId: null,
      hasMoreChanges: false,
    })
    expect(view.changes).toMatchObject([
      {
        revision: 1,
        change: 'CREATED',
        actorUserId: ann,
        subjectUserIds: [ann, bob, cy],
        role: null,
        changedAtMs: NOW,
      },
    ])
    expect(changed.at(-1)).toBe(id)
  })

  test('names the creator among the others or not', async () => {
    expect(await roles(await group([cy, ann, bob]))).toEqual({ [ann]: 'admin', [bob]: 'member', [cy]: 'member' })
  })

  test('refuses too few, too many, an id twice and a user who does not exist', async () => {
    const nobody = randomUUID()
    const many = Array.from({ length: 500 }, () => randomUUID())
    const before = await db.database.sql`select from conversations`
    const attempt = (userIds: Uuid[]) => refusal(group(userIds))
    expect(await attempt([])).toBe('INVALID_REQUEST: a group has 3 to 500 members, with its creator; user_ids makes 1')
    expect(await attempt([bob, ann])).toContain('user_ids makes 2')
    expect(await attempt(many)).toContain(
      'INVALID_REQUEST: a group has 3 to 500 members, with its creator; user_ids makes 501',
    )
    expect(await attempt([bob, cy, bob])).toBe(`INVALID_REQUEST: user_ids names ${bob} twice`)
    expect(await attempt([bob, cy, nobody])).toBe(`INVALID_REQUEST: user ${nobody} does not exist`)
    expect(await db.database.sql`select from conversations`).toHaveLength(before.length)
  })

  test('takes 500 members, and no 501st', async () => {
    const crowd = await makeUsers(db.database.sql, 500, 2)
    const { conversationId: id } = await conversations.createGroup(by(crowd[0]!), {
      userIds: crowd.slice(1),
      name: '',
      description: '',
    })
    const view = await read(id, crowd[499])
    expect(view.members.map((each) => each.userId)).toEqual([...crowd].sort())
    expect(await refusal(conversations.addMembers(id, by(crowd[0]!), [eve]))).toBe(
      'INVALID_REQUEST: a group has at most 500 members; user_ids makes 501',
    )
    const [count] = await db.database.sql`
      select count(distinct device_key) as devices from message_deliveries_waiting join messages using (message_id)
      where conversation_id = ${id}`
    expect(count).toEqual({ devices: 1000 })
  })
})

describe('members and roles', () => {
  test('only admins do what admins do', async () => {
    const id = await group()
    const refused = [
      conversations.addMembers(id, by(bob), [eve]),
      conversations.removeMember(id, by(bob), cy),
      conversations.setRole(id, by(bob), bob, 'admin'),
      conversations.describe(id, by(bob), { name: 'mine' }),
      conversations.archive(id, by(bob)),
    ]
    expect(await Promise.all(refused.map(refusalCode))).toEqual(Array(5).fill('FORBIDDEN'))
    expect((await read(id)).revision).toBe(1)
  })

  test('an added member is a member, sees the whole chain, and may be made admin', async () => {
    const id = await group()
    expect(await conversations.addMembers(id, by(ann), [eve])).toEqual({ conversationId: id, revision: 2 })
    await conversations.setRole(id, by(ann), eve, 'admin')
    expect((await roles(id, eve))[eve]).toBe('admin')
    expect((await read(id, eve)).changes).toMatchObject([
      { change: 'CREATED' },
      { change: 'MEMBERS_ADDED', subjectUserIds: [eve], role: 'member' },
      { change: 'ROLE_CHANGED', subjectUserIds: [eve], role: 'admin' },
    ])
    await conversations.setRole(id, by(eve), ann, 'member')
    expect((await roles(id))[ann]).toBe('member')
  })

  test('adding refuses nobody, somebody twice, members, and unknown users', async () => {
    const id = await group()
    const nobody = randomUUID()
    const attempt = (userIds: Uuid[]) => refusal(conversations.addMembers(id, by(ann), userIds))
    expect(await attempt([])).toBe('INVALID_REQUEST: user_ids is empty')
    expect(await attempt([eve, eve])).toBe(`INVALID_REQUEST: user_ids names ${eve} twice`)
    expect(await attempt([eve, bob])).toBe(`CONFLICT: user ${bob} is a member already`)
    expect(await attempt([eve, nobody])).toBe(`INVALID_REQUEST: user ${nobody} does not exist`)
    expect(await roles(id)).not.toHaveProperty(eve)
  })

  test('a removed member is out at once, may come back, and comes back as a member', async () => {
    const id = await group()
    await conversations.setRole(id, by(ann), bob, 'admin')
    await conversations.removeMember(id, by(ann), bob)
    expect(await conversations.membershipOf(id, bob)).toBe('former')
    expect(await refusalCode(read(id, bob))).toBe('FORBIDDEN')
    expect(await refusalCode(conversations.addMembers(id, by(bob), [eve]))).toBe('FORBIDDEN')
    expect((await read(id)).changes.at(-1)).toMatchObject({
      change: 'MEMBER_REMOVED',
      subjectUserIds: [bob],
      role: null,
    })
    await conversations.addMembers(id, by(ann, { nowMs: NOW + 5 }), [bob])
    expect((await read(id, bob)).members.find((each) => each.userId === bob)).toEqual({
      userId: bob,
      role: 'member',
      state: 'active',
      joinedAtMs: NOW + 5,
    })
  })

  test('removing or promoting someone who is not a member has one answer, known user or not', async () => {
    const id = await group()
    for (const who of [eve, randomUUID()]) {
      expect(await refusal(conversations.removeMember(id, by(ann), who))).toBe(`NOT_FOUND: user ${who} is not a member`)
      expect(await refusal(conversations.setRole(id, by(ann), who, 'admin'))).toBe(
        `NOT_FOUND: user ${who} is not a member`,
      )
    }
  })

  test('the last admin neither leaves nor steps down while others remain; the last member leaves', async () => {
    const id = await group()
    expect(await refusalCode(conversations.removeMember(id, by(ann), ann))).toBe('CONFLICT')
    expect(await refusalCode(conversations.setRole(id, by(ann), ann, 'member'))).toBe('CONFLICT')
    await conversations.removeMember(id, by(bob), bob)
    await conversations.removeMember(id, by(ann), cy)
    expect(await roles(id)).toEqual({ [ann]: 'admin' })
    expect(await conversations.removeMember(id, by(ann), ann)).toEqual({ conversationId: id, revision: 4 })
    expect(await conversations.membershipOf(id, ann)).toBe('former')
  })

  test('with a second admin the first may leave', async () => {
    const id = await group()
    await conversations.setRole(id, by(ann), bob, 'admin')
    await conversations.removeMember(id, by(ann), ann)
    expect(await roles(id, bob)).toEqual({ [bob]: 'admin', [cy]: 'member' })
    expect((await read(id, bob)).changes.at(-1)).toMatchObject({
      change: 'MEMBER_LEFT',
      actorUserId: ann,
      subjectUserIds: [ann],
    })
  })

  test('a role one has already is a conflict, not a change', async () => {
    const id = await group()
    expect(await refusal(conversations.setRole(id, by(ann), bob, 'member'))).toBe(
      `CONFLICT: user ${bob} has role member already`,
    )
    expect((await read(id)).revision).toBe(1)
  })
})

describe('name, archive, mute', () => {
  test('what is absent stays, what is empty becomes empty', async () => {
    const id = await group()
    await conversations.describe(id, by(ann), { description: '' })
    expect(await read(id)).toMatchObject({ name: 'hill', description: '', revision: 2 })
    await conversations.describe(id, by(ann), { name: 'sea' })
    expect(await read(id)).toMatchObject({ name: 'sea', description: '', revision: 3 })
  })

  test('an archived group is read by its members and changed by nobody', async () => {
    const id = await group()
    await conversations.archive(id, by(ann))
    expect((await read(id, bob)).archivedAtMs).toBe(NOW)
    expect(await conversations.membershipOf(id, bob)).toBe('archived')
    const refused = [
      conversations.addMembers(id, by(ann), [eve]),
      conversations.removeMember(id, by(ann), bob),
      conversations.removeMember(id, by(bob), bob),
      conversations.setRole(id, by(ann), bob, 'admin'),
      conversations.describe(id, by(ann), { name: 'new' }),
      conversations.archive(id, by(ann)),
      conversations.mute(id, bob, NOW),
    ]
    expect(await Promise.all(refused.map(refusal))).toEqual(Array(7).fill('FORBIDDEN: this conversation is archived'))
  })

  test('muting is private: no link, no event, nobody else sees it', async () => {
    const id = await group()
    const queued = () => db.database.sql`select from message_deliveries_waiting`
    const before = (await queued()).length
    expect(await conversations.mute(id, bob, NOW + 60_000)).toEqual({ conversationId: id, revision: 1 })
    expect((await read(id, bob)).mutedUntilMs).toBe(NOW + 60_000)
    expect(JSON.stringify(await read(id, ann))).not.toContain(String(NOW + 60_000))
    expect(await queued()).toHaveLength(before)
    await conversations.mute(id, bob, null)
    expect((await read(id, bob)).mutedUntilMs).toBeNull()
  })
})
