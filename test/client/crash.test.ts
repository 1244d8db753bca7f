// The SDK's process dies between any two steps, and a new one goes on with the same store: nothing is lost, doubled or undecryptable.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Device, MemoryStorage, systemTime } from '../../client/index.ts'
import { wsTransport } from '../../client/node.ts'
import type { RelayError } from '../../proto/errors.ts'
import { Fate } from '../support/fate.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, live, quiet, say, shown, texts, until } from '../support/sdk.ts'

let relay: TestRelay
/** The relay's clock: it limits how often a device asks, and would be right to find this one hasty. */
let aheadMs = 0
beforeAll(async () => {
  relay = await testRelay({ clock: () => Date.now() + aheadMs })
})
afterAll(() => relay.close())

/** A device on this store that dies at that step of everything it does. */
const doomed = (storage: MemoryStorage, fate: Fate): Device =>
  device(relay, {
    storage: fate.storage(storage),
    transport: fate.transport(wsTransport()),
    time: fate.time(systemTime),
  })

/** Runs a doomed device at every step until one run outlives its work. @returns what it died at. */
async function everyStep(run: (fate: Fate) => Promise<void>): Promise<string[]> {
  const ends: string[] = []
  for (let step = 1; step < 200; step++) {
    aheadMs += 1500
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
      // What it does after the message is sent has steps, too, and a dead process is never quiet.
      await Promise.race([sent.then(() => quiet(first)), fate.death])
      if (!fate.dead) first.disconnect()
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

  it('of a first send to somebody never met: keys are fetched again if need be, the message arrives once', {
    timeout: 120_000,
  }, async () => {
    const store = new MemoryStorage()
    const alice = await joined(relay, { storage: store })
    await quiet(alice)
    const ends = await everyStep(async (fate) => {
      const bob = await joined(relay)
      alice.connect()
      const conversation = await alice.conversations.direct(bob.userId)
      alice.disconnect()
      await quiet(alice)
      const first = doomed(store, fate)
      const sent = new Promise<void>((resolve) => {
        first.on('message_changed', ({ state }) => state === 'sent' && resolve())
      })
      try {
        first.send(conversation, { text: 'nice to meet you' })
      } catch {
        // It died before anything was promised.
      }
      first.connect()
      await Promise.race([sent.then(() => quiet(first)), fate.death])
      if (!fate.dead) first.disconnect()
      const second = await live(device(relay, { storage: store }))
      await say(second, conversation, 'are you there?')
      await shown(bob, conversation, 'are you there?')
      expect(texts(bob, conversation), fate.at).toEqual(texts(second, conversation))
      await quiet(second)
      for (const each of [second, bob]) each.disconnect()
    })
    expect(ends.length).toBeGreaterThan(15)
  })

  it('of reading: every message is shown once, and the session goes on', { timeout: 120_000 }, async () => {
    const [store, alice] = [new MemoryStorage(), await joined(relay)]
    const bob = await joined(relay, { storage: store })
    const conversation = await alice.conversations.direct(bob.userId)
    await say(alice, conversation, 'hello')
    await shown(bob, conversation, 'hello')
    await quiet(bob)
    bob.disconnect()
    const expected = ['hello']
    let n = 0
    const ends = await everyStep(async (fate) => {
      for (const text of [`first ${++n}`, `second ${n}`]) {
        await say(alice, conversation, text)
        expected.push(text)
      }
      const first = doomed(store, fate)
      const read = new Promise<void>((resolve) => {
        first.on('message', ({ body }) => body.text === `second ${n}` && resolve())
      })
      first.connect()
      const isLive = until(first, 'state', ({ name }) => name === 'live')
      await Promise.race([Promise.all([read, isLive]).then(() => quiet(first)), fate.death])
      if (!fate.dead) first.disconnect()
      const second = await live(device(relay, { storage: store }))
      expect(texts(second, conversation), fate.at).toEqual(expected)
      await say(second, conversation, `answer ${n}`)
      expected.push(`answer ${n}`)
      await shown(alice, conversation, `answer ${n}`)
      await quiet(second)
      second.disconnect()
    })
    expect(ends.length).toBeGreaterThan(8)
    expect(texts(alice, conversation)).toEqual(expected)
  })

  it('of a key upload: every key the relay hands out can be used', { timeout: 120_000 }, async () => {
    const store = new MemoryStorage()
    const bob = await joined(relay, { storage: store })
    await quiet(bob)
    bob.disconnect()
    const { sql } = relay.db.database
    const ends = await everyStep(async (fate) => {
      await sql`delete from keys.one_time_prekeys where device_key in (select device_key from devices where user_id = ${bob.userId})`
      const first = doomed(store, fate)
      first.connect()
      await Promise.race([until(first, 'state', ({ name }) => name === 'live').then(() => quiet(first)), fate.death])
      first.disconnect()
      const second = await live(device(relay, { storage: store }))
      await quiet(second)
      const [stock] = await sql<[{ n: number }]>`select count(*) as n from keys.one_time_prekeys
        where device_key in (select device_key from devices where user_id = ${bob.userId})`
      expect(stock.n, fate.at).toBeGreaterThanOrEqual(100)
      const stranger = await joined(relay)
      const conversation = await stranger.conversations.direct(bob.userId)
      await say(stranger, conversation, 'with your newest keys')
      await shown(second, conversation, 'with your newest keys')
      // Otherwise every later run would ask about all of these conversations.
      second.markRead(conversation)
      await quiet(second)
      for (const each of [second, stranger]) each.disconnect()
    })
    expect(ends.length).toBeGreaterThan(8)
  })

  it('of a registration: the next try is a whole account', { timeout: 60_000 }, async () => {
    const ends = await everyStep(async (fate) => {
      const store = new MemoryStorage()
      const first = doomed(store, fate)
      await Promise.race([first.register().catch(() => {}), fate.death])
      const second = device(relay, { storage: store })
      if (!second.isRegistered)
        await second.register().catch((error: RelayError) => {
          expect(error.code, fate.at).toBe('CONFLICT')
          return second.register()
        })
      await live(second)
      await quiet(second)
      second.disconnect()
    })
    expect(ends.length).toBeGreaterThan(4)
  })
})
