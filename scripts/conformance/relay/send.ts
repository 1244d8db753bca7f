// [S-1] [S-2] [S-3] [S-5] [S-6] [S-7] [S-8]: what a message may be, that it is one message, and what the others get of it.
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { uuidToBytes, uuidV7 } from '../../../proto/ids.ts'
import { type Check, hold, same } from '../check.ts'
import { ok } from '../http.ts'
import { codeIn, type Recipient, type SignalMessage, signalMessage, v1 } from '../socket.ts'
import type { Kit, Pair } from '../world.ts'

const newId = (): Uint8Array => uuidToBytes(uuidV7(Date.now()))
const text = (length: number): string => `https://files.example/${'x'.repeat(length - 22)}`

/** Each change of an otherwise good message is refused so, and then the good one is accepted under the same id. */
async function refusedAll(
  { bob, conversation, a, b }: Pair,
  changes: Record<string, { message?: SignalMessage; recipient?: Recipient }>,
  code = 'INVALID_REQUEST',
): Promise<void> {
  const clientMessageId = newId()
  for (const [what, { message = {}, recipient = {} }] of Object.entries(changes)) {
    const body = signalMessage(conversation, [bob.to(64, recipient)], { clientMessageId, ...message })
    await a.refused({ signalMessage: body }, code, what)
  }
  const good = await a.accepted(conversation, [bob.to()], { clientMessageId })
  const envelope = await b.message()
  same(envelope.messageId, good.messageId, 'as the first message that arrived')
}

export const sendChecks: Check<Kit>[] = [
  {
    clauses: ['S-1.1', 'S-2.2', 'E-2'],
    title: 'ids of 16 bytes, message types up to 32,767; a refused send leaves its id unused and nothing behind',
    async run(kit) {
      const pair = await kit.pair()
      await refusedAll(pair, {
        'a client_message_id of 15 bytes': { message: { clientMessageId: randomBytes(15) } },
        'no client_message_id': { message: { clientMessageId: new Uint8Array(0) } },
        'a conversation_id of 17 bytes': { message: { conversationId: randomBytes(17) } },
        'message_type 32,768': { message: { messageType: 32_768 } },
      })
      const { bob, conversation, a, b } = pair
      await a.accepted(conversation, [bob.to()], { messageType: 0 })
      same((await b.message()).ciphertext?.messageType, 1, 'for message_type 0')
      await a.accepted(conversation, [bob.to()], { messageType: 32_767 })
      same((await b.message()).ciphertext?.messageType, 32_767, 'for message_type 32,767')
      return '4 refused, then accepted under the same id as no duplicate; type 0 came as 1'
    },
  },
  {
    clauses: ['S-1.2', 'L-1'],
    title: 'the ranges of a recipient are kept',
    async run(kit) {
      const pair = await kit.pair()
      await refusedAll(pair, {
        'a user_id of 15 bytes': { recipient: { userId: randomBytes(15) } },
        'device id 0': { recipient: { deviceId: 0 } },
        'device id 128': { recipient: { deviceId: 128 } },
        'registration id 0': { recipient: { registrationId: 0 } },
        'registration id 16,384': { recipient: { registrationId: 16_384 } },
        'an iv of 65 bytes': { recipient: { iv: randomBytes(65) } },
        'no content': { recipient: { content: new Uint8Array(0) } },
      })
      const { bob, conversation, a, b } = pair
      const iv = randomBytes(64)
      await a.accepted(conversation, [bob.to(1, { iv })])
      same((await b.message()).ciphertext?.iv, iv, 'as iv')
      return '7 refused; one byte with an iv of 64 came as it was sent'
    },
  },
  {
    clauses: ['S-1.3'],
    title: 'a device twice is INVALID_REQUEST; the sending device is reported as extra',
    async run(kit) {
      const { alice, bob, conversation, a } = await kit.pair()
      const twice = signalMessage(conversation, [bob.to(), bob.to()])
      await a.refused({ signalMessage: twice }, 'INVALID_REQUEST', 'a device addressed twice')
      const self = signalMessage(conversation, [bob.to(), alice.to()])
      const { deviceMismatch } = await a.refused({ signalMessage: self }, 'DEVICE_MISMATCH', 'oneself addressed')
      const extra = (deviceMismatch?.extra ?? []).map((each) => [each.userId, each.deviceId])
      same(extra, [[alice.user, alice.deviceId]], 'as extra')
      return 'INVALID_REQUEST; DEVICE_MISMATCH with the sender as the one extra'
    },
  },
  {
    clauses: ['S-1.4', 'L-1'],
    title: 'the largest content is carried; one byte more, or 5,001 recipients, are TOO_LARGE',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      const most = a.hello.limits?.contentBytes ?? 98_304
      const content = randomBytes(most)
      await a.accepted(conversation, [bob.to(content)])
      hold(content.equals((await b.message()).ciphertext?.content ?? Buffer.of()), 'the same bytes', 'others')
      const larger = signalMessage(conversation, [bob.to(most + 1)])
      await a.refused({ signalMessage: larger }, 'TOO_LARGE', `${most + 1} bytes of content`)
      const many = Array.from({ length: 5001 }, () => bob.to(1, { userId: randomBytes(16) }))
      await a.refused({ signalMessage: signalMessage(conversation, many) }, 'TOO_LARGE', '5,001 recipients')
      return `${most} bytes carried, ${most + 1} and 5,001 recipients TOO_LARGE`
    },
  },
  {
    clauses: ['S-1.5', 'S-4.2'],
    title: 'urgent is true with SCOPE_ALL and false with SCOPE_SUBSET unless it is said',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      const seen: boolean[] = []
      const { SCOPE_ALL, SCOPE_SUBSET } = v1.Scope
      for (const more of [
        { scope: SCOPE_ALL },
        { scope: SCOPE_SUBSET },
        { scope: SCOPE_ALL, urgent: false },
        { scope: SCOPE_SUBSET, urgent: true },
      ]) {
        await a.accepted(conversation, [bob.to()], more)
        seen.push((await b.message()).ciphertext?.urgent ?? false)
      }
      same(seen, [true, false, false, true], 'as urgent in the envelopes')
      return 'true, false by default; false, true as said'
    },
  },
  {
    clauses: ['S-2', 'S-2.1'],
    title: 'a known client_message_id is answered with the first message, and nothing is delivered again',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      const clientMessageId = newId()
      const first = await a.accepted(conversation, [bob.to()], { clientMessageId })
      same(first.duplicate ?? false, false, 'at first, as duplicate')
      await sleep(5)
      const again = await a.accepted(conversation, [bob.to(200)], { clientMessageId, messageType: 9 })
      same(
        [again.messageId, again.sentAtMs, again.duplicate],
        [first.messageId, first.sentAtMs, true],
        'as second answer',
      )
      const wrong = await a.accepted(conversation, [], { clientMessageId })
      same([wrong.messageId, wrong.duplicate], [first.messageId, true], 'with devices that do not fit, as answer')
      const marker = await a.accepted(conversation, [bob.to()])
      same((await b.message()).messageId, first.messageId, 'as first message')
      same((await b.message()).messageId, marker.messageId, 'as second message')
      return 'the same message_id and sent_at_ms, duplicate = true, also with other bytes and no devices; delivered once'
    },
  },
  {
    clauses: ['S-2.1', 'S-2'],
    title: 'two copies in flight on two connections are one message',
    async run(kit) {
      const { alice, bob, conversation, a, b } = await kit.pair()
      const body = signalMessage(conversation, [bob.to()])
      const first = a.write({ signalMessage: body })
      const second = a.write({ signalMessage: body })
      const answers = [await a.answer(first), await a.answer(second)].map((frame) => frame.messageAccepted)
      same(answers[0]?.messageId, answers[1]?.messageId, 'as message_id of both')
      same(answers.map((each) => each?.duplicate ?? false).sort(), [false, true], 'as duplicate')
      const newer = await alice.live()
      const third = await newer.ask({ signalMessage: body })
      same(
        [third.messageAccepted?.messageId, third.messageAccepted?.duplicate],
        [answers[0]?.messageId, true],
        'on a new connection',
      )
      const marker = await newer.accepted(conversation, [bob.to()])
      await b.message()
      same((await b.message()).messageId, marker.messageId, 'as second message')
      return 'one message_id from both and from a third on a newer connection; delivered once'
    },
  },
  {
    clauses: ['S-2.1'],
    title: 'a repeat is answered even when its sender has left the conversation',
    async run(kit) {
      const [alice, bob, carol] = await kit.users(3)
      const group = await alice!.group([bob!, carol!])
      const b = await bob!.live()
      const body = signalMessage(group, [alice!.to(), carol!.to()])
      const first = (await b.ask({ signalMessage: body })).messageAccepted
      ok(await bob!.delete(`/v1/conversations/${group}/members/${bob!.userId}`), 200)
      const again = (await b.ask({ signalMessage: body })).messageAccepted
      same([again?.messageId, again?.duplicate], [first?.messageId, true], 'as answer')
      const fresh = signalMessage(group, [alice!.to(), carol!.to()])
      await b.refused({ signalMessage: fresh }, 'FORBIDDEN', 'a new message of a former member')
      return 'the first message_id with duplicate = true; a new message is FORBIDDEN'
    },
  },
  {
    clauses: ['S-3', 'S-3.1'],
    title: 'MessageAccepted comes after the commit, with a UUIDv7 and the relay’s time',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      await b.close()
      const accepted = await a.accepted(conversation, [bob.to()])
      const id = Buffer.from(accepted.messageId!)
      same([id.length, id[6]! >> 4, id[8]! >> 6], [16, 7, 2], 'as length, version and variant of message_id')
      const skewMs = (a.hello.serverTimeMs ?? 0) - Date.now()
      const off = Math.abs(accepted.sentAtMs! - skewMs - Date.now())
      hold(off < 60_000, 'sent_at_ms by the clock Hello told', accepted.sentAtMs)
      const waiting = await (await bob.connect()).readAll()
      same(
        waiting.map((each) => each.messageId),
        [accepted.messageId],
        'as the queue right after the answer',
      )
      same(waiting[0]?.sentAtMs, accepted.sentAtMs, 'as sent_at_ms in the envelope')
      return 'version 7; in the queue of a device that connects right after the answer'
    },
  },
  {
    clauses: ['S-5'],
    title: 'ciphertext types 2, 3, 7 and 8 are carried without a look inside; others are INVALID_REQUEST',
    async run(kit) {
      const pair = await kit.pair()
      const types = [0, 1, 4, 5, 6, 9]
      await refusedAll(
        pair,
        Object.fromEntries(
          types.map((ciphertextType) => [`type ${ciphertextType}`, { recipient: { ciphertextType } }]),
        ),
      )
      const { bob, conversation, a, b } = pair
      for (const ciphertextType of [2, 3, 7, 8]) {
        const content = randomBytes(33)
        await a.accepted(conversation, [bob.to(content, { ciphertextType })])
        const { ciphertext } = await b.message()
        same([ciphertext?.ciphertextType, ciphertext?.content], [ciphertextType, content], 'as type and content')
      }
      return 'random bytes carried as 2, 3, 7 and 8; 0, 1, 4, 5, 6 and 9 refused'
    },
  },
  {
    clauses: ['S-6', 'S-6.1', 'S-6.2'],
    title: 'withheld arrives as it was said, without content',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      for (const withheld of [1, 2, 3]) {
        await a.accepted(conversation, [bob.to(0, { withheld, ciphertextType: 0 })])
        const { ciphertext } = await b.message()
        same([ciphertext?.withheld, ciphertext?.content?.length ?? 0], [withheld, 0], 'as reason and length of content')
      }
      return 'UNTRUSTED_IDENTITY, NO_COMPATIBLE_KEYS, NOT_IN_ROSTER'
    },
  },
  {
    clauses: ['S-6.3'],
    title: 'content with withheld, neither, or an unknown reason are INVALID_REQUEST',
    async run(kit) {
      await refusedAll(await kit.pair(), {
        'content with withheld': { recipient: { withheld: 1 } },
        'an iv with withheld': {
          recipient: { withheld: 1, content: new Uint8Array(0), ciphertextType: 0, iv: randomBytes(12) },
        },
        'a type with withheld': { recipient: { withheld: 1, content: new Uint8Array(0) } },
        'neither content nor withheld': { recipient: { content: new Uint8Array(0), ciphertextType: 0 } },
        'an unknown reason': { recipient: { withheld: 99 as never, content: new Uint8Array(0), ciphertextType: 0 } },
      })
      return '5 refused'
    },
  },
  {
    clauses: ['S-7', 'L-1'],
    title: 'clear fields are carried within their limits',
    async run(kit) {
      const pair = await kit.pair()
      await refusedAll(pair, {
        'a reply_to of 15 bytes': { message: { replyToMessageId: randomBytes(15) } },
        'an attachment_url of 2,049 characters': { message: { attachmentUrl: text(2049) } },
        'a thumbnail_url of 2,049 characters': { message: { thumbnailUrl: text(2049) } },
      })
      const { bob, conversation, a, b } = pair
      const clear = { replyToMessageId: randomBytes(16), attachmentUrl: text(2048), thumbnailUrl: text(2048) }
      await a.accepted(conversation, [bob.to()], clear)
      const { replyToMessageId, attachmentUrl, thumbnailUrl } = (await b.message()).ciphertext ?? {}
      same({ replyToMessageId, attachmentUrl, thumbnailUrl }, clear, 'as clear fields')
      return '15 bytes and 2,049 characters refused, 16 and 2,048 carried'
    },
  },
  {
    clauses: ['S-8', 'S-8.1'],
    title: 'messages of one connection, conversation and priority arrive in the order in which they were sent',
    async run(kit) {
      // Fresh: it has all it may send at once.
      const [alice, bob] = [await kit.fresh(), await kit.user()]
      const conversation = await alice.direct(bob)
      const [a, b] = await Promise.all([alice.live(), bob.live()])
      const wanted: { requestId: number; priority: number; at: number }[] = []
      for (let at = 0; at < 40; at++)
        for (const priority of [0, 1, 3]) {
          const message = signalMessage(conversation, [bob.to(Buffer.from([priority, at]))], { priority })
          wanted.push({ requestId: a.write({ signalMessage: message }), priority, at })
        }
      const accepted: typeof wanted = []
      for (const each of wanted) {
        const frame = await a.take(({ requestId }) => requestId === each.requestId, 'an answer')
        if (frame.messageAccepted) accepted.push(each)
        else same(codeIn(frame), 'RATE_LIMITED', 'as answer to one of many at once')
      }
      const seen: Record<number, number[]> = { 0: [], 1: [], 3: [] }
      for (const _ of accepted) {
        const [priority, at] = (await b.message()).ciphertext!.content! as unknown as [number, number]
        seen[priority]!.push(at)
      }
      for (const [priority, order] of Object.entries(seen)) {
        const sent = accepted.filter((each) => each.priority === Number(priority)).map((each) => each.at)
        hold(sent.length > 2, 'some of each priority to be accepted', sent.length)
        same(order, sent, `with priority ${priority}, as order`)
      }
      return `${accepted.length} of NORMAL, HIGH and LOW together, sent without waiting`
    },
  },
  {
    clauses: ['S-8'],
    title: 'a priority that is none is INVALID_REQUEST',
    async run(kit) {
      const { bob, conversation, a } = await kit.pair()
      const frame = await a.send(conversation, [bob.to()], { priority: 4 as never })
      same(codeIn(frame), 'INVALID_REQUEST', 'for priority 4')
      return 'priority 4 refused'
    },
  },
]
