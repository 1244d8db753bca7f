// Message status: what counts, who is told, and that the numbers told by themselves are those of the database. [G-3]
import fc from 'fast-check'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { openLocalHub } from '../../server/bus/local.ts'
import { openLocalPresence } from '../../server/bus/presence.ts'
import { Client, idOf, type Socket } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { inTime, type Progress, pass, progress, progressOf, read, send, take, unasked } from '../support/signals.ts'

const { ErrorCode, Scope, Withheld } = sealpost.v1
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
beforeAll(async () => {
  relay = await testRelay({ time, nodes })
  far = await testRelay({ time, nodes, db: relay.db })
})
afterAll(async () => {
  await far.close()
  await relay.close()
})

let open: Socket[] = []
beforeEach(async () => {
  time.set(Date.now())
  ;[ann, bob, cy] = await Promise.all([Client.register(relay), Client.register(relay), Client.register(relay)])
  return async () => {
    await Promise.all(open.map((each) => each.close()))
    open = []
    await pass(time, 4_000)
  }
})
const live = async (client: Client | undefined): Promise<Socket> => {
  const socket = await client!.live()
  open.push(socket)
  return socket
}
const elsewhere = (client: Client | undefined): Client => Object.assign(Object.create(client!), { url: far.url })
const told = async (socket: Socket): Promise<Progress> => progressOf(await inTime(time, socket.next('statusUpdate', 0)))
const is = (messageId: Uint8Array, numbers: string): Progress => ({ [idOf(messageId)]: numbers })

describe('delivered', () => {
  it('the first ack of a user: told once a second at most, to every device of the sender, on every node', async () => {
    const second = await ann!.link()
    const conversation = await ann!.direct(bob!)
    const [a, a2, b] = [await live(ann), await live(elsewhere(second)), await live(bob)]
    const ids = [await send(a, conversation, bob!, second), await send(a, conversation, bob!, second)]
    for (const _ of ids) await take(a2)
    expect(await unasked(a, 'statusUpdate')).toEqual([])
    for (const _ of ids) await take(b)
    await pass(time, 1_000)
    for (const own of [a, a2]) expect(await told(own)).toEqual({ ...is(ids[0]!, '1/0'), ...is(ids[1]!, '1/0') })
    await pass(time, 2_000)
    for (const each of [a, a2, b]) expect(await unasked(each, 'statusUpdate')).toEqual([])
  })

  it('users are counted, not devices; one’s own devices not at all', async () => {
    const [second, bobs] = [await ann!.link(), await bob!.link()]
    const group = await ann!.group([bob!, cy!])
    const [a, a2, b, b2, c] = [
      await live(ann),
      await live(second),
      await live(bob),
      await live(elsewhere(bobs)),
      await live(elsewhere(cy)),
    ]
    const id = await send(a, group, second, bob!, bobs, cy!)
    await take(a2)
    expect(await progress(a, id)).toEqual(is(id, '0/0'))
    await take(b2)
    expect(await told(a)).toEqual(is(id, '1/0'))
    await take(b)
    await take(c)
    expect(await told(a)).toEqual(is(id, '2/0'))
    expect(await progress(a2, id)).toEqual(is(id, '2/0'))
    await pass(time, 2_000)
    await progress(a, id)
    expect(await unasked(a, 'statusUpdate')).toEqual([])
  })

  it('not what was withheld, and not what the relay says', async () => {
    const conversation = await ann!.direct(bob!)
    const [a, b] = [await live(ann), await live(bob)]
    const none = { ciphertextType: 0, content: new Uint8Array(0), withheld: Withheld.WITHHELD_UNTRUSTED_IDENTITY }
    const { messageAccepted } = await a.send(conversation, [{ ...bob!.to(), ...none }])
    const withheld = messageAccepted!.messageId!
    await take(b)
    await ann!.post(`/v1/conversations/${conversation}/archive`)
    const event = await take(b)
    const conversation2 = await ann!.direct(bob!)
    await take(b)
    const id = await send(a, conversation2, bob!)
    await take(b)
    expect(await told(a)).toEqual(is(id, '1/0'))
    expect(await progress(a, withheld, event, id)).toEqual({ ...is(withheld, '0/0'), ...is(id, '1/0') })
  })

  it('an ack on a later connection counts as well, whatever it says besides', async () => {
    const conversation = await ann!.direct(bob!)
    const [a, b] = [await live(ann), await live(bob)]
    const none = { ciphertextType: 0, content: new Uint8Array(0), withheld: Withheld.WITHHELD_NOT_IN_ROSTER }
    const { messageAccepted } = await a.send(conversation, [{ ...bob!.to(), ...none }])
    const id = await send(a, conversation, bob!)
    for (let i = 0; i < 2; i++) await b.next('envelope')
    await b.close()
    const again = await bob!.connect()
    open.push(again)
    await again.ack(messageAccepted!.messageId, id, uuidToBytes(uuidV7(Date.now())))
    expect(await told(a)).toEqual(is(id, '1/0'))
    expect(await progress(a, messageAccepted!.messageId!)).toEqual(is(messageAccepted!.messageId!, '0/0'))
  })

  it('stays when the device is unlinked, and when the user leaves', async () => {
    const bobs = await bob!.link()
    const group = await ann!.group([bob!, cy!])
    const [a, b2, c] = [await live(ann), await live(bobs), await live(cy)]
    const id = await send(a, group, bob!, bobs, cy!)
    await take(b2)
    await take(c)
    await read(c, group, id)
    await bob!.delete(`/v1/devices/${bobs.deviceId}`)
    await cy!.delete(`/v1/conversations/${group}/members/${cy!.userId}`)
    expect(await progress(a, id)).toEqual(is(id, '2/1'))
  })
})

describe('StatusRequest [G-3.2]', () => {
  it('answers one’s own messages; others’, unknown and forgotten ones are left out alike (I13)', async () => {
    const conversation = await ann!.direct(bob!)
    const [a, b] = [await live(ann), await live(bob)]
    const [mine, theirs] = [await send(a, conversation, bob!), await send(b, conversation, ann!)]
    const old = uuidToBytes(uuidV7(Date.now() - 40 * 24 * 3600 * 1000))
    const strange = new Uint8Array(16).fill(255)
    expect(await progress(a, mine, theirs, old, strange, mine)).toEqual(is(mine, '0/0'))
    expect(await progress(b, mine, theirs)).toEqual(is(theirs, '0/0'))
    expect(await progress(await live(cy), mine, theirs)).toEqual({})
    const { statusUpdate } = await a.ask({ statusRequest: { messageIds: [mine] } })
    expect(idOf(statusUpdate!.messages![0]!.conversationId)).toBe(conversation)
  })

  it('whoever asked is told of what moves from then on', async () => {
    const conversation = await ann!.direct(bob!)
    const [a, b] = [await live(ann), await live(bob)]
    const id = await send(a, conversation, bob!)
    await a.close()
    await take(b)
    const again = await live(ann)
    expect(await progress(again, id)).toEqual(is(id, '1/0'))
    await read(b, conversation, id)
    expect(await told(again)).toEqual(is(id, '1/1'))
  })

  it('thirty at once, then one a second: RATE_LIMITED', async () => {
    const a = await live(ann)
    for (let i = 0; i < 30; i++) await progress(a)
    const { error } = await a.ask({ statusRequest: {} })
    expect([error?.code, error?.retryAfterMs]).toEqual([ErrorCode.ERROR_CODE_RATE_LIMITED, 1_000])
    time.advance(1_000)
    await progress(a)
  })
})

describe('what is told by itself', () => {
  it('grows, and ends where the database says: groups and pairs, two nodes, many devices, in any order', async () => {
    const [annTwo, bobTwo] = [await ann!.link(), await bob!.link()]
    const [group, pair] = [await ann!.group([bob!, cy!]), await ann!.direct(bob!)]
    const senders = [await live(ann), await live(elsewhere(annTwo))]
    const others = { b: await live(bob), b2: await live(elsewhere(bobTwo)), c: await live(cy) }
    const marks = { b: 'b', b2: 'b', c: 'c' }
    const step = fc.record({
      who: fc.constantFrom('b' as const, 'b2' as const, 'c' as const),
      what: fc.constantFrom('ack', 'ack', 'read', 'pass'),
      which: fc.nat(20),
      wait: fc.constantFrom(0, 100, 300, 700),
    })
    const round = async (steps: { who: 'b' | 'b2' | 'c'; what: string; which: number; wait: number }[]) => {
      const [a] = senders
      for (const each of senders) each!.frames.length = 0
      const ids: { id: Uint8Array; where: string }[] = []
      for (let i = 0; i < 6; i++)
        ids.push(
          i % 2
            ? { where: pair, id: await send(a!, pair, annTwo, bob!, bobTwo) }
            : { where: group, id: await send(a!, group, annTwo, bob!, bobTwo, cy!) },
        )
      const has = new Map<string, Set<string>>()
      const marked = new Map<string, string>()
      for (const { who, what, which, wait } of steps) {
        await pass(time, wait)
        const { id, where } = ids[which % ids.length]!
        const text = idOf(id)
        if (what === 'pass' || (where === pair && who === 'c')) continue
        if (what === 'ack') {
          await others[who].ack(id)
          has.set(text, (has.get(text) ?? new Set()).add(marks[who]))
        } else {
          await read(others[who], where, id)
          const key = `${marks[who]} ${where}`
          if (text > (marked.get(key) ?? '')) marked.set(key, text)
        }
      }
      const expected = Object.fromEntries(
        ids.map(({ id, where }) => {
          const users = [...(has.get(idOf(id)) ?? [])]
          const readers = users.filter((user) => (marked.get(`${user} ${where}`) ?? '') >= idOf(id))
          return [idOf(id), `${users.length}/${readers.length}`]
        }),
      )
      // Rates of requests are another test's.
      time.advance(2_000)
      expect(await progress(a!, ...ids.map((each) => each.id))).toEqual(expected)
      for (const sender of senders) {
        const last: Progress = Object.fromEntries(ids.map(({ id }) => [idOf(id), '0/0']))
        const take = () => {
          for (const frame of sender!.frames.splice(0)) {
            if (!frame.statusUpdate) continue
            for (const [id, numbers] of Object.entries(progressOf(frame.statusUpdate))) {
              if (!(id in last)) continue
              const [before, now] = [last[id]!.split('/').map(Number), numbers.split('/').map(Number)]
              expect(now[0]! >= before[0]! && now[1]! >= before[1]! && now.join() !== before.join()).toBe(true)
              last[id] = numbers
            }
          }
        }
        let turns = 0
        for (take(); JSON.stringify(last) !== JSON.stringify(expected); take()) {
          if (++turns > 300) throw new Error(`told ${JSON.stringify(last)}, not ${JSON.stringify(expected)}`)
          await pass(time, 100)
          await sender!.fence()
        }
      }
      for (const each of Object.values(others)) await each.ack(...ids.map(({ id }) => id))
      for (const each of Object.values(others)) each.frames.length = 0
    }
    await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 12 }), round), { numRuns: 12 })
  })

  it('a retry to some devices counts for what it is: a message of its own', async () => {
    const conversation = await ann!.direct(bob!)
    const [a, b] = [await live(ann), await live(bob)]
    const { messageAccepted } = await a.send(conversation, [bob!.to()], { scope: Scope.SCOPE_SUBSET })
    await take(b)
    expect(await told(a)).toEqual(is(messageAccepted!.messageId!, '1/0'))
  })
})
