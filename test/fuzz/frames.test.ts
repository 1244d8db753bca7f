// Frames nobody meant: on a real socket each is answered once with a code of the list, and the connection lives on. I15 [C-7]
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { sealpost } from '../../proto/generated/relay.js'
import { Client } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import { frameVectors, makeWorld } from '../support/frame-vectors.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { mangled } from './mangle.ts'
import { runs, within } from './runs.ts'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void
const { ClientFrame, ErrorCode, ServerFrame } = sealpost.v1
const MiB = 1024 * 1024

const valid = frameVectors('valid')
// A large frame is no better a start than a small one, only slower.
const sources = [...valid, ...frameVectors('invalid')].map((each) => each.frame).filter((frame) => frame.length < 8192)

/** Moved along, so that no typing is too often. */
const time = new FakeTime()
let relay: TestRelay
let sender: Client
let ws: WebSocket
// Nothing of these comes by itself here: nobody else is connected.
const ANSWERS = new Set([
  ...['error', 'messageAccepted', 'syncResponse', 'ackCommitted', 'reauthenticated'],
  ...['presence', 'statusUpdate', 'readReceiptCommitted'],
])
/** What came as an answer, not by itself. */
let answers: sealpost.v1.ServerFrame[] = []
let closed: number | null = null
let arrived: () => void = () => {}

async function connect(): Promise<void> {
  ws = new WebSocket(relay.socketUrl, { headers: { Authorization: `Bearer ${sender.token}` } })
  closed = null
  let greeted = false
  ws.on('message', (data: Buffer) => {
    const frame = ServerFrame.decode(data)
    if (frame.hello) greeted = true
    if (ANSWERS.has(frame.body!)) answers.push(frame)
    arrived()
  })
  ws.on('close', (code) => {
    closed = code
    arrived()
  })
  await until(() => greeted)
  answers = []
}
const until = async (done: () => boolean): Promise<void> => {
  while (!done())
    await new Promise<void>((resolve) => {
      arrived = resolve
    })
}

beforeAll(async () => {
  relay = await testRelay({ time })
  sender = await Client.register(relay)
  await makeWorld(relay.db.database.sql, sender, valid[0]!.world)
  await connect()
})
afterAll(async () => {
  ws.terminate()
  await relay.close()
})

const FENCE = ClientFrame.encode({ requestId: Number.MAX_SAFE_INTEGER, ack: {} }).finish()

const conversation = Buffer.from(valid[0]!.world.conversation_id.replaceAll('-', ''), 'hex')
/** Typing in one's own conversation is the one thing that has no answer. [C-2.3] */
function hasAnswer(bytes: Uint8Array): boolean {
  try {
    const { typing, body, requestId } = ClientFrame.decode(bytes)
    return !(body === 'typing' && Number.isSafeInteger(requestId) && conversation.equals(typing!.conversationId!))
  } catch {
    return true
  }
}

/** Time moves on by so much; a connection ends with its token. */
async function goOn(ms: number): Promise<void> {
  time.advance(ms)
  if (time.nowMs < renewAtMs) return
  renewAtMs = time.nowMs + 30 * 60_000
  ws.close()
  await until(() => closed !== null)
  await sender.refresh()
  await connect()
}
let renewAtMs = time.nowMs + 30 * 60_000

/** Sends frames, and behind them one that is known to be right. */
async function converse(frames: Uint8Array[]): Promise<void> {
  await goOn(500)
  for (const frame of frames) ws.send(frame)
  ws.send(FENCE)
  const expected = frames.filter(hasAnswer).length + 1
  await until(() => answers.length >= expected || closed !== null)
  const got = answers.splice(0)
  expect(closed).toBe(null)
  expect(got.length).toBe(expected)
  for (const { error } of got) {
    if (!error) continue
    expect(ErrorCode[error.code!]).toMatch(/^ERROR_CODE_/)
    expect([ErrorCode.ERROR_CODE_UNSPECIFIED, ErrorCode.ERROR_CODE_INTERNAL]).not.toContain(error.code)
    expect(error.message).not.toBe('')
  }
}
/** Nothing surprised the relay. */
const calm = (): void => expect(relay.logged.splice(0).filter((line) => JSON.parse(line).level >= 50)).toEqual([])

// Fewer than five: none of these may end the connection.
const few = (frame: fc.Arbitrary<Uint8Array>) => fc.array(frame, { minLength: 1, maxLength: 4 })

it(
  'random bytes',
  async () => {
    const frame = fc.uint8Array({ maxLength: 300, size: 'max' })
    await fc.assert(fc.asyncProperty(few(frame), converse), runs(300))
    calm()
  },
  within(20_000),
)

it(
  'mutated, truncated, reordered and doubled frames',
  async () => {
    await fc.assert(fc.asyncProperty(few(mangled(sources)), converse), runs(500))
    calm()
  },
  within(30_000),
)

it(
  'right frames with any values in their fields',
  async () => {
    const id = fc.oneof(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.uint8Array({ maxLength: 20 }))
    const int = fc.oneof(fc.nat(130), fc.integer(), fc.constantFrom(-1, 2 ** 31 - 1, 2 ** 32 - 1))
    const text = fc.oneof(fc.string({ unit: 'binary', maxLength: 40 }), fc.constantFrom('\0', '\ud800', '{}', 'null'))
    const recipient = fc.record(
      { userId: id, deviceId: int, registrationId: int, ciphertextType: int, content: id, iv: id, withheld: int },
      { requiredKeys: [] },
    )
    const knownWorld = valid[0]!.world
    const conversationId = fc.oneof(id, fc.constant(conversation))
    const messageId = fc.oneof(id, fc.constant(Buffer.from(knownWorld.message_id.replaceAll('-', ''), 'hex')))
    const userId = fc.oneof(id, fc.constant(Buffer.from(knownWorld.user_id.replaceAll('-', ''), 'hex')))
    const typing = fc.record({ conversationId, isTyping: fc.boolean(), userId, deviceId: int }, { requiredKeys: [] })
    const fields = { clientMessageId: id, messageType: int, scope: fc.constantFrom(0, 1, 2, 3, -1), priority: int }
    const signalMessage = fc.record(
      {
        ...fields,
        conversationId,
        recipients: fc.array(recipient, { maxLength: 4 }),
        replyToMessageId: id,
        attachmentUrl: text,
        thumbnailUrl: text,
        urgent: fc.boolean(),
      },
      { requiredKeys: [] },
    )
    const body = fc.oneof(
      { weight: 4, arbitrary: fc.record({ signalMessage }) },
      fc.record({ ack: fc.record({ messageIds: fc.array(id, { maxLength: 5 }) }) }),
      fc.record({ syncRequest: fc.record({ lastMessageId: id, limit: int }) }),
      fc.record({ reauthenticate: fc.record({ token: text }) }),
      fc.record({ typing }),
      fc.record({ readReceipt: fc.record({ conversationId, messageId }, { requiredKeys: [] }) }),
      fc.record({ presenceSubscription: fc.record({ userIds: fc.array(userId, { maxLength: 5 }) }) }),
      fc.record({ statusRequest: fc.record({ messageIds: fc.array(messageId, { maxLength: 5 }) }) }),
    )
    const requestId = fc.oneof(fc.nat(), fc.maxSafeNat())
    const frame = fc
      .tuple(requestId, body)
      .map(([requestId, body]) =>
        ClientFrame.encode({ requestId, ...(body as sealpost.v1.ClientFrame.$Properties) }).finish(),
      )
    await fc.assert(fc.asyncProperty(few(frame), converse), runs(300))
    calm()
  },
  within(20_000),
)

it(
  'any number of frames at once: the only way out is 4400, and the door is open again',
  async () => {
    const frame = fc.oneof(fc.uint8Array({ maxLength: 40 }), mangled(sources), fc.constant(FENCE))
    await fc.assert(
      fc.asyncProperty(fc.array(frame, { minLength: 5, maxLength: 60 }), async (frames) => {
        await goOn(6_000)
        for (const each of frames) ws.send(each)
        ws.send(FENCE)
        const expected = frames.filter(hasAnswer).length + 1
        await until(() => answers.length >= expected || closed !== null)
        if (closed !== null) {
          expect(closed).toBe(4400)
          expect(answers.slice(-5).every((each) => each.error)).toBe(true)
          await connect()
        }
        answers = []
      }),
      runs(60),
    )
    calm()
  },
  within(30_000),
)

it(
  'memory stays flat',
  async () => {
    const frame = few(fc.oneof(fc.uint8Array({ maxLength: 300 }), mangled(sources)))
    const round = async (seed: number): Promise<number> => {
      await fc.assert(fc.asyncProperty(frame, converse), { ...runs(150), seed })
      relay.logged.length = 0
      gc()
      return process.memoryUsage().heapUsed + process.memoryUsage().external
    }
    await round(1)
    const before = await round(2)
    expect((await round(3)) - before).toBeLessThan(8 * MiB)
  },
  within(30_000),
)
