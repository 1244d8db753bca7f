// [S-4] [S-9]: whom a message must address, and why it may be refused.
import { randomBytes, randomUUID } from 'node:crypto'
import { type Check, same } from '../check.ts'
import { type Device, otherThan } from '../device.ts'
import { ok } from '../http.ts'
import { codeIn, type Frame, signalMessage, v1 } from '../socket.ts'
import type { Kit } from '../world.ts'

const { SCOPE_ALL, SCOPE_SUBSET, SCOPE_UNSPECIFIED } = v1.Scope

type Mismatch = NonNullable<Frame<'error'>['deviceMismatch']>
const names = (addresses: Mismatch['missing']): string[] =>
  (addresses ?? [])
    .map((each) => `${Buffer.from(each.userId!).toString('hex')}.${each.deviceId}.${each.registrationId}`)
    .sort()
const nameOf = (device: Device): string =>
  `${Buffer.from(device.user).toString('hex')}.${device.deviceId}.${device.keys.registrationId}`
const lists = ({ missing, extra, stale }: Mismatch) => ({
  missing: names(missing),
  extra: names(extra).map((each) => each.replace(/\.\d+$/, '')),
  stale: names(stale),
})

export const scopeChecks: Check<Kit>[] = [
  {
    clauses: ['S-4', 'S-4.3'],
    title: 'devices that do not fit are named, and nothing is stored for anybody',
    async run(kit) {
      const [alice, bob, carol] = (await kit.users(3)) as [Device, Device, Device]
      const group = await alice.group([bob, carol])
      const [a, b, c] = await Promise.all([alice.live(), bob.live(), carol.live()])
      const frame = await a.send(group, [bob.to()])
      same(codeIn(frame), 'DEVICE_MISMATCH', 'without Carol’s device')
      same(lists(frame.error!.deviceMismatch!), { missing: [nameOf(carol)], extra: [], stale: [] }, 'as mismatch')
      const both = await a.accepted(group, [bob.to(), carol.to()])
      for (const socket of [b, c])
        same((await socket.message()).messageId, both.messageId, 'as first message that came')
      return 'missing names Carol’s device with its registration id; Bob got nothing of the refused message'
    },
  },
  {
    clauses: ['S-4.1'],
    title: 'SCOPE_ALL wants every device, the sender’s others included',
    async run(kit) {
      const { alice, bob, conversation, a } = await kit.pair()
      const [laptop, tablet] = [await alice.link(), await bob.link()]
      const frame = await a.send(conversation, [bob.to()])
      same(lists(frame.error!.deviceMismatch!).missing, [nameOf(laptop), nameOf(tablet)].sort(), 'as missing')
      const [l, t] = [await laptop.live(), await tablet.live()]
      const sent = await a.accepted(conversation, [bob.to(), laptop.to(), tablet.to()])
      for (const socket of [l, t]) same((await socket.message()).messageId, sent.messageId, 'as message')
      const own = await l.accepted(conversation, [bob.to(), alice.to(), tablet.to()])
      same((await a.message()).messageId, own.messageId, 'at the other device of the sender, as message')
      return 'two devices linked since were missing; with them it was accepted, and from the linked one too'
    },
  },
  {
    clauses: ['S-4.2'],
    title: 'SCOPE_SUBSET goes to current devices alone, does not report missing ones, and needs one',
    async run(kit) {
      const [alice, bob, carol] = (await kit.users(3)) as [Device, Device, Device]
      const group = await alice.group([bob, carol])
      const [a, b, c] = await Promise.all([alice.live(), bob.live(), carol.live()])
      const one = await a.accepted(group, [bob.to()], { scope: SCOPE_SUBSET })
      same((await b.message()).messageId, one.messageId, 'at Bob, as message')
      const nobody = signalMessage(group, [], { scope: SCOPE_SUBSET })
      await a.refused({ signalMessage: nobody }, 'INVALID_REQUEST', 'a subset of nobody')
      const stranger = await kit.user()
      const frame = await a.send(group, [bob.to(), stranger.to()], { scope: SCOPE_SUBSET })
      same(
        lists(frame.error!.deviceMismatch!),
        { missing: [], extra: [nameOf(stranger).replace(/\.\d+$/, '')], stale: [] },
        'as mismatch',
      )
      const all = await a.accepted(group, [bob.to(), carol.to()])
      same((await c.message()).messageId, all.messageId, 'at Carol, as first message')
      return 'Bob alone got it; a stranger’s device is extra, Carol’s is not missing'
    },
  },
  {
    clauses: ['S-4.3'],
    title: 'extra and stale are named, stale with the current registration id',
    async run(kit) {
      const { alice, bob, conversation, a } = await kit.pair()
      const wrong = bob.to(10, { registrationId: otherThan(bob.keys.registrationId) })
      const absent = bob.to(10, { deviceId: 99 })
      const stranger = await kit.user()
      const laptop = await alice.link()
      const frame = await a.send(conversation, [wrong, absent, stranger.to()])
      const expected = {
        missing: [nameOf(laptop)],
        extra: [`${nameOf(bob).split('.')[0]}.99`, nameOf(stranger).replace(/\.\d+$/, '')].sort(),
        stale: [nameOf(bob)],
      }
      same(lists(frame.error!.deviceMismatch!), expected, 'as mismatch')
      return 'one missing, two extra, one stale in one answer'
    },
  },
  {
    clauses: ['S-4.7'],
    title: 'a scope that is none is INVALID_REQUEST',
    async run(kit) {
      const { bob, conversation, a } = await kit.pair()
      for (const scope of [SCOPE_UNSPECIFIED, 3])
        same(codeIn(await a.send(conversation, [bob.to()], { scope })), 'INVALID_REQUEST', `for scope ${scope}`)
      return 'SCOPE_UNSPECIFIED and 3 refused'
    },
  },
  {
    clauses: ['S-9.1', 'E-2.2'],
    title: 'no such conversation and not one’s own are one answer',
    async run(kit) {
      const { conversation, bob } = await kit.pair()
      const eve = await (await kit.user()).live()
      const foreign = await eve.refused(
        { signalMessage: signalMessage(conversation, [bob.to()]) },
        'INVALID_REQUEST',
        'a stranger’s conversation',
      )
      const none = await eve.refused(
        { signalMessage: signalMessage(randomUUID(), [bob.to()]) },
        'INVALID_REQUEST',
        'a conversation that does not exist',
      )
      same(foreign.message, none.message, 'as text of both')
      same([foreign.retryAfterMs ?? 0, none.retryAfterMs ?? 0], [0, 0], 'as retry_after_ms')
      return `INVALID_REQUEST “${none.message}” for both`
    },
  },
  {
    clauses: ['S-9.2', 'S-9', 'V-3.4'],
    title: 'an archived conversation and a former member are FORBIDDEN; what waits is still delivered',
    async run(kit) {
      const [alice, bob, carol] = (await kit.users(3)) as [Device, Device, Device]
      const group = await alice.group([bob, carol])
      const [a, b] = await Promise.all([alice.live(), bob.live()])
      ok(await alice.delete(`/v1/conversations/${group}/members/${bob.userId}`), 200)
      const former = signalMessage(group, [alice.to(), carol.to()])
      await b.refused({ signalMessage: former }, 'FORBIDDEN', 'a former member')
      const last = await a.accepted(group, [carol.to()])
      ok(await alice.post(`/v1/conversations/${group}/archive`), 200)
      await a.refused({ signalMessage: signalMessage(group, [carol.to()]) }, 'FORBIDDEN', 'an archived conversation')
      same((await alice.get(`/v1/conversations/${group}`)).status, 200, 'for reading it, HTTP')
      const waiting = await (await carol.connect()).readAll()
      same(
        waiting.filter((each) => each.ciphertext).map((each) => each.messageId),
        [last.messageId],
        'as messages that waited',
      )
      return 'both FORBIDDEN; the message sent before waits and is delivered'
    },
  },
  {
    clauses: ['C-2.1', 'S-9.1'],
    title: 'a refused send changes nothing: the id may be used again',
    async run(kit) {
      const { bob, conversation, a } = await kit.pair()
      const clientMessageId = randomBytes(16)
      const to = [bob.to()]
      await a.refused(
        { signalMessage: signalMessage(randomUUID(), to, { clientMessageId }) },
        'INVALID_REQUEST',
        'no such conversation',
      )
      const frame = await a.accepted(conversation, to, { clientMessageId, scope: SCOPE_ALL })
      same(frame.duplicate ?? false, false, 'as duplicate')
      return 'accepted as a new message under the id of the refused one'
    },
  },
]
