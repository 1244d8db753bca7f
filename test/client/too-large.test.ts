// A connection that the relay ended over the size of a message: that message is not sent again. [C-8]
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, live, quiet, say, shown, texts, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

it('1009: the largest message under way fails and is not sent again, the others go on', async () => {
  const wire = new Tamper()
  const [alice, bob, carol] = [await joined(relay, { transport: wire }), await joined(relay), await joined(relay)]
  const [small, large] = [await alice.conversations.direct(bob.userId), await alice.conversations.direct(carol.userId)]
  await say(alice, small, 'hello')
  await say(alice, large, 'hello')
  await quiet(alice)
  const held: string[] = []
  wire.passes = ({ signalMessage }) => {
    if (signalMessage) held.push(Buffer.from(signalMessage.clientMessageId!).toString('hex'))
    return !signalMessage
  }
  const failed = until(alice, 'message_changed', ({ state }) => state === 'failed')
  const [short, long] = [alice.send(small, { text: 'short' }), alice.send(large, { text: 'long '.repeat(500) })]
  while (held.length < 2) await new Promise(setImmediate)
  wire.passes = null
  wire.cut(1009)
  expect(await failed).toMatchObject({ id: long.id, failure: 'TOO_LARGE' })
  alice.disconnect()
  await live(alice)
  await shown(bob, small, 'short')
  await quiet(alice)
  const sends = wire.sent.filter(
    ({ signalMessage }) =>
      Buffer.from(signalMessage?.clientMessageId ?? []).toString('hex') === long.id.replaceAll('-', ''),
  )
  expect(sends).toHaveLength(1)
  expect(short.id).not.toBe(long.id)
  expect(texts(carol, large)).toEqual(['hello'])
  await Promise.all([alice, bob, carol].map((each) => each.close()))
})
