// What one's own user has read: counted, told to the relay until it has it, and known on one's other devices. [G-4]
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MemoryStorage, type ReadEvent } from '../../client/index.ts'
import { wsTransport } from '../../client/node.ts'
import type { sealpost } from '../../proto/generated/relay.js'
import { uuidFromBytes, uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { FakeTime } from '../support/faketime.ts'
import { Fate } from '../support/fate.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, linked, live, quiet, say, shown, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

describe('over the relay', () => {
  it('what one device has read is read on the others, at once or when they come back', async () => {
    const [alice, bob] = [await joined(relay), await joined(relay)]
    const [tablet, laptop] = [await linked(bob, relay), await linked(bob, relay)]
    const conversation = await alice.conversations.direct(bob.userId)
    await say(alice, conversation, 'one')
    const two = await say(alice, conversation, 'two')
    for (const each of [bob, tablet, laptop]) await shown(each, conversation, 'two')
    laptop.disconnect()
    expect([bob, tablet, laptop].map((each) => each.unread(conversation))).toEqual([2, 2, 2])
    const learnt = until(tablet, 'read')
    bob.markRead(conversation)
    expect(await learnt).toEqual({ conversationId: conversation, messageId: two.messageId })
    const later = until(laptop, 'read')
    await live(laptop)
    expect(await later).toEqual({ conversationId: conversation, messageId: two.messageId })
    expect([bob, tablet, laptop].map((each) => each.unread(conversation))).toEqual([0, 0, 0])
    await Promise.all([alice, bob, tablet, laptop].map((each) => each.close()))
  })

  it('what is read offline is told when the device is connected again', async () => {
    const [alice, storage] = [await joined(relay), new MemoryStorage()]
    const bob = await joined(relay, { storage })
    const conversation = await alice.conversations.direct(bob.userId)
    const message = await say(alice, conversation, 'hello')
    await shown(bob, conversation, 'hello')
    await quiet(bob)
    bob.disconnect()
    bob.markRead(conversation)
    const again = device(relay, { storage })
    expect(again.unread(conversation)).toBe(0)
    const read = until(alice, 'message_changed', ({ id, state }) => id === message.id && state === 'read')
    await live(again)
    await read
    await Promise.all([alice.close(), again.close()])
  })

  it('a crash between any two steps of a read mark loses none', { timeout: 60_000 }, async () => {
    const [alice, store] = [await joined(relay), new MemoryStorage()]
    const bob = await joined(relay, { storage: store })
    const conversation = await alice.conversations.direct(bob.userId)
    await shown(bob, conversation, (await say(alice, conversation, 'hello')).body.text!)
    await quiet(bob)
    bob.disconnect()
    let ends = 0
    for (let step = 1; ; step++) {
      const message = await say(alice, conversation, `message ${step}`)
      const reading = await live(device(relay, { storage: store }))
      await shown(reading, conversation, `message ${step}`)
      await quiet(reading)
      reading.disconnect()
      const fate = new Fate(step)
      const doomed = device(relay, { storage: fate.storage(store), transport: fate.transport(wsTransport()) })
      try {
        doomed.markRead(conversation)
      } catch {
        // It died before anything was promised.
      }
      doomed.connect()
      await Promise.race([fate.death, doomed.once('state', ({ name }) => name === 'live').then(() => quiet(doomed))])
      if (fate.dead) ends++
      doomed.disconnect()
      const after = device(relay, { storage: store })
      if (after.unread(conversation) > 0) after.markRead(conversation)
      await live(after)
      await quiet(after)
      const [mark] = await relay.db.database.sql`select read_up_to from read_marks where user_id = ${after.userId}`
      expect(mark, fate.at).toEqual({ read_up_to: message.messageId })
      after.disconnect()
      if (!fate.dead) break
    }
    expect(ends).toBeGreaterThan(5)
    await alice.close()
  })
})

describe('whatever the relay says', () => {
  /** A reader whose receipts the test answers. */
  async function scripted() {
    const [time, wire, storage] = [new FakeTime(), new Tamper(), new MemoryStorage()]
    const [alice, bob] = [await joined(relay), await joined(relay, { time, transport: wire, storage })]
    const conversation = await alice.conversations.direct(bob.userId)
    const ids: string[] = []
    const receive = async (text: string) => {
      ids.push((await say(alice, conversation, text)).messageId)
      await shown(bob, conversation, text)
      await quiet(bob)
    }
    for (const text of ['one', 'two', 'three']) await receive(text)
    const told: string[] = []
    type Reply = Partial<sealpost.v1.ServerFrame.$Properties> | null
    let reply: (messageId: string) => Reply = () => ({ readReceiptCommitted: {} })
    wire.passes = ({ readReceipt, requestId }) => {
      if (!readReceipt) return true
      const messageId = uuidFromBytes(readReceipt.messageId!)
      told.push(messageId)
      const answer = reply(messageId)
      if (answer) queueMicrotask(() => wire.say({ requestId, ...answer }))
      return false
    }
    const replies = (how: typeof reply) => {
      reply = how
    }
    const events: ReadEvent[] = []
    bob.on('read', (event) => events.push(event))
    const ownRead = (messageId: string, conversationId = conversation) =>
      wire.say({
        statusUpdate: {
          ownReads: [{ conversationId: uuidToBytes(conversationId), messageId: uuidToBytes(messageId) }],
        },
      })
    const reconnect = async () => {
      bob.disconnect()
      await live(bob)
      await quiet(bob)
    }
    const end = () => Promise.all([alice.close(), bob.close()])
    return { alice, bob, conversation, ids, receive, time, wire, told, replies, events, ownRead, reconnect, end }
  }

  it('a mark moves forward only, and is told once', async () => {
    const { bob, conversation, ids, told, reconnect, end } = await scripted()
    const [one, two, three] = ids as [string, string, string]
    bob.markRead(conversation, two)
    await quiet(bob)
    expect([told, bob.unread(conversation)]).toEqual([[two], 1])
    bob.markRead(conversation, one)
    bob.markRead(conversation, two)
    await quiet(bob)
    expect(told).toEqual([two])
    bob.markRead(conversation)
    bob.markRead(conversation)
    await quiet(bob)
    expect([told, bob.unread(conversation)]).toEqual([[two, three], 0])
    await reconnect()
    expect(told).toEqual([two, three])
    await end()
  })

  it('it is told again on the next connections until it is committed', async () => {
    const { bob, conversation, ids, told, replies, reconnect, end } = await scripted()
    const three = ids[2]!
    replies(() => null)
    bob.markRead(conversation)
    expect(told).toEqual([three])
    replies(() => ({ readReceiptCommitted: {} }))
    await reconnect()
    expect(told).toEqual([three, three])
    await reconnect()
    expect(told).toHaveLength(2)
    await end()
  })

  it('while one mark is under way, only the latest of the others follows it', async () => {
    const { bob, conversation, ids, wire, told, replies, end } = await scripted()
    const [one, two, three] = ids as [string, string, string]
    replies(() => null)
    bob.markRead(conversation, one)
    bob.markRead(conversation, two)
    bob.markRead(conversation, three)
    expect(told).toEqual([one])
    replies(() => ({ readReceiptCommitted: {} }))
    wire.say({ requestId: wire.sent.findLast(({ readReceipt }) => readReceipt)!.requestId, readReceiptCommitted: {} })
    await quiet(bob)
    expect(told).toEqual([one, three])
    await end()
  })

  it('a relay that is busy is told later, one that refuses a mark is not told it again', async () => {
    const { bob, conversation, ids, told, replies, receive, time, reconnect, end } = await scripted()
    const three = ids[2]!
    replies(() => ({ error: { code: 7, retryAfterMs: 3000 } }))
    bob.markRead(conversation)
    await new Promise(setImmediate)
    replies(() => ({ error: { code: 1 } }))
    time.advance(3000)
    await quiet(bob)
    expect(told).toEqual([three, three])
    await reconnect()
    expect(told).toHaveLength(2)
    await receive('four')
    replies(() => ({ readReceiptCommitted: {} }))
    bob.markRead(conversation)
    await quiet(bob)
    expect(told).toEqual([three, three, ids[3]])
    expect(bob.unread(conversation)).toBe(0)
    await end()
  })

  it('a defect of the relay at one mark does not keep the others from it', async () => {
    const { bob, conversation, ids, told, replies, reconnect, end } = await scripted()
    const carol = await joined(relay)
    const other = await carol.conversations.direct(bob.userId)
    const { messageId } = await say(carol, other, 'from carol')
    await shown(bob, other, 'from carol')
    replies((id) => (id === ids[2] ? { error: { code: 12 } } : { readReceiptCommitted: {} }))
    bob.markRead(conversation)
    bob.markRead(other)
    await quiet(bob)
    expect(new Set(told)).toEqual(new Set([ids[2], messageId]))
    told.length = 0
    await reconnect()
    expect(told).toEqual([ids[2]])
    await Promise.all([end(), carol.close()])
  })

  it('what was read elsewhere is told once, and never goes back', async () => {
    const { bob, conversation, ids, told, events, ownRead, end } = await scripted()
    const [one, two] = ids as [string, string]
    ownRead(two)
    ownRead(two)
    ownRead(one)
    expect(events).toEqual([{ conversationId: conversation, messageId: two }])
    expect(bob.unread(conversation)).toBe(1)
    bob.markRead(conversation, one)
    await quiet(bob)
    expect(told).toEqual([])
    await end()
  })

  it('what another device has told is not told again by this one', async () => {
    const { bob, conversation, ids, told, ownRead, end } = await scripted()
    bob.disconnect()
    bob.markRead(conversation, ids[0])
    const reached = until(bob, 'state', ({ name }) => name === 'syncing')
    bob.connect()
    await reached
    ownRead(ids[1]!)
    await until(bob, 'state', ({ name }) => name === 'live')
    await quiet(bob)
    expect([told, bob.unread(conversation)]).toEqual([[], 1])
    await end()
  })

  it('a mark from the future is none: what comes later is still unread', async () => {
    const { bob, conversation, time, wire, events, receive, ownRead, reconnect, end } = await scripted()
    ownRead(uuidV7(time.now() + 3_600_000))
    ownRead('ffffffff-ffff-7fff-bfff-ffffffffffff')
    wire.answers = (request, answer) =>
      request.url.includes('/v1/conversations/') ? { status: 200, body: '{"read_up_to":"zzz"}' } : answer
    await reconnect()
    wire.answers = null
    expect([events, bob.unread(conversation)]).toEqual([[], 3])
    ownRead(uuidV7(time.now()), randomUUID())
    await receive('four')
    expect(bob.unread(conversation)).toBe(4)
    await end()
  })

  it('a device that is refused while it asks what was read elsewhere has not lost its store', async () => {
    const { bob, conversation, wire, reconnect, end } = await scripted()
    wire.answers = (request, answer) =>
      /conversations|oauth/.test(request.url) ? { status: 401, body: '{"error":{"code":"UNAUTHENTICATED"}}' } : answer
    await reconnect()
    expect(bob.state).toEqual({ name: 'live' })
    wire.answers = (request, answer) =>
      request.url.includes('/conversations/') ? { status: 200, body: '<html>' } : answer
    await reconnect()
    expect([bob.state, bob.unread(conversation)]).toEqual([{ name: 'live' }, 3])
    await end()
  })

  it('a message that comes late counts as unread until something at or after it is marked', async () => {
    const { bob, conversation, ids, ownRead, receive, time, end } = await scripted()
    ownRead(uuidV7(time.now() + 60_000))
    expect(bob.unread(conversation)).toBe(0)
    await receive('late')
    expect(bob.unread(conversation)).toBe(1)
    bob.markRead(conversation, ids[3])
    expect(bob.unread(conversation)).toBe(0)
    await end()
  })

  it('reactions and messages of one’s own do not count, and a message of elsewhere is no mark', async () => {
    const { alice, bob, conversation, ids, end } = await scripted()
    alice.send(conversation, { reaction: { messageId: ids[0]!, emoji: '👍', removed: false } })
    await until(bob, 'message', ({ body }) => body.reaction !== undefined)
    await say(bob, conversation, 'an answer')
    expect(bob.unread(conversation)).toBe(3)
    expect(() => bob.markRead(conversation, randomUUID())).toThrow('no such message')
    expect(() => bob.markRead(randomUUID(), ids[0])).toThrow('no such message')
    expect(bob.unread(conversation)).toBe(3)
    expect(bob.unread(randomUUID())).toBe(0)
    await end()
  })
})
