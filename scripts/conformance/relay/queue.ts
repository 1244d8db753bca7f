// to: a device's queue, page by page and live, until it is acked.
import { randomBytes } from 'node:crypto'
import { type Check, hold, NotRun, same } from '../check.ts'
import type { Device } from '../device.ts'
import { ok } from '../http.ts'
import { codeIn, type Envelope, kindOf, type Socket, signalMessage } from '../socket.ts'
import type { Kit } from '../world.ts'
import { crowd, hex } from './crowd.ts'

const ids = (envelopes: Envelope[] | null | undefined) => (envelopes ?? []).map((each) => each.messageId)
const sequences = (envelopes: Envelope[] | null | undefined) => (envelopes ?? []).map((each) => each.sequence ?? 0)

/** Sends so many messages without waiting in between. @returns their ids in order. */
async function flood(from: Socket, to: Device, conversation: string, count: number, bytes = 40): Promise<Uint8Array[]> {
  const requests = Array.from({ length: count }, () =>
    from.write({ signalMessage: signalMessage(conversation, [to.to(bytes)]) }),
  )
  const messageIds: Uint8Array[] = []
  for (const requestId of requests) {
    const frame = await from.answer(requestId)
    same(kindOf(frame), 'messageAccepted', 'as answer')
    messageIds.push(frame.messageAccepted!.messageId!)
  }
  return messageIds
}

/** Numbers from first on. */
const count = (first: number, length: number): number[] => Array.from({ length }, (_, at) => first + at)

export const queueChecks: Check<Kit>[] = [
  {
    clauses: ['Q-1', 'Q-5', 'Q-3.4'],
    title: 'when something waits nothing is sent until it was asked for; then QueueEmpty once, then live',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.freshPair()
      await b.close()
      const first = await a.accepted(conversation, [bob.to()])
      const socket = await bob.connect()
      same(socket.hello.queueWaiting, true, 'as queue_waiting')
      const second = await a.accepted(conversation, [bob.to()])
      await socket.fence()
      same(socket.frames.map(kindOf), [], 'as frames before any SyncRequest')
      const page = await socket.sync(null, 1)
      same(ids(page.messages), [first.messageId], 'as first page of one')
      const third = await a.accepted(conversation, [bob.to()])
      await socket.fence()
      same(socket.frames.map(kindOf), [], 'as frames between two pages')
      const rest = await socket.sync(page.messages![0]!.messageId!)
      same([ids(rest.messages), rest.hasMore ?? false], [[second.messageId, third.messageId], false], 'as the rest')
      const empty = await socket.take((frame) => frame.queueEmpty != null, 'QueueEmpty')
      same(empty.requestId, 0, 'as its request_id')
      const live = await a.accepted(conversation, [bob.to()])
      same((await socket.message()).messageId, live.messageId, 'as the next envelope')
      same(socket.frames.map(kindOf), [], 'as further frames')
      return 'held; two pages with nothing in between; QueueEmpty once, unsolicited; then live'
    },
  },
  {
    clauses: ['Q-1.1'],
    title: 'when nothing waits envelopes come by themselves, and a sync is allowed all the same',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      await b.close()
      const socket = await bob.connect()
      same(socket.hello.queueWaiting ?? false, false, 'as queue_waiting')
      const sent = await a.accepted(conversation, [bob.to()])
      same((await socket.message()).messageId, sent.messageId, 'as envelope')
      same(ids((await socket.sync()).messages), [sent.messageId], 'as page')
      await socket.next('queueEmpty')
      return 'live at once; the un-acked envelope is in a page as well'
    },
  },
  {
    clauses: ['Q-2', 'Q-2.1', 'Q-2.2', 'V-1'],
    title: 'sequences begin at 1 and have no gaps, system events among them, and stay when they come again',
    async run(kit) {
      const [alice, bob] = [await kit.user(), await kit.fresh()]
      const conversation = await alice.request(bob)
      const a = await alice.live()
      await flood(a, bob, conversation, 5)
      const socket = await bob.connect()
      const waiting = await socket.readAll()
      same(sequences(waiting), count(1, 6), 'as sequences of a new device')
      hold(waiting[0]?.systemEvent?.conversationChanged, 'the conversation’s creation first', waiting[0])
      same(waiting[0]?.messageId?.length, 16, 'as length of the event’s message_id')
      await socket.ack(waiting[0]!.messageId, waiting[2]!.messageId)
      await flood(a, bob, conversation, 3)
      const live = [await socket.message(), await socket.message(), await socket.message()]
      same(sequences(live), [7, 8, 9], 'live, as sequences')
      await socket.close()
      const again = await (await bob.connect()).readAll()
      same(sequences(again), [2, 4, 5, 6, 7, 8, 9], 'on the next connection, as sequences')
      same(ids(again).slice(0, 1), [waiting[1]!.messageId], 'as message_id of sequence 2')
      return '1 to 6 waiting, 7 to 9 live; after two acks 2, 4 to 9 again under the same ids'
    },
  },
  {
    clauses: ['Q-2.3', 'V-4'],
    title: 'linking and unlinking reach the user’s other devices, without a conversation',
    async run(kit) {
      const alice = await kit.user()
      const a = await alice.live()
      const laptop = await alice.link()
      const linked = await a.next('envelope')
      same(linked.conversationId?.length ?? 0, 0, 'as length of conversation_id')
      same(
        linked.systemEvent?.devicesChanged,
        { change: 1, deviceId: laptop.deviceId, registrationId: laptop.keys.registrationId },
        'as event',
      )
      hold(Math.abs((linked.sentAtMs ?? 0) - (a.hello.serverTimeMs ?? 0)) < 60_000, 'the relay’s time', linked.sentAtMs)
      ok(await alice.delete(`/v1/devices/${laptop.deviceId}`), 204)
      const unlinked = await a.next('envelope')
      const { change, deviceId } = unlinked.systemEvent?.devicesChanged ?? {}
      same([change, deviceId], [2, laptop.deviceId], 'as event of the unlinking')
      await a.ack(linked.messageId, unlinked.messageId)
      return `device ${laptop.deviceId} linked, then unlinked; both acked like messages`
    },
  },
  {
    clauses: ['Q-3', 'Q-3.1', 'Q-3.2', 'Q-4', 'Q-4.1', 'Q-4.3', 'L-1'],
    title: 'pages: a cursor that is no ack, the limit, has_more, the largest page',
    async run(kit) {
      const most = (await (await kit.user()).live()).hello.limits?.pageMessages ?? 100
      const { bob, b, send } = await crowd(kit, most + 10)
      await b.close()
      const accepted = await send(most + 10)
      const sent = ids(await (await bob.connect()).readAll()) as Uint8Array[]
      same(sent.map(hex).sort(), [...accepted].sort(), 'as what waits')
      const socket = await bob.connect()
      const page = await socket.sync(null, 7)
      same([ids(page.messages), page.hasMore], [sent.slice(0, 7), true], 'with limit 7')
      same(ids((await socket.sync(sent[6]!, 3)).messages), sent.slice(7, 10), 'after the 7th')
      same(ids((await socket.sync(randomBytes(16), 2)).messages), sent.slice(0, 2), 'after an id nobody knows')
      await socket.ack(...sent.slice(0, 2))
      same(
        ids((await socket.sync(sent[1]!, 2)).messages),
        sent.slice(2, 4),
        'after the last of the previous page, though it was acked',
      )
      for (const limit of [0, most + 1, 100_000])
        same((await socket.sync(null, limit)).messages?.length, most, `with limit ${limit}, as messages in a page`)
      const rest = await socket.sync(sent[most - 1]!)
      same([ids(rest.messages), rest.hasMore ?? false], [sent.slice(most), false], 'as last page')
      await socket.next('queueEmpty')
      return `7, 3, from the start, past an acked cursor; ${most} at most for 0, ${most + 1} and 100,000`
    },
  },
  {
    clauses: ['Q-3.3'],
    title: 'a second SyncRequest while one is being answered is CONFLICT',
    async run(kit) {
      const { bob, b, send } = await crowd(kit, 100)
      await b.close()
      await send(100)
      const socket = await bob.connect()
      const [first, second] = [socket.write({ syncRequest: {} }), socket.write({ syncRequest: {} })]
      same(kindOf(await socket.answer(first)), 'syncResponse', 'for the first')
      const answer = kindOf(await socket.answer(second))
      hold(['CONFLICT', 'syncResponse'].includes(answer), 'CONFLICT, or a page if the first was done', answer)
      await socket.fence()
      return answer === 'CONFLICT' ? 'CONFLICT' : 'the first was answered before the second was read'
    },
  },
  {
    clauses: ['Q-4', 'L-1'],
    title: 'a page holds at most 1 MiB, and not what was acked on this connection before',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      await b.close()
      const content = a.hello.limits?.contentBytes ?? 98_304
      const most = a.hello.limits?.pageBytes ?? 1024 * 1024
      const sent = await flood(a, bob, conversation, Math.ceil(most / content) + 2, content)
      const socket = await bob.connect()
      const page = await socket.sync()
      const bytes = (page.messages ?? []).reduce((sum, each) => sum + (each.ciphertext?.content?.length ?? 0), 0)
      hold(bytes > 0 && bytes <= most, `at most ${most} bytes`, bytes)
      same(page.hasMore, true, 'as has_more')
      socket.write({ ack: { messageIds: sent.slice(0, 3) } })
      same(ids((await socket.sync(null, 2)).messages), sent.slice(3, 5), 'right after an ack that was not waited for')
      await socket.drain()
      return `${bytes} bytes in a page of ${page.messages?.length}; three acked just before are not in the next`
    },
  },
  {
    clauses: ['Q-6', 'Q-6.1', 'Q-6.2', 'L-1'],
    title: 'an ack ends deliveries of one’s own; foreign, unknown and repeated ids are no error',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      const eve = await (await kit.user()).live()
      const [first, second] = await flood(a, bob, conversation, 2)
      await eve.ack(first)
      await a.ack(first)
      await b.ack(second, second, randomBytes(16))
      await b.ack(second)
      await b.close()
      same(ids(await (await bob.connect()).readAll()), [first], 'as what still waits')
      const most = a.hello.limits?.ackIds ?? 1000
      await a.ack(...Array.from({ length: most }, () => randomBytes(16)))
      const many = { ack: { messageIds: Array.from({ length: most + 1 }, () => randomBytes(16)) } }
      await a.refused(many, 'TOO_LARGE', `${most + 1} ids`)
      await a.refused({ ack: { messageIds: [new Uint8Array(0)] } }, 'INVALID_REQUEST', 'an empty id')
      return `a stranger’s and the sender’s acks changed nothing, Bob’s did; ${most} ids at once, ${most + 1} TOO_LARGE`
    },
  },
  {
    clauses: ['Q-6.5'],
    title: 'an envelope that was not acked comes again, on this connection and on the next',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      const sent = await a.accepted(conversation, [bob.to()])
      const first = await b.message()
      const [again] = await b.readAll()
      await b.close()
      const [later] = await (await bob.connect()).readAll()
      for (const each of [again, later])
        same(
          [each?.messageId, each?.sequence, each?.ciphertext?.content],
          [sent.messageId, first.sequence, first.ciphertext?.content],
          'as the envelope that came again',
        )
      return 'three times the same message_id, sequence and bytes'
    },
  },
  {
    clauses: ['Q-7', 'L-1'],
    title: 'with a full window nothing more comes live; each ack of whichever id makes room',
    async run(kit) {
      const window = (await (await kit.user()).live()).hello.limits?.windowMessages ?? 256
      if (window > 2000) throw new NotRun(`the window is ${window} here`)
      const { b, send } = await crowd(kit, window + 20)
      const sent = await send(window + 20)
      const arrived: Envelope[] = []
      while (arrived.length < window) arrived.push(await b.message())
      await b.fence()
      const more = b.envelopes().length
      same(more, 0, `beyond the window of ${window}, as envelopes`)
      // Not from the beginning: the window is no range.
      await b.ack(...ids(arrived).slice(100, 110))
      for (let at = 0; at < 10; at++) arrived.push(await b.message())
      same(sequences(arrived), count(arrived[0]!.sequence ?? 0, window + 10), 'as sequences of what came')
      const known = arrived.filter((each) => sent.has(hex(each.messageId)))
      same(known.length, window + 10, 'of what came, as what was sent')
      await b.fence()
      same(b.envelopes().length, 0, 'after 10 more, as envelopes')
      await b.ack(...ids(arrived))
      for (let at = 0; at < 10; at++) await b.message()
      await b.drain()
      return `${window} of ${sent.size}, 10 more after acks from the middle, then the rest`
    },
  },
  {
    clauses: ['Q-6'],
    title: 'an ack during a sync and one for a page not yet read do no harm',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      await b.close()
      const sent = await flood(a, bob, conversation, 6)
      const socket = await bob.connect()
      await socket.sync(null, 2)
      await socket.ack(sent[4])
      same(ids((await socket.sync(sent[1]!)).messages), [sent[2], sent[3], sent[5]], 'as the rest')
      await socket.next('queueEmpty')
      same(codeIn(await socket.ask({ ack: { messageIds: sent } })), '', 'for an ack of all')
      await socket.close()
      same((await bob.connect()).hello.queueWaiting ?? false, false, 'in the end, as queue_waiting')
      return 'the acked one was left out of the next page; in the end nothing waits'
    },
  },
]
