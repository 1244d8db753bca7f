// What another device of one's own has read, when the frame that tells it is lost or comes too early. [G-4.2]
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Cancel, systemTime, type Time } from '../../client/index.ts'
import type { sealpost } from '../../proto/generated/relay.js'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, linked, quiet, say, shown, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

/** Timers of this length, run when the test says so; every other one is the machine's. */
function heldTime(fromMs: number, toMs: number): { time: Time; run(): void; count(): number } {
  const held = new Set<() => void>()
  const after = (ms: number, call: () => void): Cancel => {
    if (ms < fromMs || ms > toMs) return systemTime.after(ms, call)
    held.add(call)
    return () => held.delete(call)
  }
  const run = () => {
    for (const each of [...held]) if (held.delete(each)) each()
  }
  return { time: { ...systemTime, after }, run, count: () => held.size }
}

it('what one device has read is asked for now and then: the frame that tells it may be lost', async () => {
  const [alice, bob, wire] = [await joined(relay), await joined(relay), new Tamper()]
  const { time, run } = heldTime(7 * 60_000, 13 * 60_000)
  const tablet = await linked(bob, relay, { time, transport: wire })
  const conversation = await alice.conversations.direct(bob.userId)
  const one = await say(alice, conversation, 'one')
  for (const each of [bob, tablet]) await shown(each, conversation, 'one')
  let lost: () => void
  const left = new Promise<void>((resolve) => {
    lost = resolve
  })
  wire.frames = (frame) => {
    if (!frame.statusUpdate?.ownReads?.length) return [frame]
    lost()
    return []
  }
  bob.markRead(conversation)
  await left
  await quiet(tablet)
  expect(tablet.unread(conversation)).toBe(1)
  const learnt = until(tablet, 'read')
  run()
  expect(await learnt).toEqual({ conversationId: conversation, messageId: one.messageId })
  expect(tablet.unread(conversation)).toBe(0)
  // Of nothing unread nothing is asked, and it goes on.
  await quiet(tablet)
  const asked = wire.requests.length
  run()
  await quiet(tablet)
  expect(wire.requests.length).toBe(asked)
  await Promise.all([alice, bob, tablet].map((each) => each.close()))
  run()
  expect(wire.requests.length).toBe(asked)
})

it('a mark that comes before the message it is about makes it read', async () => {
  const [alice, bob, wire] = [await joined(relay), await joined(relay), new Tamper()]
  const { time, run } = heldTime(7_000, 7_000)
  const tablet = await linked(bob, relay, { time, transport: wire })
  const conversation = await alice.conversations.direct(bob.userId)
  await shown(tablet, conversation, (await say(alice, conversation, 'zero')).body.text!)
  const late: sealpost.v1.ServerFrame[] = []
  wire.frames = (frame) => {
    if (!frame.envelope?.ciphertext) return [frame]
    late.push(frame)
    return []
  }
  await shown(bob, conversation, (await say(alice, conversation, 'one')).body.text!)
  const learnt = until(tablet, 'read')
  bob.markRead(conversation)
  await learnt
  wire.frames = null
  for (const each of late) wire.say(each)
  await shown(tablet, conversation, 'one')
  expect(tablet.unread(conversation)).toBe(1)
  const corrected = until(tablet, 'read')
  run()
  await corrected
  expect(tablet.unread(conversation)).toBe(0)
  await Promise.all([alice, bob, tablet].map((each) => each.close()))
})

it('a relay that says Hello again and again is asked no more often for that', async () => {
  const [wire, { time, count }] = [new Tamper(), heldTime(7 * 60_000, 13 * 60_000)]
  const hellos: sealpost.v1.ServerFrame[] = []
  wire.frames = (frame) => {
    if (frame.hello) hellos.push(frame)
    return [frame]
  }
  const bob = await joined(relay, { time, transport: wire })
  for (let more = 0; more < 3; more++) {
    const isLive = until(bob, 'state', ({ name }) => name === 'live')
    wire.say(hellos[0]!)
    wire.say({ queueEmpty: {} })
    await isLive
    expect(count()).toBe(1)
  }
  await bob.close()
  expect(count()).toBe(0)
})

it('the mark that this device set itself makes nothing read that came after it was set', async () => {
  const [alice, wire, { time, run, count }] = [await joined(relay), new Tamper(), heldTime(7 * 60_000, 13 * 60_000)]
  const bob = await joined(relay, { time, transport: wire })
  const conversation = await alice.conversations.direct(bob.userId)
  await shown(bob, conversation, (await say(alice, conversation, 'one')).body.text!)
  const late: sealpost.v1.ServerFrame[] = []
  wire.frames = (frame) => {
    if (!frame.envelope?.ciphertext) return [frame]
    late.push(frame)
    return []
  }
  await say(alice, conversation, 'two')
  await expect.poll(() => late.length, { timeout: 20_000 }).toBe(1)
  wire.frames = null
  await shown(bob, conversation, (await say(alice, conversation, 'three')).body.text!)
  bob.markRead(conversation)
  await quiet(bob)
  wire.say(late[0]!)
  await shown(bob, conversation, 'two')
  expect(bob.unread(conversation)).toBe(1)
  const asked = wire.requests.length
  run()
  await quiet(bob)
  expect([bob.unread(conversation), wire.requests.length]).toEqual([1, asked + 1])
  // The same is unread as the last time: the next time is later.
  expect(count()).toBe(1)
  run()
  await quiet(bob)
  expect([wire.requests.length, count()]).toEqual([asked + 2, 0])
  await Promise.all([alice, bob].map((each) => each.close()))
})
