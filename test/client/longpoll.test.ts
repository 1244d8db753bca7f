// The SDK without a WebSocket: the same device, by HTTP alone. [C-9]
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Device, longPollTransport, MemoryStorage, type Transport, withFallback } from '../../client/index.ts'
import { wsTransport } from '../../client/node.ts'
import { delimited, withRequestId } from '../../client/transport/delimited.ts'
import { sealpost } from '../../proto/generated/relay.js'
import { testDatabase } from '../support/database.ts'
import { FakeTime } from '../support/faketime.ts'
import { ownPort } from '../support/ports.ts'
import { openProxy } from '../support/proxy.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, linked, live, quiet, say, shown, texts, until } from '../support/sdk.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

const polling = () => ({ transport: longPollTransport() })
const offline = (it: Device) => until(it, 'state', ({ name }) => name === 'offline')

it('a chat both ways, with one on a WebSocket and with one who polls as well; order and receipts as ever', async () => {
  const [alice, bob, cleo] = [await joined(relay, polling()), await joined(relay, polling()), await joined(relay)]
  const [ab, ac] = [await alice.conversations.direct(bob.userId), await alice.conversations.direct(cleo.userId)]
  for (let i = 0; i < 20; i++) alice.send(ab, { text: `to bob ${i}` })
  await shown(bob, ab, 'to bob 19')
  for (let i = 0; i < 20; i++) bob.send(ab, { text: `to alice ${i}` })
  await shown(alice, ab, 'to alice 19')
  const all = [
    ...Array.from({ length: 20 }, (_, i) => `to bob ${i}`),
    ...Array.from({ length: 20 }, (_, i) => `to alice ${i}`),
  ]
  expect(texts(bob, ab)).toEqual(all)
  expect(texts(alice, ab)).toEqual(all)

  const read = until(alice, 'message_changed', ({ state }) => state === 'read')
  await say(alice, ac, 'seen?')
  await shown(cleo, ac, 'seen?')
  cleo.markRead(ac)
  expect((await read).body.text).toBe('seen?')
  const writing = until(alice, 'typing')
  let isHeard = false
  writing.then(() => {
    isHeard = true
  })
  // Signals that come between two of her requests are lost. [C-9.8]
  while (!isHeard) {
    cleo.typing(ac, true)
    cleo.typing(ac, false)
    await new Promise((resolve) => setTimeout(resolve, 300))
  }
  expect((await writing).userId).toBe(cleo.userId)
  await Promise.all([alice.close(), bob.close(), cleo.close()])
})

it('what came while it was away comes in pages, once', async () => {
  const [alice, storage] = [await joined(relay), new MemoryStorage()]
  const bob = await joined(relay, { ...polling(), storage })
  const conversation = await alice.conversations.direct(bob.userId)
  await say(alice, conversation, 'first')
  await shown(bob, conversation, 'first')
  await quiet(bob)
  bob.disconnect()
  for (let i = 0; i < 230; i++) alice.send(conversation, { text: `${i}` })
  // One after the other, however long each takes.
  await quiet(alice)
  const again = await live(device(relay, { ...polling(), storage }))
  await shown(again, conversation, '229')
  expect(texts(again, conversation)).toEqual(['first', ...Array.from({ length: 230 }, (_, i) => `${i}`)])
  await again.settled()
  await Promise.all([alice.close(), again.close()])
})

it('a relay that goes away and comes back: it says so, waits, and goes on where it was', async () => {
  const db = await testDatabase()
  const port = await ownPort()
  const first = await testRelay({ db, config: { port } })
  const [alice, bob] = [await joined(first, polling()), await joined(first, polling())]
  const conversation = await alice.conversations.direct(bob.userId)
  await say(alice, conversation, 'before')
  await shown(bob, conversation, 'before')
  const away = [offline(alice), offline(bob)]
  await Promise.all([first.close(), ...away])
  alice.send(conversation, { text: 'written offline' })
  const back = await testRelay({ db, config: { port } })
  for (const each of [alice, bob]) each.retryNow()
  await shown(bob, conversation, 'written offline')
  expect(texts(bob, conversation)).toEqual(['before', 'written offline'])
  await Promise.all([alice.close(), bob.close()])
  await back.close()
  await db.close()
})

it('a network that goes away without a word', async () => {
  const proxy = await openProxy(relay.url)
  const bob = await joined({ url: proxy.url.replace(/\/$/, ''), realm: relay.realm }, polling())
  const alice = await joined(relay)
  const conversation = await alice.conversations.direct(bob.userId)
  const gone = offline(bob)
  await proxy.down()
  await gone
  await say(alice, conversation, 'are you there?')
  await proxy.up()
  bob.retryNow()
  await shown(bob, conversation, 'are you there?')
  await Promise.all([alice.close(), bob.close()])
  await proxy.close()
})

describe('the ends a socket has', () => {
  it('connected elsewhere: by a socket, and a socket by it', async () => {
    const storage = new MemoryStorage()
    const it = await joined(relay, { ...polling(), storage })
    const closed = until(it, 'state', ({ name }) => name === 'closed')
    const newer = await live(device(relay, { storage }))
    expect(await closed).toEqual({ name: 'closed', reason: 'connected_elsewhere' })
    const pushed = until(newer, 'state', ({ name }) => name === 'closed')
    const newest = await live(device(relay, { ...polling(), storage }))
    expect(await pushed).toEqual({ name: 'closed', reason: 'connected_elsewhere' })
    expect(newest.state.name).toBe('live')
    await newest.close()
  })

  it('unlinked', async () => {
    const primary = await joined(relay)
    // Who links waits on a WebSocket for the account.
    const [http, ws] = [longPollTransport(), wsTransport()]
    const open: Transport['open'] = (url, token, events) => (token === null ? ws : http).open(url, token, events)
    const laptop = await linked(primary, relay, { transport: { ...http, open } })
    const closed = until(laptop, 'state', ({ name }) => name === 'closed')
    const away = offline(laptop)
    await primary.unlink(laptop.deviceId)
    await away
    laptop.retryNow()
    expect(await closed).toEqual({ name: 'closed', reason: 'unlinked' })
    await primary.close()
  })

  it('something that is no relay: offline, and the device tries again', async () => {
    const it = device(relay, { transport: { ...longPollTransport(), open: stray } })
    await it.register()
    const away = offline(it)
    it.connect()
    await away
    await it.close()
  })
  // A page of the relay's that is not protobuf, as a proxy's own would be.
  const stray: Transport['open'] = (url, token, events) =>
    longPollTransport().open(url.replace('/v1/ws', '/nowhere/v1/ws'), token, events)
})

describe('as a second way', () => {
  /** No WebSocket gets through. */
  const blocked = (): Transport & { tries: number } => {
    const it = {
      ...wsTransport(),
      tries: 0,
      open: ((_url, _token, events) => {
        it.tries++
        queueMicrotask(() => events.closed(1006, ''))
        return { send() {}, close() {} }
      }) as Transport['open'],
    }
    return it
  }

  it('is taken after two attempts that did not open, and the first is tried again when it ends', async () => {
    const ws = blocked()
    const it = device(relay, { transport: withFallback(ws, longPollTransport()) })
    await it.register()
    it.on('state', ({ name }) => {
      if (name === 'offline') queueMicrotask(() => it.retryNow())
    })
    await live(it)
    expect(ws.tries).toBe(2)
    it.disconnect()
    await live(it)
    expect(ws.tries).toBe(3)
    await it.close()
  })

  it('is not taken while the first works', async () => {
    const never: Transport = { ...longPollTransport(), open: () => expect.unreachable() }
    const it = await joined(relay, { transport: withFallback(wsTransport(), never) })
    await it.close()
  })
})

describe('messages that are too large for a socket [C-9.4]', () => {
  const { ServerFrame } = sealpost.v1
  /** A relay whose sockets take very little. */
  function narrow(exchange: Transport['exchange']): Transport {
    const ws = wsTransport()
    const { exchange: _, ...rest } = ws
    return {
      ...rest,
      ...(exchange && { exchange }),
      open: (url, token, events) =>
        ws.open(url, token, {
          ...events,
          frame(bytes) {
            const frame = ServerFrame.decode(bytes)
            if (frame.hello) frame.hello.limits!.frameBytes = 500
            events.frame(ServerFrame.encode(frame).finish())
          },
        }),
    }
  }
  const long = (n: number) => `${n} `.repeat(300)

  it('go by HTTP, in their order; one whose answer was lost is sent again and comes once', async () => {
    let [sent, lost] = [0, 0]
    const exchange: Transport['exchange'] = async (...request) => {
      const answer = await wsTransport().exchange!(...request)
      if (++sent !== 2) return answer
      lost++
      throw new Error('the answer was lost')
    }
    const [alice, bob] = [await joined(relay, { transport: narrow(exchange) }), await joined(relay)]
    const conversation = await alice.conversations.direct(bob.userId)
    const all = [1, 2, 3].map(long)
    for (const text of all) alice.send(conversation, { text })
    await shown(bob, conversation, long(3))
    await quiet(alice)
    expect(texts(bob, conversation)).toEqual(all)
    expect([sent, lost]).toEqual([4, 1])
    await Promise.all([alice.close(), bob.close()])
  })

  it('fail where there is no such way', async () => {
    const [alice, bob] = [await joined(relay, { transport: narrow(undefined) }), await joined(relay)]
    const conversation = await alice.conversations.direct(bob.userId)
    const message = await say(alice, conversation, long(1), 'failed')
    expect(message.failure).toBe('TOO_LARGE')
    await Promise.all([alice.close(), bob.close()])
  })
})

it('a quiet connection asks nobody whether it lives', async () => {
  const [time, storage] = [new FakeTime(), new MemoryStorage()]
  const it = await joined(relay, { ...polling(), time, storage })
  await quiet(it)
  for (let i = 0; i < 30; i++) time.advance(1000)
  expect(it.state.name).toBe('live')
  await it.close()
})

describe('frames in the body of an answer', () => {
  it('are taken apart; cut off ones and lengths without end are refused', () => {
    const frames = [Buffer.alloc(0), Buffer.alloc(1, 7), Buffer.alloc(127, 1), Buffer.alloc(300, 2)]
    const body = Buffer.concat([[0], [1], [127], [0xac, 0x02]].flatMap((head, i) => [Buffer.from(head), frames[i]!]))
    expect(delimited(body).map((each) => Buffer.from(each))).toEqual(frames)
    for (const bad of [[1], [0x80], [2, 0], [0xff, 0xff, 0xff, 0xff, 0xff, 0x01]])
      expect(() => delimited(Uint8Array.from(bad))).toThrow(RangeError)
  })

  it('get the id of their request unless they have one', () => {
    const { ServerFrame } = sealpost.v1
    for (const id of [1, 127, 128, 2 ** 32, Number.MAX_SAFE_INTEGER]) {
      const bare = ServerFrame.encode({ ackCommitted: {} }).finish()
      expect(ServerFrame.decode(withRequestId(bare, id))).toMatchObject({ requestId: id, body: 'ackCommitted' })
      const own = ServerFrame.encode({ requestId: 9, ackCommitted: {} }).finish()
      expect(ServerFrame.decode(withRequestId(own, id)).requestId).toBe(9)
    }
  })
})
