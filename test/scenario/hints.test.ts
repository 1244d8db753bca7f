// Two nodes and a bus that cannot be relied upon: hints lost, late, doubled and out of order harm nobody's queue. I11 I4
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import type { Hint } from '../../server/bus/bus.ts'
import { openLocalHub } from '../../server/bus/local.ts'
import { openLocalPresence } from '../../server/bus/presence.ts'
import { Client, idOf, type Socket } from '../support/client.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { send } from '../support/signals.ts'

/** What becomes of a hint on its way; default: nothing. */
let way: (hint: Hint, on: () => void) => void
const hub = openLocalHub((error) => {
  throw error
})
const nodes = {
  bus: (receive: (hint: Hint) => void) => hub((hint) => way(hint, () => receive(hint))),
  presence: openLocalPresence(),
}

let near: TestRelay
let far: TestRelay
let ann: Client
let bob: Client
let conversation: string
let from: Socket
let to: Socket
beforeAll(async () => {
  near = await testRelay({ nodes })
  far = await testRelay({ nodes, db: near.db })
})
afterAll(async () => {
  await far.close()
  await near.close()
})
beforeEach(async () => {
  way = (_hint, on) => on()
  ;[ann, bob] = await Promise.all([Client.register(near), Client.register(near)])
  conversation = await ann.direct(bob)
  from = await ann.live()
  to = await Object.assign(Object.create(bob), { url: far.url }).live()
  return async () => {
    await Promise.all([from.close(), to.close()])
  }
})

/** Sends so many, acks what comes, and ends when all have come. @returns sequences as they came. */
async function exchange(count: number): Promise<number[]> {
  const sent: string[] = []
  const came: number[] = []
  const ids: string[] = []
  const sending = (async () => {
    for (let i = 0; i < count; i++) sent.push(idOf(await send(from, conversation, bob)))
  })()
  while (ids.length < count) {
    const { messageId, sequence } = await to.next('envelope')
    came.push(sequence!)
    ids.push(idOf(messageId))
    await to.ack(messageId)
  }
  await sending
  expect([...ids].sort()).toEqual([...sent].sort())
  return came
}
const ascending = (count: number, [first]: number[]): number[] => Array.from({ length: count }, (_, i) => first! + i)

it('as it should be: what is sent on one node comes on the other, in order', async () => {
  const came = await exchange(50)
  expect(came).toEqual(ascending(50, came))
})

it('doubled, late and out of order: each envelope once, in order', async () => {
  let turn = 0
  way = (_hint, on) => {
    turn++
    on()
    setImmediate(on)
    setTimeout(on, (turn * 7) % 23)
  }
  const held: (() => void)[] = []
  const came = await exchange(60)
  expect(came).toEqual(ascending(60, came))
  way = (hint, on) => {
    if (hint.kind !== 'committed') return on()
    // Three at a time, the last first.
    held.push(on)
    if (held.length === 3) for (const each of held.splice(0).reverse()) each()
  }
  const more = await exchange(60)
  expect(more).toEqual(ascending(60, more))
  for (const each of held.splice(0)) each()
  await to.fence()
  expect(to.envelopes()).toEqual([])
})

it('without the envelope, only its place: the node reads it', async () => {
  way = (hint, on) => {
    if (hint.kind === 'committed') Object.assign(hint, { delivery: null })
    on()
  }
  const came = await exchange(30)
  expect(came).toEqual(ascending(30, came))
})

it('too large to be carried along: the same', async () => {
  let carried = 0
  way = (hint, on) => {
    if (hint.kind === 'committed' && hint.delivery) carried++
    on()
  }
  const { messageAccepted } = await from.send(conversation, [bob.to(Buffer.alloc(4097))])
  expect((await to.next('envelope')).messageId).toEqual(messageAccepted!.messageId)
  expect(carried).toBe(0)
  await send(from, conversation, bob)
  await to.next('envelope')
  expect(carried).toBe(1)
})

it('lost, all of them: everything comes by itself, in order', async () => {
  way = () => {}
  const came = await exchange(8)
  expect(came).toEqual(ascending(8, came))
})

it('lost, every other one: the next that comes shows the gap', async () => {
  let turn = 0
  way = (hint, on) => {
    if (hint.kind !== 'committed' || turn++ % 2) on()
  }
  const came = await exchange(40)
  expect(came).toEqual(ascending(40, came))
})

it('an unlink is heard of on the other node: 4401 at once', async () => {
  const second = await bob.link()
  const socket = await Object.assign(Object.create(second), { url: far.url }).connect()
  await bob.delete(`/v1/devices/${second.deviceId}`)
  expect(await socket.end()).toBe(4401)
})

it('keys that run low on one node are told on the other', async () => {
  const claimer = await Client.register(near)
  expect((await claimer.get(`/v1/keys/${bob.userId}/1`)).status).toBe(200)
  const { counts } = await to.next('keysLow')
  expect(counts).toBeTruthy()
})
