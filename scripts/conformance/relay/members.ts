// [V-3] [H-8.3]: who is in a conversation, and who may change that.
import { randomUUID } from 'node:crypto'
import { type Check, hold, same } from '../check.ts'
import type { Device } from '../device.ts'
import { type Answer, codeOf, ok, refused, wordOf } from '../http.ts'
import type { Kit } from '../world.ts'
import { at, rolesIn, sorted, trio } from './groups.ts'

export const memberChecks: Check<Kit>[] = [
  {
    clauses: ['V-3', 'V-3.3'],
    title: 'a pair has one direct conversation, which cannot be left or changed; archived, another may begin',
    async run(kit) {
      const [alice, bob, carol] = (await kit.users(3)) as [Device, Device, Device]
      const first = await alice.post('/v1/conversations', { kind: 'direct', user_id: bob.userId })
      same(first.status, 201, 'at first, HTTP')
      const id: string = first.body.conversation_id
      alice.conversations.push(id)
      const again = await bob.post('/v1/conversations', { kind: 'direct', user_id: alice.userId })
      same([again.status, again.body.conversation_id], [200, id], 'from the other side')
      ok(await bob.post(`${at(id)}/accept`), 200)
      const { body } = await alice.get(at(id))
      same(
        [body.kind, Object.keys(rolesIn({ body } as Answer)).sort(), body.peer_user_id],
        ['direct', [alice.userId, bob.userId].sort(), bob.userId],
        'as kind, members and peer',
      )
      hold(!Object.values(rolesIn({ body } as Answer)).includes('admin'), 'no admin', body.members)
      const tries = [
        await alice.delete(`${at(id)}/members/${alice.userId}`),
        await alice.delete(`${at(id)}/members/${bob.userId}`),
        await alice.post(`${at(id)}/members`, { user_ids: [carol.userId] }),
        await alice.patch(at(id), { name: 'us' }),
        await alice.patch(`${at(id)}/members/${bob.userId}`, { role: 'admin' }),
      ]
      for (const each of tries) hold(each.status >= 400 && each.status < 500, 'a refusal', wordOf(each))
      same((await alice.get(at(id))).body.revision, 1, 'after five changes that cannot be, as revision')
      ok(await bob.post(`${at(id)}/archive`), 200)
      const next = await alice.post('/v1/conversations', { kind: 'direct', user_id: bob.userId })
      same(next.status, 201, 'after it was archived, HTTP')
      hold(next.body.conversation_id !== id, 'another conversation', next.body)
      alice.conversations.push(next.body.conversation_id)
      refused(
        await alice.post('/v1/conversations', { kind: 'direct', user_id: alice.userId }),
        'INVALID_REQUEST',
        'oneself',
      )
      return `one for both sides; ${tries.map(codeOf).join(', ')}; a new one after archiving`
    },
  },
  {
    clauses: ['V-3', 'L-1'],
    title: 'a group has at least 3 and at most so many members as Hello says',
    async run(kit) {
      const [alice, bob] = (await kit.users(2)) as [Device, Device]
      refused(
        await alice.post('/v1/conversations', { kind: 'group', user_ids: [bob.userId] }),
        'INVALID_REQUEST',
        'a group of two',
      )
      const most = (await alice.connect()).hello.limits?.groupMembers ?? 500
      const many = [bob.userId, ...Array.from({ length: most }, () => randomUUID())]
      refused(
        await alice.post('/v1/conversations', { kind: 'group', user_ids: many }),
        'INVALID_REQUEST',
        `a group of ${most + 1}`,
      )
      return `2 and ${most + 1} members refused`
    },
  },
  {
    clauses: ['V-3.1'],
    title: 'only admins change a group; every member may leave it',
    async run(kit) {
      const { alice, bob, carol, group } = await trio(kit)
      const dave = await kit.user()
      const tries = [
        await bob.post(`${at(group)}/members`, { user_ids: [dave.userId] }),
        await bob.delete(`${at(group)}/members/${carol.userId}`),
        await bob.patch(`${at(group)}/members/${bob.userId}`, { role: 'admin' }),
        await bob.patch(at(group), { name: 'mine' }),
        await bob.post(`${at(group)}/archive`),
      ]
      for (const each of tries) refused(each, 'FORBIDDEN', 'a change by a member')
      same(
        rolesIn(await alice.get(at(group))),
        sorted([
          [alice.userId, 'admin'],
          [bob.userId, 'member'],
          [carol.userId, 'member'],
        ]),
        'as roles',
      )
      ok(await bob.delete(`${at(group)}/members/${bob.userId}`), 200)
      same(Object.keys(rolesIn(await alice.get(at(group)))).length, 2, 'after one left, as count of members')
      return 'five FORBIDDEN for a member, who then left'
    },
  },
  {
    clauses: ['V-3.2'],
    title: 'the last admin cannot leave or step down while others remain',
    async run(kit) {
      const { alice, bob, group } = await trio(kit)
      refused(await alice.delete(`${at(group)}/members/${alice.userId}`), 'CONFLICT', 'leaving as last admin')
      refused(
        await alice.patch(`${at(group)}/members/${alice.userId}`, { role: 'member' }),
        'CONFLICT',
        'stepping down as last admin',
      )
      ok(await alice.patch(`${at(group)}/members/${bob.userId}`, { role: 'admin' }), 200)
      ok(await alice.delete(`${at(group)}/members/${alice.userId}`), 200)
      const roles = rolesIn(await bob.get(at(group)))
      same(roles[bob.userId], 'admin', 'as role of the one who stayed')
      ok(await bob.post(`${at(group)}/archive`), 200)
      return 'CONFLICT twice; with another admin it was allowed'
    },
  },
  {
    clauses: ['V-3.4'],
    title: 'archiving is final, and members can still read',
    async run(kit) {
      const { alice, bob, group } = await trio(kit)
      ok(await alice.post(`${at(group)}/archive`), 200)
      refused(await alice.patch(at(group), { name: 'x' }), 'FORBIDDEN', 'a change of an archived group')
      refused(await alice.post(`${at(group)}/archive`), 'FORBIDDEN', 'archiving it again')
      const { body } = ok(await bob.get(at(group)), 200)
      hold(body.archived_at_ms > 0, 'archived_at_ms', body.archived_at_ms)
      return 'FORBIDDEN for changes; a member read archived_at_ms'
    },
  },
  {
    clauses: ['V-3.5', 'H-8.3'],
    title:
      'who was removed may be added again, as a member; repeated changes are CONFLICT, unknown users INVALID_REQUEST',
    async run(kit) {
      const { alice, bob, carol, group } = await trio(kit)
      await alice.direct(bob)
      ok(await alice.patch(`${at(group)}/members/${bob.userId}`, { role: 'admin' }), 200)
      refused(
        await alice.patch(`${at(group)}/members/${bob.userId}`, { role: 'admin' }),
        'CONFLICT',
        'a role given again',
      )
      refused(
        await alice.post(`${at(group)}/members`, { user_ids: [carol.userId] }),
        'CONFLICT',
        'a member added again',
      )
      const nobody = randomUUID()
      const unknown = refused(
        await alice.post(`${at(group)}/members`, { user_ids: [nobody] }),
        'INVALID_REQUEST',
        'a user who does not exist',
      )
      hold(unknown.text.includes(nobody), 'the unknown id to be named', unknown.text)
      refused(await alice.delete(`${at(group)}/members/${nobody}`), 'NOT_FOUND', 'removing one who does not exist')
      const stranger = await kit.user()
      refused(
        await alice.delete(`${at(group)}/members/${stranger.userId}`),
        'NOT_FOUND',
        'removing one who is no member',
      )
      ok(await alice.delete(`${at(group)}/members/${bob.userId}`), 200)
      ok(await alice.post(`${at(group)}/members`, { user_ids: [bob.userId] }), 200)
      const { body } = await alice.get(at(group))
      same([rolesIn({ body } as Answer)[bob.userId], body.revision], ['member', 4], 'as role and revision')
      return 'back as member; the refused ones made no link'
    },
  },
]
