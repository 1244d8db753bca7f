// [V-6] [V-7] [K-4.8] [H-13]: people who do not know each other, and blocks.
import { randomUUID } from 'node:crypto'
import { uuidFromBytes, uuidToBytes } from '../../../proto/ids.ts'
import { type Check, hold, NotRun, same } from '../check.ts'
import type { Device } from '../device.ts'
import { ok, refused } from '../http.ts'
import { type Frame, v1 } from '../socket.ts'
import type { Kit } from '../world.ts'
import { at } from './groups.ts'

const stateOf = async (device: Device, id: string): Promise<string> => ok(await device.get(at(id)), 200).body.state
const accept = (device: Device, id: string) => device.post(`${at(id)}/accept`)
const bundles = async (who: Device, of: Device): Promise<number> => {
  const json = { targets: [{ user_id: of.userId, device_id: of.deviceId }] }
  return ok(await who.post('/v1/keys/bundles', json), 200).body.bundles.length
}
/** The users with whose devices a mismatch finds fault. */
const usersOf = (devices: { userId?: Uint8Array | null }[] | null | undefined): string[] =>
  (devices ?? []).map((each) => uuidFromBytes(each.userId!))

/** A direct conversation whose other side was not asked yet. @throws NotRun where nobody is. */
async function asked(kit: Kit): Promise<{ alice: Device; bob: Device; id: string }> {
  const [alice, bob] = [await kit.fresh(), await kit.fresh()]
  const made = ok(await alice.post('/v1/conversations', { kind: 'direct', user_id: bob.userId }), 201)
  const id: string = made.body.conversation_id
  alice.conversations.push(id)
  if ((await stateOf(bob, id)) === 'active') throw new NotRun('everybody knows everybody at this relay')
  return { alice, bob, id }
}

export const strangerChecks: Check<Kit>[] = [
  {
    clauses: ['V-6', 'V-6.1', 'V-6.2', 'V-6.3', 'V-6.7'],
    title: 'a stranger has ten messages and is shown nothing until the other one accepts',
    async run(kit) {
      const { alice, bob, id } = await asked(kit)
      same([await stateOf(alice, id), await stateOf(bob, id)], ['active', 'pending'], 'as states')
      const [a, b] = [await alice.live(), await bob.live()]
      const first = await a.accepted(id, [bob.to()])
      await b.ack((await b.message()).messageId)
      await b.accepted(id, [alice.to()], { scope: v1.Scope.SCOPE_SUBSET })
      same(await stateOf(bob, id), 'pending', 'after what devices say by themselves, as state')
      const online = await a.ask({ presenceSubscription: { userIds: [bob.user] } })
      same(online.presence?.users?.[0]?.isOnline ?? false, false, 'as presence')
      const { statusUpdate } = await a.ask({ statusRequest: { messageIds: [first.messageId!] } })
      same(statusUpdate?.messages?.[0]?.delivered ?? 0, 0, 'as delivered, after an ack')
      for (let i = 1; i < 10; i++) await a.accepted(id, [bob.to()])
      const send = {
        signalMessage: {
          ...{ clientMessageId: uuidToBytes(randomUUID()), conversationId: uuidToBytes(id) },
          ...{ scope: v1.Scope.SCOPE_ALL, recipients: [bob.to()] },
        },
      }
      await a.refused(send, 'FORBIDDEN', 'the eleventh message')
      ok(await accept(bob, id), 200)
      ok(await accept(bob, id), 200)
      const told = await a.take((frame) => frame.envelope?.systemEvent?.memberAccepted != null, 'a MemberAccepted')
      same(uuidFromBytes(told.envelope!.systemEvent!.memberAccepted!.userId!), bob.userId, 'as who accepted')
      hold((await a.ask(send)).messageAccepted, 'the eleventh message taken after that', 'a refusal')
      return 'ten taken, the eleventh FORBIDDEN; offline, 0 delivered; after the accept all of it'
    },
  },
  {
    clauses: ['V-6.4', 'V-6.5', 'K-4.8'],
    title: 'whoever is invited to a group is in no device set and known to nobody, until he accepts',
    async run(kit) {
      const { alice, bob, id } = await asked(kit)
      ok(await accept(bob, id), 200)
      const carol = await kit.fresh()
      const json = { kind: 'group', user_ids: [bob.userId, carol.userId] }
      const group: string = ok(await alice.post('/v1/conversations', json), 201).body.conversation_id
      alice.conversations.push(group)
      same([await stateOf(bob, group), await stateOf(carol, group)], ['active', 'invited'], 'as states')
      same([await bundles(alice, carol), await bundles(carol, alice)], [0, 1], 'as bundles of each other')
      const [a, c] = [await alice.live(), await carol.connect()]
      const wrong = await a.ask({
        signalMessage: {
          ...{ clientMessageId: uuidToBytes(randomUUID()), conversationId: uuidToBytes(group) },
          ...{ scope: v1.Scope.SCOPE_ALL, recipients: [bob.to(), carol.to()] },
        },
      })
      same(usersOf(wrong.error?.deviceMismatch?.extra), [carol.userId], 'as extra')
      await a.accepted(group, [bob.to()])
      const waiting: Frame<'envelope'>[] = await c.readAll()
      hold(
        waiting.length === 1 && waiting[0]!.systemEvent,
        'the event of the invitation and nothing else',
        waiting.length,
      )
      refused(await carol.patch(at(group), { name: 'mine' }), 'FORBIDDEN', 'a change by who is invited')
      ok(await accept(carol, group), 200)
      await a.accepted(group, [bob.to(), carol.to()])
      same(await bundles(alice, carol), 1, 'as bundles after accepting')
      return 'invited: extra in a send, no bundle, one event; accepted: in the set'
    },
  },
  {
    clauses: ['V-6.6'],
    title: 'of what one stranger causes at most 10 events wait for a device',
    async run(kit) {
      const { alice, bob } = await asked(kit)
      const carol = await kit.fresh()
      const json = { kind: 'group', user_ids: [bob.userId, carol.userId] }
      const group: string = ok(await alice.post('/v1/conversations', json), 201).body.conversation_id
      alice.conversations.push(group)
      for (let i = 0; i < 12; i++) {
        ok(await alice.delete(`${at(group)}/members/${bob.userId}`), 200)
        ok(await alice.post(`${at(group)}/members`, { user_ids: [bob.userId] }), 200)
      }
      const waiting = await (await bob.connect()).readAll()
      same(waiting.length, 10, 'after 26 events, as what waits')
      return '26 events, 10 waiting'
    },
  },
  {
    clauses: ['V-7', 'V-7.1', 'V-7.2', 'V-7.3', 'V-7.4', 'H-13'],
    title: 'who is blocked is answered as ever, and nothing of it arrives',
    async run(kit) {
      const { alice, bob, conversation, a, b } = await kit.pair()
      const path = `/v1/blocks/${alice.userId}`
      ok(await bob.put(path, {}), 204)
      ok(await bob.put(path, {}), 204)
      same(ok(await bob.get(path), 200).body, { blocked: true }, 'as the block')
      const { blocks } = ok(await bob.get('/v1/blocks'), 200).body
      same(
        blocks.map((each: { user_id: string }) => each.user_id),
        [alice.userId],
        'as the list',
      )
      same([await stateOf(bob, conversation), await stateOf(alice, conversation)], ['blocked', 'active'], 'as states')
      const sent = await a.accepted(conversation, [bob.to()])
      a.write({ typing: { conversationId: uuidToBytes(conversation), isTyping: true } })
      await a.fence()
      await b.fence()
      hold(!b.frames.some((frame) => frame.envelope || frame.typing), 'nothing at the blocker', b.frames.length)
      const { statusUpdate } = await a.ask({ statusRequest: { messageIds: [sent.messageId!] } })
      same(statusUpdate?.messages?.[0]?.delivered ?? 0, 0, 'as delivered')
      const wrong = await a.ask({
        signalMessage: {
          ...{ clientMessageId: uuidToBytes(randomUUID()), conversationId: uuidToBytes(conversation) },
          ...{ scope: v1.Scope.SCOPE_ALL, recipients: [] },
        },
      })
      same(usersOf(wrong.error?.deviceMismatch?.missing), [bob.userId], 'as missing')
      refused(await bob.put(`/v1/blocks/${bob.userId}`, {}), 'INVALID_REQUEST', 'oneself')
      ok(await bob.put(`/v1/blocks/${randomUUID()}`, {}), 204)
      ok(await bob.delete(path), 204)
      const after = await a.accepted(conversation, [bob.to()])
      same((await b.message()).messageId, after.messageId, 'after the block, as message')
      return 'accepted, mismatched and counted as ever; no envelope, no typing, 0 delivered; after it messages arrive'
    },
  },
]
