// A relay that limits sends, as the SDK's user meets it: later, in order, and nothing else. [S-9.4] [S-9.5]
import { setImmediate } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { MemoryStorage } from '../../client/index.ts'
import { Pace } from '../../client/pace.ts'
import { RelayError } from '../../proto/errors.ts'
import { sealpost } from '../../proto/generated/relay.js'
import { liftedRates } from '../../server/limits.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, quiet, say, shown, texts } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

const { ErrorCode, ServerFrame } = sealpost.v1

let relay: TestRelay
/** The relay's clock stands still until somebody waits: how fast this machine is decides nothing. */
const begunMs = Date.now()
let waitedMs = 0
beforeAll(async () => {
  const config = { limits: { ...liftedRates(), messages: [{ burst: 3, everyMs: 200 }] } }
  relay = await testRelay({ clock: () => begunMs + waitedMs, config })
})
afterAll(() => relay.close())

it('what is refused is sent again when it may, the same bytes once accepted, and arrives in order', async () => {
  const wire = new Tamper()
  let refused = 0
  wire.frames = (frame) => {
    if (frame.error?.retryAfterMs) refused++
    // The least that a client waits.
    if (frame.error?.retryAfterMs) waitedMs += Math.max(frame.error.retryAfterMs, 500)
    return [frame]
  }
  const [alice, bob] = [await joined(relay, { transport: wire }), await joined(relay)]
  const chat = await alice.conversations.direct(bob.userId)
  await say(alice, chat, 'first')
  const words = ['one', 'two', 'three', 'four', 'five', 'six']
  for (const text of words) alice.send(chat, { text })
  await shown(bob, chat, 'six')
  await quiet(alice)
  expect(texts(bob, chat)).toEqual(['first', ...words])
  const sends = wire.sent.flatMap(({ signalMessage }) =>
    signalMessage ? [Buffer.from(signalMessage.clientMessageId!).toString('hex')] : [],
  )
  // Some were refused at first, and came again under their own ids.
  expect(refused).toBeGreaterThan(0)
  expect(sends.length).toBeGreaterThan(new Set(sends).size)
  expect(new Set(sends).size).toBeGreaterThanOrEqual(7)
})

it('however many conversations wait, after a refusal one message asks whether it may, and no other', async () => {
  const narrow = await testRelay({
    config: { limits: { ...liftedRates(), messages: [{ burst: 3, everyMs: 3_600_000 }] } },
  })
  const [wire, time] = [new Tamper(), new FakeTime()]
  let refused = 0
  let answered = 0
  // As if an hour were over sooner than the relay thinks: it refuses again.
  wire.frames = (frame) => {
    if (frame.messageAccepted || frame.error) answered++
    if (frame.error?.retryAfterMs) {
      frame.error.retryAfterMs = 2000
      refused++
    }
    return [frame]
  }
  const [alice, bob, carol] = [
    await joined(narrow, { transport: wire, time }),
    await joined(narrow),
    await joined(narrow),
  ]
  const sends = () => wire.sent.filter((each) => each.signalMessage).length
  const chats: string[] = []
  for (let at = 0; at < 12; at++) chats.push(await alice.conversations.group([bob.userId, carol.userId]))
  for (const chat of chats) alice.send(chat, { text: 'hello' })
  while (refused === 0 || sends() > answered) await wire.heard()
  const before = sends()
  for (let asked = 1; asked <= 3; asked++) {
    const told = refused
    // Whoever was refused has planned to wait by then.
    await setImmediate()
    time.advance(2000)
    while (refused === told) await wire.heard()
    expect(sends()).toBe(before + asked)
  }
  // Who waits for its turn learns that it is over now, and leaves no timer behind.
  alice.disconnect()
  await alice.settled()
  expect(time.nextMs()).toBe(Number.POSITIVE_INFINITY)
  await Promise.all([alice.close(), bob.close(), carol.close()])
  await narrow.close()
})

it('a clock that is put back after a refusal makes nothing wait for that long', async () => {
  const time = new FakeTime()
  const pace = new Pace(time, () => Promise.reject(new Error('it waits')))
  const refused = new RelayError('RATE_LIMITED', 'too many messages', { retryAfterMs: 2000 })
  await expect(pace.run(() => Promise.reject(refused))).rejects.toBe(refused)
  time.nowMs -= 3_600_000
  const asked = pace.run(async () => 'asked')
  await setImmediate()
  expect(time.nextMs()).toBe(Number.POSITIVE_INFINITY)
  expect(await asked).toBe('asked')
})

it('a device is closed at once while it waits for a page of its queue, however long the relay said', async () => {
  const [wire, time] = [new Tamper(), new FakeTime()]
  const storage = new MemoryStorage()
  const carol = await joined(relay, { transport: wire, time, storage })
  await quiet(carol)
  let refused = 0
  wire.frames = (frame) => {
    if (!frame.syncResponse) return [frame]
    refused++
    const error = { code: ErrorCode.ERROR_CODE_RATE_LIMITED, message: '', retryAfterMs: 30_000 }
    return [ServerFrame.create({ requestId: frame.requestId, error })]
  }
  carol.disconnect()
  carol.connect()
  while (refused === 0) await wire.heard()
  // It has planned to wait by then.
  await setImmediate()
  await carol.close()
  expect(time.nextMs()).toBe(Number.POSITIVE_INFINITY)
  expect(refused).toBe(1)
})
