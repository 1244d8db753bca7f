// Who is writing: how rarely the SDK tells it, when it stops showing it, and what is passed on by the relay. [G-1]
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Device, TypingEvent } from '../../client/index.ts'
import { uuidToBytes } from '../../proto/ids.ts'
import { FakeTime } from '../support/faketime.ts'
import { pass as passing } from '../support/passing.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, linked, live, quiet, say, shown, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

/** Two users with a conversation; the first one's time and wire are the test's. */
async function pair() {
  const [time, wire] = [new FakeTime(), new Tamper()]
  const [alice, bob] = [await joined(relay, { time, transport: wire }), await joined(relay)]
  const conversation = await alice.conversations.direct(bob.userId)
  await shown(bob, conversation, (await say(alice, conversation, 'hello')).body.text!)
  await quiet(alice)
  const pass = (ms: number) => passing(time, wire, ms)
  const told: { atMs: number; isTyping: boolean }[] = []
  const startMs = time.now()
  wire.passes = ({ typing }) => {
    if (typing) told.push({ atMs: time.now() - startMs, isTyping: typing.isTyping === true })
    return true
  }
  const events: TypingEvent[] = []
  alice.on('typing', (event) => events.push(event))
  const hear = (isTyping: boolean, deviceId = 1, userId = bob.userId, conversationId = conversation) =>
    wire.say({
      typing: { conversationId: uuidToBytes(conversationId), userId: uuidToBytes(userId), deviceId, isTyping },
    })
  const end = () => Promise.all([alice.close(), bob.close()])
  return { alice, bob, conversation, pass, wire, told, events, hear, end }
}

const typesFor = (it: Device, conversation: string, pass: (ms: number) => void, ms: number) => {
  for (let at = 0; at < ms; at += 100) {
    it.typing(conversation, true)
    pass(100)
  }
}

it('is told every 3 s while keys are struck, and ends after 2 s of silence', async () => {
  const { alice, conversation, pass, told, end } = await pair()
  typesFor(alice, conversation, pass, 10_000)
  pass(1899)
  expect(told).toEqual([0, 3000, 6000, 9000].map((atMs) => ({ atMs, isTyping: true })))
  pass(1)
  expect(told.at(-1)).toEqual({ atMs: 11_900, isTyping: false })
  pass(60_000)
  expect(told).toHaveLength(5)
  await end()
})

it('ends before the message that was written, once, and when the app says so', async () => {
  const { alice, conversation, pass, wire, told, end } = await pair()
  alice.typing(conversation, true)
  await say(alice, conversation, 'written')
  // Acks go between them as envelopes come.
  const kinds = wire.sent.filter(({ typing, signalMessage }) => typing || signalMessage)
  expect(kinds.slice(-3).map((frame) => (frame.typing ? frame.typing.isTyping === true : 'message'))).toEqual([
    true,
    false,
    'message',
  ])
  pass(10_000)
  alice.typing(conversation, true)
  alice.typing(conversation, false)
  alice.typing(conversation, false)
  pass(10_000)
  expect(told.map(({ isTyping }) => isTyping)).toEqual([true, false, true, false])
  await end()
})

it('short messages in a row do not tell it more often than every 3 s', async () => {
  const { alice, conversation, pass, told, end } = await pair()
  for (let i = 0; i < 10; i++) {
    typesFor(alice, conversation, pass, 500)
    alice.send(conversation, { text: 'ok' })
  }
  expect(told.filter(({ isTyping }) => isTyping).map(({ atMs }) => atMs)).toEqual([0, 3000])
  expect(told.filter(({ isTyping }) => !isTyping)).toHaveLength(2)
  await end()
})

it('conversations are told apart, and nothing is told or kept while offline', async () => {
  const { alice, bob, conversation, pass, told, end } = await pair()
  const carol = await joined(relay)
  const group = await alice.conversations.group([bob.userId, carol.userId])
  alice.typing(conversation, true)
  alice.typing(group, true)
  expect(told).toHaveLength(2)
  alice.disconnect()
  alice.typing(conversation, true)
  pass(10_000)
  await live(alice)
  expect(told).toHaveLength(2)
  alice.typing(conversation, true)
  expect(told).toHaveLength(3)
  await Promise.all([end(), carol.close()])
})

it('is shown until it stops or 6 s after it was last heard, and told only when it changes', async () => {
  const { bob, conversation, pass, events, hear, end } = await pair()
  const event = (isTyping: boolean) => ({ conversationId: conversation, userId: bob.userId, isTyping })
  hear(true)
  pass(3000)
  hear(true)
  pass(5999)
  expect(events).toEqual([event(true)])
  pass(1)
  expect(events).toEqual([event(true), event(false)])
  hear(false)
  expect(events).toHaveLength(2)
  hear(true)
  hear(false)
  pass(60_000)
  expect(events).toEqual([true, false, true, false].map(event))
  await end()
})

it('several devices of one user are one who writes until the last of them stops', async () => {
  const { pass, events, hear, end } = await pair()
  hear(true, 1)
  pass(2000)
  hear(true, 2)
  hear(false, 1)
  expect(events.map(({ isTyping }) => isTyping)).toEqual([true])
  pass(5999)
  expect(events).toHaveLength(1)
  pass(1)
  expect(events.map(({ isTyping }) => isTyping)).toEqual([true, false])
  await end()
})

it('ends when a message of that user arrives, on whatever device it was written', async () => {
  const { alice, bob, conversation, pass, events, hear, end } = await pair()
  hear(true, 1)
  hear(true, 2)
  const order: string[] = []
  alice.on('typing', ({ isTyping }) => order.push(String(isTyping)))
  alice.on('message', ({ body }) => order.push(body.text!))
  await say(bob, conversation, 'here it is')
  await shown(alice, conversation, 'here it is')
  expect(order).toEqual(['false', 'here it is'])
  pass(60_000)
  expect(events).toHaveLength(2)
  await end()
})

it('nobody writes on a lost connection', async () => {
  const { alice, events, hear, wire, end } = await pair()
  hear(true)
  wire.cut(1006)
  expect(events.map(({ isTyping }) => isTyping)).toEqual([true, false])
  expect(alice.state.name).toBe('offline')
  await end()
})

it('whoever is not a member is not shown, whatever the relay says', async () => {
  const { alice, bob, conversation, events, hear, end } = await pair()
  hear(true, 1, randomUUID())
  hear(true, 1, bob.userId, randomUUID())
  hear(true, 4000, bob.userId)
  hear(true, 1, alice.userId)
  expect(events).toEqual([])
  hear(true, 1, bob.userId, conversation)
  expect(events).toHaveLength(1)
  await end()
})

it('reaches every device of the other members over the relay, and none of one’s own', async () => {
  const { alice, bob, conversation, pass, events, end } = await pair()
  const [tablet, laptop] = [await linked(bob, relay), await linked(alice, relay)]
  await laptop.conversations.direct(bob.userId)
  // A new device shows nobody's writing before it has found out whose conversations it is in.
  await quiet(tablet)
  const own: TypingEvent[] = []
  laptop.on('typing', (event) => own.push(event))
  for (const isTyping of [true, false]) {
    const heard = [bob, tablet].map((each) => until(each, 'typing', (event) => event.isTyping === isTyping))
    if (isTyping) alice.typing(conversation, true)
    else pass(2000)
    const event = { conversationId: conversation, userId: alice.userId, isTyping }
    expect(await Promise.all(heard)).toEqual([event, event])
  }
  // Whatever the relay sent before this arrived before this.
  await shown(laptop, conversation, (await say(bob, conversation, 'fence')).body.text!)
  expect([own, events]).toEqual([[], []])
  await Promise.all([end(), tablet.close(), laptop.close()])
})
