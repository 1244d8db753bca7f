// [G-1] [G-2]: typing and presence.
import { randomBytes } from 'node:crypto'
import { uuidFromBytes, uuidToBytes } from '../../../proto/ids.ts'
import { type Check, hold, same } from '../check.ts'
import type { Device } from '../device.ts'
import { ok, refused } from '../http.ts'
import { codeIn, type Frame, kindOf, type Socket, signalMessage, v1 } from '../socket.ts'
import type { Kit } from '../world.ts'

const typing = (conversation: string, isTyping = true) => ({
  typing: { conversationId: uuidToBytes(conversation), isTyping },
})
const subscription = (...users: (Device | Uint8Array)[]) => ({
  presenceSubscription: { userIds: users.map((each) => (each instanceof Uint8Array ? each : each.user)) },
})
/** User id → online, as a Presence says. */
const online = (presence: Frame<'presence'>): Record<string, boolean> =>
  Object.fromEntries((presence.users ?? []).map((each) => [uuidFromBytes(each.userId!), each.isOnline ?? false]))

/** Waits until a user is told to be so, in however many Presence frames. */
async function told(socket: Socket, user: Device, isOnline: boolean): Promise<void> {
  const fits = (frame: { presence?: Frame<'presence'> | null }) =>
    frame.presence != null && online(frame.presence)[user.userId] === isOnline
  await socket.take(fits, `a Presence with the user ${isOnline ? 'online' : 'offline'}`)
}

/** Subscribes to a user who has just connected, and waits until he is seen: connected is not yet online. */
async function sees(socket: Socket, user: Device): Promise<void> {
  const answer = online(await socket.asked(subscription(user), 'presence'))
  if (!answer[user.userId]) await told(socket, user, true)
}

export const presenceChecks: Check<Kit>[] = [
  {
    clauses: ['G-1', 'G-1.1', 'C-2.3', 'C-1.4'],
    title: 'typing reaches the other members’ devices with its sender’s name, nobody else, and no queue',
    async run(kit) {
      const { alice, bob, conversation, a, b } = await kit.pair()
      const [laptop, tablet] = [await alice.link(), await bob.link()]
      const [l, t] = [await laptop.live(), await tablet.live()]
      // What it says of its sender is ignored.
      a.write({ typing: { ...typing(conversation).typing, userId: bob.user, deviceId: 99 } })
      for (const socket of [b, t]) {
        const { conversationId, isTyping, userId, deviceId } = await socket.next('typing')
        same(
          [uuidFromBytes(conversationId!), isTyping, uuidFromBytes(userId!), deviceId],
          [conversation, true, alice.userId, alice.deviceId],
          'as typing',
        )
      }
      a.write(typing(conversation, false))
      same((await b.next('typing')).isTyping ?? false, false, 'as is_typing of the stop')
      // The next message comes after: what was to be sent before it would have been.
      const marker = await b.accepted(conversation, [alice.to(), laptop.to(), tablet.to()])
      for (const socket of [a, l]) {
        same((await socket.message()).messageId, marker.messageId, 'as message')
        hold(!socket.frames.some((frame) => frame.typing), 'no typing at the sender’s own devices', 'one')
      }
      hold(!a.frames.some((frame) => frame.requestId !== 0), 'no answer to typing', a.frames.map(kindOf))
      await b.drain()
      await b.close()
      a.write(typing(conversation))
      await a.fence()
      const later = await bob.connect()
      same((await later.readAll()).length, 0, 'in the queue of a device that was away, as envelopes')
      return 'at both devices of the other user, from the token’s device; not at the sender’s own, no answer, not queued'
    },
  },
  {
    clauses: ['G-1.1'],
    title: 'typing in a conversation that is not the user’s is answered like a send',
    async run(kit) {
      const { conversation } = await kit.pair()
      const eve = await (await kit.user()).live()
      await eve.refused(typing(conversation), 'INVALID_REQUEST', 'a stranger’s conversation')
      const none = await eve.refused(
        { typing: { conversationId: randomBytes(16), isTyping: true } },
        'INVALID_REQUEST',
        'none',
      )
      const again = await eve.refused(typing(conversation), 'INVALID_REQUEST', 'a stranger’s conversation')
      same(again.message, none.message, 'as text of both')
      const [alice, bob, carol] = (await kit.users(3)) as [Device, Device, Device]
      const group = await alice.group([bob, carol])
      const b = await bob.live()
      ok(await alice.delete(`/v1/conversations/${group}/members/${bob.userId}`), 200)
      await b.refused(typing(group), 'FORBIDDEN', 'a former member')
      return 'INVALID_REQUEST in one text for foreign and none; FORBIDDEN for a former member'
    },
  },
  {
    clauses: ['G-1.4'],
    title: 'typing above the rate is dropped without a word, far above it RATE_LIMITED',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.freshPair()
      const burst = 25
      for (let at = 0; at < burst; at++) a.write(typing(conversation, at % 2 === 0))
      await a.fence()
      same(a.frames.map(kindOf), [], 'as answers')
      const marker = await a.accepted(conversation, [bob.to()])
      same((await b.message()).messageId, marker.messageId, 'as message')
      const came = b.frames.filter((frame) => frame.typing).length
      hold(came >= 1 && came <= 8, 'about 5 of them', came)
      for (let at = 0; at < 60; at++) a.write(typing(conversation))
      await a.fence()
      const codes = new Set(a.frames.map(kindOf))
      same([...codes], ['RATE_LIMITED'], 'as answers to 60 more')
      return `${came} of ${burst} arrived and none was answered; of 60 more ${a.frames.length} were RATE_LIMITED`
    },
  },
  {
    clauses: ['G-1', 'S-2.1'],
    title: 'signals are no envelopes: they take no sequence',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      await a.accepted(conversation, [bob.to()])
      const first = await b.message()
      a.write(typing(conversation))
      await a.asked(subscription(bob), 'presence')
      const body = signalMessage(conversation, [bob.to()], { scope: v1.Scope.SCOPE_SUBSET })
      same(codeIn(await a.ask({ signalMessage: body })), '', 'for a send')
      const second = await b.message()
      same(second.sequence, (first.sequence ?? 0) + 1, 'as next sequence')
      return `${first.sequence}, typing and presence, ${second.sequence}`
    },
  },
  {
    clauses: ['G-2', 'G-2.1', 'L-1'],
    title: 'presence of users one shares a conversation with; strangers and nobody are offline alike',
    async run(kit) {
      const { alice, bob, a, b } = await kit.pair()
      const stranger = await kit.user()
      await stranger.live()
      const nobody = randomBytes(16)
      await sees(a, bob)
      await sees(b, alice)
      const first = await a.asked(subscription(bob, stranger, nobody), 'presence')
      const expected = { [bob.userId]: true, [stranger.userId]: false, [uuidFromBytes(nobody)]: false }
      const seen = online(first)
      for (const [user, is] of Object.entries(expected))
        same(seen[user], is, `for ${user === bob.userId ? 'a peer' : 'a stranger'}, as online`)
      same(Object.keys(seen).length, 3, 'as count of users in the answer')
      const second = await b.asked(subscription(alice), 'presence')
      same(online(second), { [alice.userId]: true }, 'for the peer')
      const none = await a.asked(subscription(), 'presence')
      same(none.users ?? [], [], 'for an empty subscription')
      const many = Array.from({ length: 501 }, () => randomBytes(16))
      await a.refused(subscription(...many), 'TOO_LARGE', '501 users')
      return 'the peer online, a connected stranger and nobody offline; 501 TOO_LARGE'
    },
  },
  {
    clauses: ['G-2.2'],
    title: 'coming and going is told; who is back at once was never away',
    async run(kit) {
      const { alice, bob, a, b } = await kit.pair()
      await sees(a, bob)
      await b.close()
      const back = await bob.live()
      await back.close()
      const began = performance.now()
      await told(a, bob, false)
      const seconds = (performance.now() - began) / 1000
      hold(seconds > 1.5, 'offline after being away for 3 s', `after ${seconds.toFixed(1)} s`)
      await bob.live()
      await told(a, bob, true)
      const changes = a.frames.filter((frame) => frame.presence).length
      same(changes, 0, 'as further Presence frames')
      ok(await alice.get('/v1/devices'), 200)
      return `one offline after ${seconds.toFixed(1)} s, one online; nothing for the moment between two connections`
    },
  },
  {
    clauses: ['G-2.3', 'H-10'],
    title: 'with presence switched off one is offline to everybody, and everybody to oneself',
    async run(kit) {
      const [alice, bob] = [await kit.fresh(), await kit.fresh()]
      await alice.direct(bob)
      const [a, b] = [await alice.live(), await bob.live()]
      same(ok(await bob.get('/v1/settings'), 200).body, { read_receipts: true, presence: true }, 'as settings at first')
      await sees(a, bob)
      const changed = ok(await bob.patch('/v1/settings', { presence: false }), 200).body
      same(changed, { read_receipts: true, presence: false }, 'as answer')
      await told(a, bob, false)
      same(
        online(await b.asked(subscription(alice), 'presence')),
        { [alice.userId]: false },
        'to the one who switched it off',
      )
      refused(await bob.patch('/v1/settings', { presence: 'no' }), 'INVALID_REQUEST', 'a setting that is no boolean')
      ok(await bob.patch('/v1/settings', { presence: true }), 200)
      await told(a, bob, true)
      return 'offline both ways, and online again when it was switched on'
    },
  },
  {
    clauses: ['G-2.4'],
    title:
      'subscriptions above the rate are RATE_LIMITED, and the former one stays; whom one may know follows the conversations',
    async run(kit) {
      // Whoever uses up a rate is of no use to another check for a while.
      const [alice, bob] = [await kit.fresh(), await kit.user()]
      const [a, b] = [await alice.live(), await bob.live()]
      same(
        online(await a.asked(subscription(bob), 'presence')),
        { [bob.userId]: false },
        'before they share a conversation',
      )
      await alice.direct(bob)
      await told(a, bob, true)
      let frame = await a.ask(subscription(bob))
      for (let at = 0; at < 20 && frame.presence; at++) frame = await a.ask(subscription(bob))
      same(codeIn(frame), 'RATE_LIMITED', 'for more than 10 at once')
      a.frames.length = 0
      await b.close()
      await told(a, bob, false)
      return 'online once there was a conversation; RATE_LIMITED, and still told that the other left'
    },
  },
]
