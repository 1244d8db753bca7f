// [G-3] [G-4]: how far messages have come, and what was read.
import { randomBytes, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { uuidFromBytes, uuidToBytes } from '../../../proto/ids.ts'
import { type Check, same } from '../check.ts'
import type { Device } from '../device.ts'
import { ok } from '../http.ts'
import { type ClientBody, codeIn, kindOf, type ServerFrame, type Socket } from '../socket.ts'
import type { Kit } from '../world.ts'

const statusOf = (...messageIds: Uint8Array[]) => ({ statusRequest: { messageIds } })
const receipt = (conversation: string, messageId: Uint8Array) => ({
  readReceipt: { conversationId: uuidToBytes(conversation), messageId },
})

/** Asks again for as long as the relay wants it later. [E-2] */
async function patiently(socket: Socket, body: ClientBody): Promise<ServerFrame> {
  for (;;) {
    const frame = await socket.ask(body)
    if (!['RATE_LIMITED', 'OVERLOADED', 'UNAVAILABLE'].includes(codeIn(frame))) return frame
    await sleep(frame.error?.retryAfterMs ?? 0)
  }
}

/** Delivered and read of one message as a StatusRequest is answered. */
async function status(socket: Socket, messageId: Uint8Array): Promise<[number, number] | null> {
  const frame = await patiently(socket, statusOf(messageId))
  same(kindOf(frame), 'statusUpdate', 'as answer to a StatusRequest')
  const found = (frame.statusUpdate!.messages ?? []).find((each) => Buffer.compare(each.messageId!, messageId) === 0)
  return found ? [found.delivered ?? 0, found.read ?? 0] : null
}

/** Waits for an unsolicited StatusUpdate with these numbers. */
const statusTold = (socket: Socket, messageId: Uint8Array, delivered: number, read: number) =>
  socket.take(
    (frame) =>
      frame.requestId === 0 &&
      (frame.statusUpdate?.messages ?? []).some(
        (each) =>
          Buffer.compare(each.messageId!, messageId) === 0 &&
          (each.delivered ?? 0) === delivered &&
          (each.read ?? 0) === read,
      ),
    `a StatusUpdate with ${delivered} delivered and ${read} read`,
  )

export const receiptChecks: Check<Kit>[] = [
  {
    clauses: ['G-3', 'G-3.1', 'G-3.2', 'L-1'],
    title: 'status of one’s own messages: asked for and told by itself; others’ and unknown ones are left out',
    async run(kit) {
      const { alice, bob, conversation, a, b } = await kit.pair()
      const laptop = await alice.link()
      const l = await laptop.live()
      const { messageId } = await a.accepted(conversation, [bob.to(), laptop.to()])
      const id = messageId!
      await l.ack((await l.message()).messageId)
      same(await status(a, id), [0, 0], 'before the other user acked it, though an own device did')
      await b.ack((await b.message()).messageId)
      for (const socket of [a, l]) await statusTold(socket, id, 1, 0)
      same(await status(l, id), [1, 0], 'from the other device')
      same(await status(b, id), null, 'asked by the one who received it')
      const { messages } = await a.asked(statusOf(id, randomBytes(16)), 'statusUpdate')
      same(
        (messages ?? []).map((each) => uuidFromBytes(each.conversationId!)),
        [conversation],
        'with an unknown id too, as messages',
      )
      const many = Array.from({ length: 101 }, () => randomBytes(16))
      await a.refused(statusOf(...many), 'TOO_LARGE', '101 ids')
      return '0 and 0, then 1 delivered at both devices of the sender; 101 ids TOO_LARGE'
    },
  },
  {
    clauses: ['G-3.4', 'G-3'],
    title: 'a copy that was withheld counts for nobody; StatusRequests above the rate are RATE_LIMITED',
    async run(kit) {
      // Whoever uses up a rate is of no use to another check for a while.
      const { bob, conversation, a, b } = await kit.freshPair()
      const withheld = { withheld: 1, ciphertextType: 0, content: new Uint8Array(0) }
      const hidden = (await a.accepted(conversation, [bob.to(0, withheld)])).messageId!
      const read = (await a.accepted(conversation, [bob.to()])).messageId!
      await b.ack(hidden, read)
      same(kindOf(await patiently(b, receipt(conversation, read))), 'readReceiptCommitted', 'as answer')
      same(
        [await status(a, hidden), await status(a, read)],
        [
          [0, 0],
          [1, 1],
        ],
        'as status of a withheld and of a read one',
      )
      let frame = await a.ask(statusOf(read))
      for (let at = 0; at < 60 && frame.statusUpdate; at++) frame = await a.ask(statusOf(read))
      same(codeIn(frame), 'RATE_LIMITED', 'for more than 30 at once')
      return '0 and 0 for the withheld one, 1 and 1 for the other; then RATE_LIMITED'
    },
  },
  {
    clauses: ['G-4', 'G-4.1', 'G-3'],
    title: 'a read mark covers everything up to it and moves only forward',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      const sent: Uint8Array[] = []
      for (let at = 0; at < 3; at++) sent.push((await a.accepted(conversation, [bob.to()])).messageId!)
      await b.ack(...sent)
      const read = async (messageId: Uint8Array) =>
        same(kindOf(await patiently(b, receipt(conversation, messageId))), 'readReceiptCommitted', 'as answer')
      await read(sent[1]!)
      await statusTold(a, sent[1]!, 1, 1)
      same(
        [await status(a, sent[0]!), await status(a, sent[1]!), await status(a, sent[2]!)],
        [
          [1, 1],
          [1, 1],
          [1, 0],
        ],
        'as status of three',
      )
      await read(sent[0]!)
      same(await status(a, sent[1]!), [1, 1], 'after an older mark')
      await b.refused(receipt(conversation, randomBytes(16)), 'INVALID_REQUEST', 'a message there is not')
      const other = await kit.pair()
      const foreign = (await other.a.accepted(other.conversation, [other.bob.to()])).messageId!
      await b.refused(receipt(conversation, foreign), 'INVALID_REQUEST', 'a message of another conversation')
      await read(sent[2]!)
      same(await status(a, sent[2]!), [1, 1], 'after the last')
      return 'the second covered the first; an older one changed nothing; foreign ones refused'
    },
  },
  {
    clauses: ['G-4.1', 'G-4.4', 'E-2.2'],
    title:
      'marks in archived conversations are taken, of former members FORBIDDEN, elsewhere INVALID_REQUEST; 100 at once',
    async run(kit) {
      const [alice, bob] = (await kit.users(2)) as [Device, Device]
      // Whoever uses up a rate is of no use to another check for a while.
      const carol = await kit.fresh()
      const group = await alice.group([bob, carol])
      const [a, b, c] = await Promise.all([alice.live(), bob.live(), carol.live()])
      const id = (await a.accepted(group, [bob.to(), carol.to()])).messageId!
      const eve = await (await kit.user()).live()
      const foreign = await eve.refused(receipt(group, id), 'INVALID_REQUEST', 'a stranger')
      const none = await eve.refused(receipt(randomUUID(), id), 'INVALID_REQUEST', 'no such conversation')
      same(foreign.message, none.message, 'as text of both')
      ok(await alice.delete(`/v1/conversations/${group}/members/${bob.userId}`), 200)
      await b.refused(receipt(group, id), 'FORBIDDEN', 'a former member')
      ok(await alice.post(`/v1/conversations/${group}/archive`), 200)
      same(kindOf(await c.ask(receipt(group, id))), 'readReceiptCommitted', 'in an archived group, as answer')
      const requests = Array.from({ length: 150 }, () => c.write(receipt(group, id)))
      const codes = new Set<string>()
      for (const request of requests) codes.add(kindOf(await c.answer(request)))
      same([...codes].sort(), ['RATE_LIMITED', 'readReceiptCommitted'], 'as answers to 150 at once')
      return 'taken in an archived group; FORBIDDEN and INVALID_REQUEST; RATE_LIMITED above 100'
    },
  },
  {
    clauses: ['G-4.2'],
    title: 'the user’s other devices learn of the mark, and the conversation has it',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      const tablet = await bob.link()
      const t = await tablet.live()
      const { messageId } = await a.accepted(conversation, [bob.to(), tablet.to()])
      same(kindOf(await patiently(b, receipt(conversation, messageId!))), 'readReceiptCommitted', 'as answer')
      const isIt = (each: { conversationId?: Uint8Array | null; messageId?: Uint8Array | null }) =>
        uuidFromBytes(each.conversationId!) === conversation && Buffer.compare(each.messageId!, messageId!) === 0
      await t.take((frame) => (frame.statusUpdate?.ownReads ?? []).some(isIt), 'own_reads at the other device')
      const { body } = ok(await tablet.get(`/v1/conversations/${conversation}`), 200)
      same(body.read_up_to, uuidFromBytes(messageId!), 'as read_up_to')
      return 'own_reads at the other device, read_up_to over HTTP'
    },
  },
  {
    clauses: ['G-4.3', 'H-10'],
    title: 'with read receipts switched off marks are kept for oneself and count for nobody',
    async run(kit) {
      const [alice, bob] = [await kit.fresh(), await kit.fresh()]
      const conversation = await alice.direct(bob)
      const [a, b] = [await alice.live(), await bob.live()]
      ok(await bob.patch('/v1/settings', { read_receipts: false }), 200)
      const mine = (await a.accepted(conversation, [bob.to()])).messageId!
      const his = (await b.accepted(conversation, [alice.to()])).messageId!
      await b.ack(mine)
      await a.ack(his)
      for (const [socket, id] of [
        [b, mine],
        [a, his],
      ] as const)
        same(kindOf(await socket.ask(receipt(conversation, id))), 'readReceiptCommitted', 'as answer')
      same(
        [await status(a, mine), await status(b, his)],
        [
          [1, 0],
          [1, 0],
        ],
        'as status of both directions',
      )
      const { body } = ok(await bob.get(`/v1/conversations/${conversation}`), 200)
      same(body.read_up_to, uuidFromBytes(mine), 'as his own read_up_to')
      return '1 delivered and 0 read both ways; his own mark is kept'
    },
  },
]
