// [C-9] [H-12]: the same frames without a WebSocket.
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import protobuf from 'protobufjs/minimal.js'
import { uuidFromBytes, uuidToBytes } from '../../../proto/ids.ts'
import { type Check, hold, same, there, Violation } from '../check.ts'
import { call, type Device } from '../device.ts'
import { type Answer, ok, statusOf } from '../http.ts'
import { type ClientBody, codeIn, type Envelope, kindOf, type ServerFrame, signalMessage, v1 } from '../socket.ts'
import type { Kit } from '../world.ts'
import { crowd } from './crowd.ts'

const PROTOBUF = { 'Content-Type': 'application/x-protobuf' }

const postBytes = (by: Device, body: Uint8Array, headers: Record<string, string> = PROTOBUF): Promise<Answer> =>
  call(by.relay, 'POST', '/v1/frames', { token: by.token, body, headers, withinMs: 30_000 })
const post = (by: Device, body: ClientBody): Promise<Answer> =>
  postBytes(by, v1.ClientFrame.encode({ requestId: 7, ...body }).finish())

function decoded({ status, bytes }: Answer): ServerFrame {
  try {
    return v1.ServerFrame.decode(bytes)
  } catch {
    throw new Violation(`expected a ServerFrame; saw HTTP ${status} ${bytes.toString().slice(0, 100)}`)
  }
}

/** The one frame of an answer. */
function frameOf(answer: Answer): ServerFrame {
  const frame = decoded(answer)
  const expected = frame.error ? statusOf(codeIn(frame)) : 200
  same(answer.status, expected, `with ${kindOf(frame)}, HTTP`)
  return frame
}
/** A message that the relay wants later is sent again then. [S-9.5] */
async function posted(by: Device, body: ClientBody): Promise<ServerFrame> {
  for (;;) {
    const frame = frameOf(await post(by, body))
    if (!body.signalMessage || codeIn(frame) !== 'RATE_LIMITED') return frame
    await sleep(frame.error?.retryAfterMs ?? 0)
  }
}
const ack = (...messageIds: (Uint8Array | null | undefined)[]): ClientBody => ({
  ack: { messageIds: messageIds.map((id) => id!) },
})

/** Asks for what waits, and reads the frames, each behind its length. */
async function poll(by: Device, query = ''): Promise<{ status: number; frames: ServerFrame[] }> {
  const path = `/v1/deliveries${query && `?${query}`}`
  const { status, bytes } = await call(by.relay, 'GET', path, { token: by.token, withinMs: 70_000 })
  const reader = protobuf.Reader.create(bytes)
  const frames: ServerFrame[] = []
  while (reader.pos < reader.len) frames.push(v1.ServerFrame.decode(reader.bytes()))
  return { status, frames }
}
const kinds = (frames: ServerFrame[]): string[] => frames.map(kindOf)
const envelopes = (frames: ServerFrame[]): Envelope[] =>
  frames.flatMap((each) => [...(each.syncResponse?.messages ?? []), ...(each.envelope ? [each.envelope] : [])])
const ids = (frames: ServerFrame[]) => envelopes(frames).map((each) => each.messageId)

/** Two users who know each other, without sockets. */
async function pair(kit: Kit): Promise<{ alice: Device; bob: Device; conversation: string }> {
  const [alice, bob] = (await kit.users(2)) as [Device, Device]
  return between(alice, bob)
}
async function between(alice: Device, bob: Device): Promise<{ alice: Device; bob: Device; conversation: string }> {
  const conversation = await alice.direct(bob)
  for (const each of [alice, bob]) await post(each, ack(...ids((await poll(each)).frames)))
  return { alice, bob, conversation }
}
async function say(by: Device, conversation: string, to: Device): Promise<Uint8Array> {
  const frame = await posted(by, { signalMessage: signalMessage(conversation, [to.to()]) })
  return there(frame.messageAccepted?.messageId, 'MessageAccepted')
}

export const frameOverHttpChecks: Check<Kit>[] = [
  {
    clauses: ['C-9', 'C-9.1', 'H-12', 'C-2.6'],
    title:
      'POST /v1/frames is answered by the one frame that answers; Typing by 204; what is about a connection is refused',
    async run(kit) {
      const { alice, bob, conversation } = await pair(kit)
      const sent = await posted(alice, { signalMessage: signalMessage(conversation, [bob.to()]) })
      same([kindOf(sent), sent.requestId], ['messageAccepted', 7], 'as answer')
      const waiting = await poll(bob)
      same(ids(waiting.frames), [sent.messageAccepted?.messageId], 'as what waits')
      same(kindOf(await posted(bob, ack(...ids(waiting.frames)))), 'ackCommitted', 'as answer')
      const octets = await postBytes(bob, v1.ClientFrame.encode({ requestId: 8, ...ack() }).finish(), {
        'Content-Type': 'application/octet-stream',
      })
      same(kindOf(frameOf(octets)), 'ackCommitted', 'for application/octet-stream')
      const typing = await post(alice, { typing: { conversationId: uuidToBytes(conversation), isTyping: true } })
      same([typing.status, typing.bytes.length], [204, 0], 'for Typing')
      for (const body of [
        { syncRequest: {} },
        { reauthenticate: { token: alice.token } },
        { presenceSubscription: {} },
      ] as ClientBody[])
        same(kindOf(await posted(alice, body)), 'INVALID_REQUEST', `for ${Object.keys(body)}`)
      return 'sent, read and acked without a socket; 204 for Typing; three refused'
    },
  },
  {
    clauses: ['C-9.2', 'E-1', 'H-3'],
    title: 'a refusal has its status, and the Error frame as its body',
    async run(kit) {
      const { alice, bob, conversation } = await pair(kit)
      const mismatch = await posted(alice, { signalMessage: signalMessage(conversation, []) })
      same([kindOf(mismatch), mismatch.requestId], ['DEVICE_MISMATCH', 7], 'for a missing device')
      same(mismatch.error?.deviceMismatch?.missing?.length, 1, 'as count of missing devices')
      same(
        kindOf(frameOf(await postBytes(alice, Buffer.from([0xff, 0xff])))),
        'INVALID_REQUEST',
        'for bytes that are no frame',
      )
      const text = await postBytes(alice, v1.ClientFrame.encode(ack()).finish(), { 'Content-Type': 'application/json' })
      same(kindOf(frameOf(text)), 'INVALID_REQUEST', 'for another content type')
      const none = await call(alice.relay, 'POST', '/v1/frames', {
        body: v1.ClientFrame.encode(ack()).finish(),
        headers: PROTOBUF,
      })
      same(kindOf(frameOf(none)), 'UNAUTHENTICATED', 'without a token')
      hold(
        /^Bearer/.test(none.headers.get('www-authenticate') ?? ''),
        'WWW-Authenticate: Bearer',
        none.headers.get('www-authenticate'),
      )
      const stranger = await call(bob.relay, 'GET', '/v1/deliveries', { token: 'garbage' })
      same(stranger.status, 401, 'for GET /v1/deliveries with a token that is none, HTTP')
      return '409 with the devices, 400 twice, 401 with WWW-Authenticate'
    },
  },
  {
    clauses: ['C-9.3', 'Q-7'],
    title: 'an Ack by POST is committed, frees the window of the device’s connection and displaces nobody',
    async run(kit) {
      const window = (await (await kit.user()).live()).hello.limits?.windowMessages ?? 256
      const { bob, b, send } = await crowd(kit, window + 5)
      await send(window + 5)
      const came: Envelope[] = []
      while (came.length < window) came.push(await b.message())
      same(
        kindOf(await posted(bob, ack(...came.slice(0, 5).map((each) => each.messageId)))),
        'ackCommitted',
        'as answer',
      )
      for (let at = 0; at < 5; at++) came.push(await b.message())
      same(b.closed, null, 'as end of the connection')
      await b.drain()
      return `${window} un-acked on the socket; 5 acked by POST, 5 more came`
    },
  },
  {
    clauses: ['C-9.4', 'L-1'],
    title: 'a message above 1 MiB goes by POST; another frame above 1 MiB, or anything above 16 MiB, is TOO_LARGE',
    withinMs: 60_000,
    async run(kit) {
      const [alice, ...others] = (await kit.users(13)) as [Device, ...Device[]]
      const group = await alice.group(others)
      const content = randomBytes(98_000)
      const large = signalMessage(
        group,
        others.map((each) => each.to(content)),
      )
      const sent = await posted(alice, { signalMessage: large })
      same(kindOf(sent), 'messageAccepted', `for ${12 * 98_000} bytes`)
      const last = await poll(others.at(-1)!)
      hold(
        ids(last.frames).some((id) => Buffer.compare(id!, sent.messageAccepted!.messageId!) === 0),
        'the message at the last member',
        ids(last.frames).length,
      )
      const token = { reauthenticate: { token: 'x'.repeat(1_100_000) } }
      hold(
        ['TOO_LARGE', 'INVALID_REQUEST'].includes(kindOf(await posted(alice, token))),
        'TOO_LARGE for a large frame of another kind',
        'none',
      )
      const acks = ack(...Array.from({ length: 70_000 }, () => randomBytes(16)))
      same(kindOf(await posted(alice, acks)), 'TOO_LARGE', 'for an Ack of 1.2 MiB')
      const huge = await postBytes(alice, Buffer.alloc(16 * 1024 * 1024 + 1)).then(
        (answer) => kindOf(frameOf(answer)),
        // The relay may end the connection while we still send.
        () => 'TOO_LARGE',
      )
      same(huge, 'TOO_LARGE', 'above 16 MiB')
      for (const each of others) await post(each, ack(...ids((await poll(each)).frames)))
      return `${12 * 98_000} bytes for 12 devices accepted; large acks and 16 MiB refused`
    },
  },
  {
    clauses: ['C-9.5', 'S-8.1'],
    title: 'messages sent one after the other by POST arrive in that order',
    async run(kit) {
      const { alice, bob, conversation } = await pair(kit)
      const sent: Uint8Array[] = []
      for (let at = 0; at < 8; at++) sent.push(await say(alice, conversation, bob))
      const { frames } = await poll(bob)
      same(ids(frames), sent, 'as order')
      await post(bob, ack(...sent))
      return '8 in order'
    },
  },
  {
    clauses: ['C-9.6', 'C-9.7', 'C-9.10'],
    title: 'GET /v1/deliveries is Hello, a page, and QueueEmpty after the last; it only reads',
    async run(kit) {
      const { alice, bob, conversation } = await pair(kit)
      const socket = await bob.connect()
      const sent = [
        await say(alice, conversation, bob),
        await say(alice, conversation, bob),
        await say(alice, conversation, bob),
      ]
      const first = await poll(bob, 'limit=2')
      same(
        [kinds(first.frames), ids(first.frames)],
        [['hello', 'syncResponse'], sent.slice(0, 2)],
        'as first page of two',
      )
      const { hello } = first.frames[0]!
      same(
        [uuidFromBytes(hello!.userId!), hello!.queueWaiting],
        [bob.userId, true],
        'as user and queue_waiting in Hello',
      )
      hold(
        first.frames.every((each) => each.requestId === 0),
        'request_id 0',
        first.frames.map((each) => each.requestId),
      )
      const rest = await poll(bob, `limit=2&last_message_id=${uuidFromBytes(sent[1]!)}`)
      same(
        [kinds(rest.frames), ids(rest.frames)],
        [['hello', 'syncResponse', 'queueEmpty'], sent.slice(2)],
        'as the rest',
      )
      same(ids((await poll(bob, 'wait_seconds=0')).frames), sent, 'un-acked, again')
      same(socket.closed, null, 'as end of the WebSocket')
      same((await socket.message()).messageId, sent[0], 'on the WebSocket')
      for (const query of [
        'limit=0',
        'limit=101',
        'limit=x',
        'wait_seconds=61',
        'wait_seconds=-1',
        'last_message_id=7',
      ])
        same((await poll(bob, query)).status, 400, `for ${query}, HTTP`)
      await post(bob, ack(...sent))
      same(ids((await poll(bob)).frames), [], 'when all is acked')
      return 'pages by cursor, the same again until acked, the WebSocket undisturbed; six bad queries refused'
    },
  },
  {
    clauses: ['C-9.8', 'C-5'],
    title: 'with wait_seconds it is the device’s connection: it displaces the older, and ends with what comes',
    async run(kit) {
      // Nobody has used them: a word on what they sent before would end the wait. [C-9.8]
      const { alice, bob, conversation } = await between(await kit.fresh(), await kit.fresh())
      const socket = await bob.live()
      const waiting = poll(bob, 'wait_seconds=30')
      same(await socket.end(), 4409, 'as close code of the WebSocket')
      const sent = await say(alice, conversation, bob)
      const { status, frames } = await waiting
      same([status, ids(frames)], [200, [sent]], 'as status and messages')
      await post(bob, ack(sent))
      const began = performance.now()
      const nothing = await poll(bob, 'wait_seconds=1')
      const seconds = (performance.now() - began) / 1000
      same([nothing.status, ids(nothing.frames)], [200, []], 'when nothing comes')
      hold(seconds > 0.8 && seconds < 8, 'an end after about a second', seconds)
      return `4409 for the WebSocket, one message at once; nothing after ${seconds.toFixed(1)} s`
    },
  },
  {
    clauses: ['C-9.9', 'C-6.3'],
    title: 'it ends early with CONFLICT when it is displaced, with UNAUTHENTICATED when the device is unlinked',
    async run(kit) {
      const bob = await kit.fresh()
      const tablet = await bob.link()
      // The WebSocket's end tells that the request has become the device's connection.
      const older = await tablet.live()
      const first = poll(tablet, 'wait_seconds=30')
      same(await older.end(), 4409, 'as close code of the older')
      const newer = await tablet.connect()
      const displaced = await first
      same([displaced.status, kinds(displaced.frames).at(-1)], [409, 'CONFLICT'], 'when it is displaced')
      const second = poll(tablet, 'wait_seconds=30')
      same(await newer.end(), 4409, 'as close code of the newer')
      ok(await bob.delete(`/v1/devices/${tablet.deviceId}`), 204)
      const gone = await second
      same([gone.status, kinds(gone.frames).at(-1)], [401, 'UNAUTHENTICATED'], 'when it is unlinked')
      return '409 CONFLICT, then 401 UNAUTHENTICATED'
    },
  },
]
