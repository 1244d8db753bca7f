// The SDK's process dies between any two steps, and a new one goes on with the same store: nothing is lost, doubled or undecryptable.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Device, MemoryStorage } from '../../client/index.ts'
import { wsTransport } from '../../client/node.ts'
import { Fate } from '../support/fate.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, live, quiet, say, shown, texts } from '../support/sdk.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

/** A device on this store that dies at that step of everything it does. */
const doomed = (storage: MemoryStorage, fate: Fate): Device =>
  device(relay, { storage: fate.storage(storage), transport: fate.transport(wsTransport()) })

/** Runs a doomed device at every step until one run outlives its work. @returns what it died at. */
async function everyStep(run: (fate: Fate) => Promise<void>): Promise<string[]> {
  const ends: string[] = []
  for (let step = 1; step < 200; step++) {
    const fate = new Fate(step)
    await run(fate)
    if (!fate.dead) return ends
    ends.push(fate.at)
  }
  throw new Error('it never ends')
}

describe('a crash between any two steps', () => {
  it('of a send to somebody known: the message arrives once', { timeout: 90_000 }, async () => {
    const [store, bob] = [new MemoryStorage(), await joined(relay)]
    const alice = await joined(relay, { storage: store })
    const conversation = await alice.conversations.direct(bob.userId)
    await say(alice, conversation, 'hello')
    await shown(bob, conversation, 'hello')
    await say(bob, conversation, 'hello yourself')
    await shown(alice, conversation, 'hello yourself')
    alice.disconnect()
    await quiet(alice)
    let n = 0
    const expected = ['hello', 'hello yourself']
    const ends = await everyStep(async (fate) => {
      const text = `message ${++n}`
      const first = doomed(store, fate)
      const sent = new Promise<void>((resolve) => {
        first.on('message_changed', ({ state }) => state === 'sent' && resolve())
      })
      try {
        first.send(conversation, { text })
      } catch {
        // It died before anything was promised.
      }
      first.connect()
      await Promise.race([sent, fate.death])
      if (!fate.dead) {
        await quiet(first)
        first.disconnect()
      }
      const second = await live(device(relay, { storage: store }))
      if (texts(second, conversation).includes(text)) {
        await shown(bob, conversation, text)
        expected.push(text)
      }
      await quiet(second)
      expect(texts(second, conversation), fate.at).toEqual(expected)
      expect(texts(bob, conversation), fate.at).toEqual(expected)
      const last = second.messages(conversation).at(-1)!.message
      expect(last.state, fate.at).not.toBe('sending')
      second.disconnect()
    })
    expect(ends.length).toBeGreaterThan(10)
    await bob.close()
  })
})
