// [C-2] [C-7]: frames, their answers, and what becomes of malformed ones.
import { randomBytes } from 'node:crypto'
import { type Check, hold, same } from '../check.ts'
import { type ClientBody, codeIn, kindOf, type ServerFrame, signalMessage, v1 } from '../socket.ts'
import type { Kit } from '../world.ts'

const encode = (frame: ClientBody): Buffer => Buffer.from(v1.ClientFrame.encode(frame).finish())
/** A field no version of the protocol has: number 500, bytes. */
const UNKNOWN_FIELD = Buffer.from([0xa2, 0x1f, 0x03, 1, 2, 3])
/** A body no version of the protocol has: request_id, then field 1000, an empty message. */
const unknownBody = (requestId: number): Buffer =>
  Buffer.concat([encode({ requestId }), Buffer.from([0xc2, 0x3e, 0x00])])
const varint = (value: bigint): Buffer => {
  const bytes: number[] = []
  for (let rest = value; ; rest >>= 7n) {
    bytes.push(Number(rest & 0x7fn) | (rest > 0x7fn ? 0x80 : 0))
    if (rest <= 0x7fn) return Buffer.from(bytes)
  }
}
const withRequestId = (value: bigint): Buffer =>
  Buffer.concat([Buffer.from([8]), varint(value), encode({ ack: { messageIds: [] } })])

export const frameChecks: Check<Kit>[] = [
  {
    clauses: ['C-2'],
    title: 'every message from the relay is binary and one ServerFrame',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      await a.accepted(conversation, [bob.to()])
      await b.message()
      await b.sync()
      await b.fence()
      for (const socket of [a, b]) hold(socket.strange.length === 0, 'ServerFrames only', socket.strange)
      return 'Hello, pages, envelopes and answers: all binary, all decode'
    },
  },
  {
    clauses: ['C-2.1'],
    title: 'integers above 2^53 − 1 and ids that are not 16 bytes are refused',
    async run(kit) {
      const socket = await (await kit.user()).live()
      socket.raw(withRequestId(2n ** 53n))
      const first = await socket.take((frame) => frame.error != null, 'an error')
      same(codeIn(first), 'INVALID_REQUEST', 'for request_id 2^53')
      socket.raw(withRequestId(2n ** 64n - 1n))
      same(
        codeIn(await socket.take((frame) => frame.error != null, 'an error')),
        'INVALID_REQUEST',
        'for request_id 2^64 − 1',
      )
      socket.raw(withRequestId(2n ** 53n - 1n))
      same(kindOf(await socket.answer(2 ** 53 - 1)), 'ackCommitted', 'for request_id 2^53 − 1')
      for (const length of [15, 17])
        await socket.refused(
          { ack: { messageIds: [randomBytes(length)] } },
          'INVALID_REQUEST',
          `an id of ${length} bytes`,
        )
      return '2^53 and 2^64 − 1 refused, 2^53 − 1 echoed; ids of 15 and 17 bytes refused'
    },
  },
  {
    clauses: ['C-2.2'],
    title: 'request_id is echoed, 0 too',
    async run(kit) {
      const socket = await (await kit.user()).live()
      same(kindOf(await socket.ask({ requestId: 4711, ack: { messageIds: [] } })), 'ackCommitted', 'under request 4711')
      socket.write({ requestId: 0, ack: { messageIds: [] } })
      const zero = await socket.take((frame) => frame.ackCommitted != null, 'AckCommitted')
      same(zero.requestId, 0, 'as request_id of the answer')
      same(kindOf(await socket.ask({ requestId: 4711, ack: { messageIds: [] } })), 'ackCommitted', 'under 4711 again')
      return '4711, 0 and 4711 again'
    },
  },
  {
    clauses: ['C-2.3'],
    title: 'each request is answered by exactly one frame of its own kind',
    async run(kit) {
      const { alice, bob, conversation, a } = await kit.pair()
      const sent = await a.accepted(conversation, [bob.to()])
      const pairs: [ClientBody, string][] = [
        [{ signalMessage: signalMessage(conversation, [bob.to()]) }, 'messageAccepted'],
        [{ ack: { messageIds: [] } }, 'ackCommitted'],
        [{ reauthenticate: { token: alice.token } }, 'reauthenticated'],
        [{ syncRequest: {} }, 'syncResponse'],
        [{ readReceipt: { conversationId: Buffer.from(conversation.replaceAll('-', ''), 'hex'), messageId: sent.messageId! } }, 'readReceiptCommitted'],
        [{ presenceSubscription: { userIds: [] } }, 'presence'],
        [{ statusRequest: { messageIds: [sent.messageId!] } }, 'statusUpdate'],
      ] // biome-ignore format: a table
      for (const [body, kind] of pairs) same(kindOf(await a.ask(body)), kind, `as answer to ${Object.keys(body)}`)
      await a.fence()
      const left = a.frames.filter((frame) => frame.requestId !== 0)
      same(left.map(kindOf), [], 'as further answers')
      return pairs.map(([, kind]) => kind).join(', ')
    },
  },
  {
    clauses: ['C-2.4'],
    title: 'requests may be sent without waiting; every answer finds its request',
    async run(kit) {
      const { bob, conversation, a } = await kit.pair()
      const wanted = new Map<number, string>()
      for (let at = 0; at < 20; at++) {
        const send = at % 2 === 0
        const body: ClientBody = send
          ? { signalMessage: signalMessage(conversation, [bob.to()]) }
          : { ack: { messageIds: [] } }
        wanted.set(a.write(body), send ? 'messageAccepted' : 'ackCommitted')
      }
      for (const [requestId, kind] of wanted) same(kindOf(await a.answer(requestId)), kind, `as answer to ${requestId}`)
      return '10 sends and 10 acks at once, each answered under its own id'
    },
  },
  {
    clauses: ['C-2.5'],
    title: 'unknown fields are ignored; an unknown or absent body is INVALID_REQUEST',
    async run(kit) {
      const socket = await (await kit.user()).live()
      socket.raw(Buffer.concat([encode({ requestId: 901, ack: { messageIds: [] } }), UNKNOWN_FIELD]))
      same(kindOf(await socket.answer(901)), 'ackCommitted', 'for an ack with an unknown field')
      socket.raw(unknownBody(902))
      same(kindOf(await socket.answer(902)), 'INVALID_REQUEST', 'for an unknown body')
      socket.raw(encode({ requestId: 903 }))
      same(kindOf(await socket.answer(903)), 'INVALID_REQUEST', 'for no body')
      return 'the unknown field made no difference; both bodies were refused under their request_id'
    },
  },
  {
    clauses: ['C-7', 'E-2.1'],
    title: 'a malformed frame is INVALID_REQUEST, does nothing, and leaves the connection usable',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      const message = signalMessage(conversation, [bob.to(), bob.to(10, { deviceId: 128 })])
      await a.refused({ signalMessage: message }, 'INVALID_REQUEST', 'a recipient with device id 128')
      a.raw(randomBytes(3).fill(0xff))
      const garbage = await a.take((frame) => frame.error != null, 'an error')
      same([codeIn(garbage), garbage.requestId], ['INVALID_REQUEST', 0], 'for bytes that are no frame')
      a.raw('hello')
      const text = await a.take((frame) => frame.error != null, 'an error')
      same([codeIn(text), text.requestId], ['INVALID_REQUEST', 0], 'for a text frame')
      await a.accepted(conversation, [bob.to(Buffer.from('after'))])
      same((await b.message()).ciphertext?.content, Buffer.from('after'), 'as the first message that came')
      return 'refused with the request_id, or 0 where there is none; the next send was the first to arrive'
    },
  },
  {
    clauses: ['C-7.1'],
    title: 'five malformed frames in a row end with 4400; a well-formed one starts the count again',
    async run(kit) {
      const socket = await (await kit.user()).live()
      const bad = [Buffer.from([0xff, 0xff]), 'text', unknownBody(1), Buffer.from([0xff])]
      const malformed = async (): Promise<ServerFrame[]> => {
        for (const each of bad) socket.raw(each)
        const errors: ServerFrame[] = []
        for (const _ of bad) errors.push(await socket.take((frame) => frame.error != null, 'an error'))
        return errors
      }
      await malformed()
      await socket.fence()
      await malformed()
      await socket.fence()
      await malformed()
      socket.raw(Buffer.from([0xff]))
      same(await socket.end(), 4400, 'as close code')
      return '4 and 4 with an ack between them are forgiven, 5 in a row are not'
    },
  },
  {
    clauses: ['C-7.2', 'L-1'],
    title: 'above the frame limit TOO_LARGE, above 1.25 MiB 1009, above 2.5 MiB the end',
    async run(kit) {
      const device = await kit.user()
      const socket = await device.live()
      const most = socket.hello.limits?.frameBytes ?? 1024 * 1024
      const frame = (bytes: number): Buffer => {
        const head = encode({ requestId: 77, reauthenticate: { token: '' } }).subarray(0, 2)
        // Field 600, bytes: unknown, so that only its size counts.
        const tag = Buffer.concat([varint(BigInt((600 << 3) | 2)), varint(BigInt(bytes - 9))])
        return Buffer.concat([head, tag, Buffer.alloc(bytes - head.length - tag.length)])
      }
      socket.raw(frame(most + 1000))
      same(kindOf(await socket.answer(77)), 'TOO_LARGE', `for ${most + 1000} bytes`)
      await socket.fence()
      socket.raw(frame(1.25 * 1024 * 1024 + 1000))
      same(await socket.end(), 1009, 'above 1.25 MiB, as close code')
      const other = await device.live()
      other.raw(frame(2.5 * 1024 * 1024 + 1000))
      const code = await other.end()
      hold(code === 1006 || code === 1009, '1006 above 2.5 MiB', code)
      return `TOO_LARGE under its request_id and usable; 1009; ${code}`
    },
  },
]
