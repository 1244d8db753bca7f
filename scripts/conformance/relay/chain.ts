// [V-2] [H-8.1] [H-8.2]: the chain in which every change of a conversation is told.
import { randomBytes } from 'node:crypto'
import { uuidFromBytes } from '../../../proto/ids.ts'
import { base64, base64url } from '../bytes.ts'
import { type Check, same } from '../check.ts'
import type { Device } from '../device.ts'
import { type Answer, ok, refused } from '../http.ts'
import type { Envelope, Socket } from '../socket.ts'
import type { Kit } from '../world.ts'
import { at, trio } from './groups.ts'

/** The next change of that conversation a device is told. */
async function changed(socket: Socket): Promise<{
  envelope: Envelope
  change: number
  revision: number
  actor: string
  subjects: string[]
  role: number
  signed: Uint8Array
}> {
  const frame = await socket.take(
    (each) => each.envelope?.systemEvent?.conversationChanged != null,
    'a ConversationChanged',
  )
  const { change, revision, actorUserId, subjectUserIds, role, signedChange } =
    frame.envelope!.systemEvent!.conversationChanged!
  return {
    ...{ envelope: frame.envelope!, change: change ?? 0, revision: revision ?? 0, role: role ?? 0 },
    ...{
      actor: uuidFromBytes(actorUserId!),
      subjects: (subjectUserIds ?? []).map(uuidFromBytes),
      signed: signedChange ?? new Uint8Array(0),
    },
  }
}

/** @property role absent = the text leaves it open. */
type Expected = { change: number; actor: string; subjects: string[]; role?: number }

const [CREATED, ADDED, REMOVED, LEFT, ROLE_CHANGED, UPDATED, ARCHIVED] = [1, 2, 3, 4, 5, 6, 7]
const ADMIN = 2

export const chainChecks: Check<Kit>[] = [
  {
    clauses: ['V-2', 'V-2.1', 'V-2.2', 'H-8.2'],
    title: 'every change is a link of the chain, told to every device of every member and of who was removed',
    async run(kit) {
      const [alice, bob, carol, dave] = (await kit.users(4)) as [Device, Device, Device, Device]
      const laptop = await bob.link()
      // Whoever does not know the admin would be invited only. [V-6.4]
      for (const each of [bob, carol, dave]) await alice.direct(each)
      const sockets = await Promise.all([alice, bob, laptop, carol].map((each) => each.live()))
      const [a, b, l, c] = sockets as [Socket, Socket, Socket, Socket]
      const d = await dave.live()
      let revision = 0
      const seen: string[] = []
      const signed = () => randomBytes(20)
      const told = async (among: Socket[], answer: Answer, expected: Expected, signedChange: Uint8Array) => {
        revision++
        same(ok(answer, [200, 201]).body.revision, revision, 'in the answer, as revision')
        for (const socket of among) {
          const event = await changed(socket)
          const { change, actor, subjects, role = event.role } = expected
          same(
            [event.change, event.actor, event.subjects, event.role, event.revision, event.signed],
            [change, actor, subjects, role, revision, signedChange],
            'as change, actor, subjects, role, revision and signed_change',
          )
        }
        seen.push(String(expected.change))
      }
      const event = (change: number, subjects: string[], role?: number): Expected => ({
        ...{ change, subjects, actor: alice.userId, ...(role && { role }) },
      })
      const json = (bytes: Uint8Array) => ({ signed_change: base64(bytes) })
      let s = signed()
      const created = await alice.post('/v1/conversations', {
        kind: 'group',
        user_ids: [bob.userId, carol.userId],
        ...json(s),
      })
      const group: string = created.body.conversation_id
      alice.conversations.push(group)
      const first = await changed(a)
      same(
        [first.change, first.revision, first.actor, first.subjects[0], first.signed],
        [CREATED, 1, alice.userId, alice.userId, s],
        'as creation',
      )
      same([...first.subjects].sort(), [alice, bob, carol].map((each) => each.userId).sort(), 'as first members')
      for (const socket of [b, l, c]) same((await changed(socket)).revision, 1, 'as revision')
      revision = 1
      s = signed()
      await told(
        [a, b, l, c, d],
        await alice.post(`${at(group)}/members`, { user_ids: [dave.userId], ...json(s) }),
        event(ADDED, [dave.userId]),
        s,
      )
      s = signed()
      await told(
        [a, b, l, c, d],
        await alice.patch(`${at(group)}/members/${dave.userId}`, { role: 'admin', ...json(s) }),
        event(ROLE_CHANGED, [dave.userId], ADMIN),
        s,
      )
      s = signed()
      await told([a, b, l, c, d], await alice.patch(at(group), { name: 'hill', ...json(s) }), event(UPDATED, []), s)
      s = signed()
      await told(
        [a, b, l, c, d],
        await alice.delete(`${at(group)}/members/${carol.userId}?signed_change=${base64url(s)}`),
        event(REMOVED, [carol.userId]),
        s,
      )
      s = signed()
      await told(
        [a, b, l, d],
        await bob.delete(`${at(group)}/members/${bob.userId}?signed_change=${base64url(s)}`),
        { ...event(LEFT, [bob.userId]), actor: bob.userId },
        s,
      )
      s = signed()
      await told([a, d], await alice.post(`${at(group)}/archive`, json(s)), event(ARCHIVED, []), s)
      const { body } = ok(await alice.get(at(group)), 200)
      same(
        body.changes.map((each: { revision: number }) => each.revision),
        [1, 2, 3, 4, 5, 6, 7],
        'as the chain over HTTP',
      )
      same(body.changes.at(-1).signed_change, base64(s), 'as its last signed_change')
      return `created, then ${seen.length} changes: revisions 1 to ${revision}, signed_change in event and chain`
    },
  },
  {
    clauses: ['V-2.1', 'L-1'],
    title: 'signed_change of 1,024 bytes is carried, a longer one refused',
    async run(kit) {
      const { alice, group } = await trio(kit)
      const largest = base64(randomBytes(1024))
      ok(await alice.patch(at(group), { name: 'a', signed_change: largest }), 200)
      refused(
        await alice.patch(at(group), { name: 'b', signed_change: base64(randomBytes(1025)) }),
        'INVALID_REQUEST',
        '1,025 bytes',
      )
      const { body } = await alice.get(at(group))
      same(
        [body.name, body.changes.at(-1).signed_change, body.revision],
        ['a', largest, 2],
        'as name, signed_change and revision',
      )
      return '1,024 stored and returned, 1,025 refused'
    },
  },
  {
    clauses: ['V-2.5', 'H-8.1'],
    title: 'a change on a chain that moved on is CONFLICT and changes nothing',
    async run(kit) {
      const { alice, bob, group } = await trio(kit)
      ok(await alice.patch(at(group), { name: 'one', expected_revision: 1 }), 200)
      refused(await alice.patch(at(group), { name: 'two', expected_revision: 1 }), 'CONFLICT', 'revision 1 of 2')
      refused(
        await alice.patch(`${at(group)}/members/${bob.userId}`, { role: 'admin', expected_revision: 7 }),
        'CONFLICT',
        'revision 7 of 2',
      )
      refused(
        await alice.delete(`${at(group)}/members/${bob.userId}?expected_revision=1`),
        'CONFLICT',
        'revision 1 of 2',
      )
      const { body } = await alice.get(at(group))
      same([body.name, body.revision], ['one', 2], 'as name and revision')
      return 'CONFLICT three times, the chain stayed at 2'
    },
  },
  {
    clauses: ['H-8', 'V-2.1'],
    title: 'the chain is read in pages',
    async run(kit) {
      const { alice, group } = await trio(kit)
      for (const name of ['1', '2', '3']) ok(await alice.patch(at(group), { name }), 200)
      const page = (await alice.get(`${at(group)}?limit=2`)).body
      same(
        [page.changes.map((each: { revision: number }) => each.revision), page.has_more_changes],
        [[1, 2], true],
        'as first page',
      )
      const rest = (await alice.get(`${at(group)}?after_revision=2&limit=2`)).body
      same(
        [rest.changes.map((each: { revision: number }) => each.revision), rest.has_more_changes],
        [[3, 4], false],
        'as second page',
      )
      refused(await alice.get(`${at(group)}?limit=201`), 'INVALID_REQUEST', 'limit 201')
      return '1, 2 and 3, 4; limit 201 refused'
    },
  },
]
