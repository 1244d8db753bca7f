// [H-8]: conversations as they are read: their shape, the list, and who is told nothing of them.
import { randomUUID } from 'node:crypto'
import { type Check, hold, same } from '../check.ts'
import type { Device } from '../device.ts'
import { type Answer, ok, refused } from '../http.ts'
import type { Kit } from '../world.ts'
import { at, trio } from './groups.ts'

export const conversationChecks: Check<Kit>[] = [
  {
    clauses: ['H-8', 'E-2.2'],
    title:
      'a conversation the caller was never in is NOT_FOUND like one that does not exist; a former member’s is FORBIDDEN',
    async run(kit) {
      const { alice, bob, carol, group } = await trio(kit)
      const eve = await kit.user()
      const requests = (id: string): [string, (by: Device) => Promise<Answer>][] => [
        ['GET', (by) => by.get(at(id))],
        ['PATCH', (by) => by.patch(at(id), { name: 'x' })],
        ['POST members', (by) => by.post(`${at(id)}/members`, { user_ids: [eve.userId] })],
        ['PATCH member', (by) => by.patch(`${at(id)}/members/${carol.userId}`, { role: 'admin' })],
        ['DELETE member', (by) => by.delete(`${at(id)}/members/${carol.userId}`)],
        ['POST archive', (by) => by.post(`${at(id)}/archive`)],
      ]
      const none = requests(randomUUID())
      for (const [index, [what, ask]] of requests(group).entries()) {
        const foreign = refused(await ask(eve), 'NOT_FOUND', `${what} by a stranger`)
        same(foreign.text, (await none[index]![1](eve)).text, `for ${what}, as the whole answer of both`)
      }
      ok(await alice.delete(`${at(group)}/members/${bob.userId}`), 200)
      for (const [what, ask] of requests(group)) refused(await ask(bob), 'FORBIDDEN', `${what} by a former member`)
      return 'six requests: NOT_FOUND word for word, FORBIDDEN for a former member'
    },
  },
  {
    clauses: ['H-8', 'H-8.4', 'H-8.6'],
    title: 'the shape of a conversation; muted_until_ms is the caller’s own; other privacy modes are refused',
    async run(kit) {
      const { alice, bob, carol, group } = await trio(kit, {
        name: 'hill',
        description: 'walks',
        privacy_mode: 'strict_e2e',
      })
      refused(
        await alice.post('/v1/conversations', {
          kind: 'group',
          user_ids: [bob.userId, carol.userId],
          privacy_mode: 'search_enabled',
        }),
        'INVALID_REQUEST',
        'another privacy mode',
      )
      const mutedUntil = Date.now() + 3_600_000
      ok(await bob.patch(at(group), { muted_until_ms: mutedUntil }), 200)
      refused(
        await alice.patch(at(group), { muted_until_ms: mutedUntil, name: 'x' }),
        'INVALID_REQUEST',
        'muting and renaming at once',
      )
      const [mine, his] = [(await alice.get(at(group))).body, (await bob.get(at(group))).body]
      same(
        [mine.muted_until_ms, his.muted_until_ms, mine.revision],
        [null, mutedUntil, 1],
        'as both views and the revision',
      )
      ok(await bob.patch(at(group), { muted_until_ms: null }), 200)
      same((await bob.get(at(group))).body.muted_until_ms, null, 'after null')
      const {
        conversation_id,
        kind,
        privacy_mode,
        name,
        description,
        role,
        archived_at_ms,
        peer_user_id,
        has_more_changes,
      } = mine
      same(
        {
          conversation_id,
          kind,
          privacy_mode,
          name,
          description,
          role,
          archived_at_ms,
          peer_user_id,
          has_more_changes,
        },
        {
          conversation_id: group,
          kind: 'group',
          privacy_mode: 'strict_e2e',
          name: 'hill',
          description: 'walks',
          role: 'admin',
          archived_at_ms: null,
          peer_user_id: null,
          has_more_changes: false,
        },
        'as conversation',
      )
      same(his.role, 'member', 'as role of the other')
      hold(mine.created_at_ms > 0 && mine.changes[0].changed_at_ms > 0, 'times', mine)
      same(
        [mine.changes[0].change, mine.changes[0].actor_user_id, mine.changes[0].role],
        ['created', alice.userId, null],
        'as first link',
      )
      return 'all fields; muting is seen by one and makes no link'
    },
  },
  {
    clauses: ['H-8.5'],
    title: 'the list is newest first, in pages that neither repeat nor hide',
    async run(kit) {
      const [alice, ...others] = (await kit.users(6)) as [Device, ...Device[]]
      const made: string[] = []
      for (const other of others) made.unshift(await alice.direct(other))
      const seen: string[] = []
      let cursor = ''
      for (let pages = 0; pages < 1000; pages++) {
        const { body } = ok(
          await alice.get(`/v1/conversations?limit=2${cursor && `&cursor=${encodeURIComponent(cursor)}`}`),
          200,
        )
        seen.push(...body.conversations.map((each: { conversation_id: string }) => each.conversation_id))
        if (pages === 0) {
          hold(
            !('members' in body.conversations[0]) && !('changes' in body.conversations[0]),
            'no members and no changes in the list',
            body.conversations[0],
          )
          // Between two pages: the new one is newer than the cursor and is not in the rest.
          ok(await alice.post(`${at(made[4]!)}/archive`), 200)
        }
        if (body.next_cursor === null || made.every((id) => seen.includes(id))) break
        cursor = body.next_cursor
      }
      same(seen.slice(0, 5), made, 'as the first five')
      same(new Set(seen).size, seen.length, 'as count of different ones')
      refused(await alice.get('/v1/conversations?limit=201'), 'INVALID_REQUEST', 'limit 201')
      return 'five in pages of two, newest first, an archived one included'
    },
  },
  {
    clauses: ['L-1', 'H-8'],
    title: 'names of 128 and descriptions of 1,024 characters, no longer ones',
    async run(kit) {
      const { alice, group } = await trio(kit)
      ok(await alice.patch(at(group), { name: 'é'.repeat(128), description: 'd'.repeat(1024) }), 200)
      refused(await alice.patch(at(group), { name: 'n'.repeat(129) }), 'INVALID_REQUEST', 'a name of 129')
      refused(
        await alice.patch(at(group), { description: 'd'.repeat(1025) }),
        'INVALID_REQUEST',
        'a description of 1,025',
      )
      return '128 and 1,024 taken, 129 and 1,025 refused'
    },
  },
]
