// A relay that limits sends, as the SDK's user meets it: later, in order, and nothing else. [S-9.4] [S-9.5]
import { afterAll, beforeAll, expect, it } from 'vitest'
import { liftedRates } from '../../server/limits.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, quiet, say, shown, texts } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay({ config: { limits: { ...liftedRates(), messages: [{ burst: 3, everyMs: 200 }] } } })
})
afterAll(() => relay.close())

it('what is refused is sent again when it may, the same bytes once accepted, and arrives in order', async () => {
  const wire = new Tamper()
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
  expect(sends.length).toBeGreaterThan(new Set(sends).size)
  expect(new Set(sends).size).toBeGreaterThanOrEqual(7)
})
