// Typing: who hears of it, who does not, and that nothing of it stays. [G-1] I12
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes } from '../../proto/ids.ts'
import { openLocalHub } from '../../server/bus/local.ts'
import { openLocalPresence } from '../../server/bus/presence.ts'
import { Client, idOf, type Socket } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { send, typing, unasked } from '../support/signals.ts'

const { ErrorCode } = sealpost.v1
const time = new FakeTime()
const nodes = {
  bus: openLocalHub((error) => {
    throw error
  }),
  presence: openLocalPresence(),
}
let relay: TestRelay
let far: TestRelay
let [ann, bob, cy]: Client[] = []
let bobs: Client
let group = ''
beforeAll(async () => {
  relay = await testRelay({ time, nodes })
  far = await testRelay({ time, nodes, db: relay.db })
  ;[ann, bob, cy] = await Promise.all([Client.register(relay), Client.register(relay), Client.register(relay)])
  bobs = await bob!.link()
  group = await ann!.group([bob!, cy!])
})
afterAll(async () => {
  await far.close()
  await relay.close()
})

let open: Socket[] = []
beforeEach(() => {
  // Buckets are full again; far ahead of everybody's clock nobody may register.
  time.advance(6_000)
  return async () => {
    await Promise.all(open.map((each) => each.close()))
    open = []
  }
})
const live = async (...clients: (Client | undefined)[]): Promise<Socket[]> => {
  const sockets = await Promise.all(clients.map((each) => each!.live()))
  open.push(...sockets)
  return sockets
}
/** The same device on the other node. */
const elsewhere = (client: Client): Client => Object.assign(Object.create(client), { url: far.url })

/** What it typed was passed on, whether the roster had to be read for it or not: typing keeps its order, and this is refused behind it. */
const passed = async (socket: Socket | undefined): Promise<void> => {
  const { error } = await socket!.ask(typing(ann!.userId))
  expect(error?.code).toBe(ErrorCode.ERROR_CODE_INVALID_REQUEST)
}
const heard = async (socket: Socket): Promise<string[]> =>
  (await unasked(socket, 'typing')).map(({ typing: t }) => {
    expect(idOf(t!.conversationId)).toBe(group)
    return `${idOf(t!.userId) === ann!.userId ? 'ann' : 'bob'}.${t!.deviceId} ${t!.isTyping ? 'writes' : 'stopped'}`
  })

describe('who hears of it [G-1.1]', () => {
  it('every connected device of the other members, and none of one’s own; no answer', async () => {
    const [a, b, b2, c] = await live(ann, bob, bobs, cy)
    b!.write(typing(group))
    await passed(b)
    expect(await heard(a!)).toEqual(['bob.1 writes'])
    expect(await heard(c!)).toEqual(['bob.1 writes'])
    for (const own of [b!, b2!]) expect(await heard(own)).toEqual([])
    expect(b!.frames.filter((each) => !each.queueEmpty)).toEqual([])
  })

  it('devices of a member on any node', async () => {
    const [a] = await live(ann)
    const [b, b2] = await live(bob, elsewhere(bobs))
    a!.write(typing(group))
    await passed(a)
    expect(await heard(b!)).toEqual(['ann.1 writes'])
    expect(await heard(b2!)).toEqual(['ann.1 writes'])
  })

  it('who writes is the relay’s word, whatever the frame says', async () => {
    const [a, b] = await live(ann, bob)
    a!.write({
      typing: { conversationId: uuidToBytes(group), isTyping: true, userId: uuidToBytes(cy!.userId), deviceId: 77 },
    })
    await passed(a)
    expect(await heard(b!)).toEqual(['ann.1 writes'])
  })

  it('also a device that has not asked for its queue yet', async () => {
    const [a] = await live(ann)
    await send(a!, group, bob!, bobs, cy!)
    const held = await bob!.connect()
    open.push(held)
    expect(held.hello.queueWaiting).toBe(true)
    a!.write(typing(group))
    await passed(a)
    expect(await heard(held)).toEqual(['ann.1 writes'])
    expect(held.envelopes()).toEqual([])
  })

  it('a stop never overtakes its start, also when the roster has to be read first', async () => {
    const fresh = await ann!.group([bob!, cy!])
    const [a, b] = await live(ann, bob)
    a!.write(typing(fresh, true))
    a!.write(typing(fresh, false))
    expect((await b!.next('typing')).isTyping).toBe(true)
    expect((await b!.next('typing')).isTyping ?? false).toBe(false)
  })

  it('of a device that was linked after the roster was read', async () => {
    const dee = await Client.register(relay)
    const id = await dee.group([bob!, cy!])
    const [d, b] = await live(dee, bob)
    d!.write(typing(id))
    expect((await b!.next('typing')).deviceId).toBe(1)
    const [d2] = await live(await dee.link())
    d2!.write(typing(id))
    expect((await b!.next('typing')).deviceId).toBe(2)
  })

  it('nobody who was removed, on any node, and who was added at once', async () => {
    const [dee, eve] = await Promise.all([Client.register(relay), Client.register(relay)])
    const moving = await ann!.group([bob!, dee])
    const [a, d, e] = await live(ann, elsewhere(dee), eve)
    const far1 = (await live(elsewhere(bob!)))[0]!
    for (const socket of [a!, far1]) {
      socket.write(typing(moving))
      await d!.next('typing')
    }
    await ann!.delete(`/v1/conversations/${moving}/members/${dee.userId}`)
    await ann!.post(`/v1/conversations/${moving}/members`, { user_ids: [eve.userId] })
    for (const socket of [a!, far1]) {
      socket.write(typing(moving))
      await e!.next('typing')
    }
    expect(await unasked(d!, 'typing')).toEqual([])
  })
})

describe('refusals are those of a send [S-9.1] [S-9.2]', () => {
  it.each<[string, (stranger: Client) => Promise<string>]>([
    ['a conversation nobody made', async () => '99999999-9999-4999-8999-999999999999'],
    ['one of other people', async () => group],
    [
      'one the user was removed from',
      async (former) => {
        const id = await ann!.group([former, bob!])
        await ann!.delete(`/v1/conversations/${id}/members/${former.userId}`)
        return id
      },
    ],
    [
      'an archived one',
      async (member) => {
        const id = await ann!.direct(member)
        await ann!.post(`/v1/conversations/${id}/archive`)
        return id
      },
    ],
  ])('%s', async (_what, make) => {
    const other = await Client.register(relay)
    const id = await make(other)
    const [socket, watching] = await live(other, bob)
    const sent = await socket!.send(id, [bob!.to()])
    expect(sent.error).toBeTruthy()
    expect((await socket!.ask(typing(id))).error).toEqual(sent.error)
    expect(await unasked(watching!, 'typing')).toEqual([])
  })

  it('an unknown and a foreign conversation are one answer (I13)', async () => {
    const [socket] = await live(await Client.register(relay))
    const [unknown, foreign] = [await socket!.ask(typing(ann!.userId)), await socket!.ask(typing(group))]
    expect(unknown.error).toEqual(foreign.error)
    expect(unknown.error?.code).toBe(ErrorCode.ERROR_CODE_INVALID_REQUEST)
  })
})

describe('too often [G-1.4]', () => {
  it('five at once, then one a second, for all devices of the user together; without a word', async () => {
    const [b, b2, a] = await live(bob, bobs, ann)
    for (let i = 0; i < 4; i++) b!.write(typing(group))
    await passed(b)
    for (let i = 0; i < 4; i++) b2!.write(typing(group))
    await passed(b2)
    expect(await heard(a!)).toEqual([...Array(4).fill('bob.1 writes'), 'bob.2 writes'])
    a!.frames.length = 0
    time.advance(999)
    b!.write(typing(group))
    await passed(b)
    expect(await heard(a!)).toEqual([])
    time.advance(1)
    b!.write(typing(group))
    b!.write(typing(group))
    await passed(b)
    expect(await heard(a!)).toEqual(['bob.1 writes'])
    expect(b!.frames.filter((each) => !each.queueEmpty)).toEqual([])
  })

  it('another conversation has its own measure', async () => {
    const [b, a] = await live(bob, ann)
    const direct = await ann!.direct(bob!)
    b!.write(typing(direct))
    await a!.next('typing')
    for (let i = 0; i < 6; i++) b!.write(typing(group))
    b!.write(typing(direct))
    await passed(b)
    const all = await unasked(a!, 'typing')
    expect(all.filter((each) => idOf(each.typing!.conversationId) === group)).toHaveLength(5)
    expect(all.filter((each) => idOf(each.typing!.conversationId) === direct)).toHaveLength(1)
  })

  it('thirty of a device at once, then ten a second: RATE_LIMITED, and how long to wait is true', async () => {
    const [socket] = await live(cy)
    const unknown = typing(ann!.userId)
    for (let i = 0; i < 30; i++)
      expect((await socket!.ask(unknown)).error?.code).toBe(ErrorCode.ERROR_CODE_INVALID_REQUEST)
    const { error } = await socket!.ask(unknown)
    expect([error?.code, error?.retryAfterMs]).toEqual([ErrorCode.ERROR_CODE_RATE_LIMITED, 100])
    time.advance(99)
    expect((await socket!.ask(unknown)).error?.code).toBe(ErrorCode.ERROR_CODE_RATE_LIMITED)
    time.advance(1)
    expect((await socket!.ask(unknown)).error?.code).toBe(ErrorCode.ERROR_CODE_INVALID_REQUEST)
  })
})

describe('it leaves nothing behind I12', () => {
  it('no row, no line in the log, and nobody who comes later hears of it', async () => {
    const content = async () =>
      (
        await relay.db.database.sql`select (select count(*) from messages) as messages,
          (select count(*) from message_deliveries) as deliveries, (select count(*) from dead_letters) as letters,
          (select count(*) from read_marks) as marks`
      )[0]
    const [a, c] = await live(ann, cy)
    const before = await content()
    const lines = relay.logged.length
    a!.write(typing(group))
    await passed(a)
    expect(await heard(c!)).toEqual(['ann.1 writes'])
    expect(await content()).toEqual(before)
    expect(relay.logged.slice(lines).filter((line) => /typing/i.test(line))).toEqual([])
    const [late] = await live(bob)
    expect(await heard(late!)).toEqual([])
  })

  it('who does not read gets none of it, and is no reason to keep it', async () => {
    const [a, b, c] = await live(ann, bob, cy)
    b!.ws.pause()
    // Large envelopes fill what the network and the relay hold for Bob.
    const large = Buffer.alloc(90_000)
    for (let i = 0; i < 60; i++) {
      const { messageAccepted } = await a!.send(group, [bob!.to(large), bobs.to(), cy!.to()])
      expect(messageAccepted).toBeTruthy()
    }
    const leftOut = async (): Promise<number> => {
      const text = await (await fetch(`${relay.url}/metrics`)).text()
      return Number(/signals_left_out_total\{kind="typing"\} (\d+)/.exec(text)?.[1] ?? 0)
    }
    const before = await leftOut()
    a!.write(typing(group))
    await passed(a)
    expect(await heard(c!)).toEqual(['ann.1 writes'])
    expect(await leftOut()).toBe(before + 1)
    b!.ws.resume()
    await b!.fence()
    expect(await heard(b!)).toEqual([])
    await b!.drain()
    a!.write(typing(group, false))
    await passed(a)
    expect(await heard(b!)).toEqual(['ann.1 stopped'])
  })
})
