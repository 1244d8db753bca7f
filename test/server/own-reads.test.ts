// A user's mark and his other devices: told to each that is connected, whatever comes between the commit and them. [G-4.2]
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { openLocalHub } from '../../server/bus/local.ts'
import { openLocalPresence } from '../../server/bus/presence.ts'
import { ReadMarks } from '../../server/read-marks.ts'
import { deviceKeyOf } from '../support/backlog.ts'
import { Client, idOf, Socket } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { inTime, pass, progress, read, take, unasked } from '../support/signals.ts'
import { holdLocks } from './barrier.ts'

const time = new FakeTime()
const nodes = {
  bus: openLocalHub((error) => {
    throw error
  }),
  presence: openLocalPresence(),
}
let relay: TestRelay
let far: TestRelay
beforeAll(async () => {
  relay = await testRelay({ time, nodes, lockMs: 60_000 })
  far = await testRelay({ time, nodes, db: relay.db, lockMs: 60_000 })
})
afterAll(async () => {
  await far.close()
  await relay.close()
})

let open: Socket[] = []
let [ann, bob]: Client[] = []
let conversation = ''
beforeEach(async () => {
  time.set(Date.now())
  ;[ann, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
  conversation = await ann!.direct(bob!)
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
const message = async (from: Socket, ...to: Client[]): Promise<Uint8Array> =>
  (
    await from.send(
      conversation,
      to.map((each) => each.to()),
    )
  ).messageAccepted!.messageId!

const ownReads = async (socket: Socket): Promise<[string, string][]> => {
  const { ownReads } = await inTime(time, socket.next('statusUpdate', 0))
  return ownReads!.map((each) => [idOf(each.conversationId), idOf(each.messageId)])
}

it('a mark that was committed by a node which ended before it told anybody is told to them when it is repeated, once', async () => {
  const { sql } = far.db.database
  const [second, third] = [await bob!.link(), await bob!.link()]
  const [a, b, b2, b3] = [await live(ann), await live(bob), await live(second), await live(elsewhere(third))]
  const id = await message(a, bob!, second, third)
  await take(b)
  await inTime(time, a.next('statusUpdate', 0))
  await new ReadMarks(sql).move({ userId: bob!.userId, conversationId: conversation, messageId: idOf(id) })
  for (const each of [b2, b3]) expect(await unasked(each, 'statusUpdate')).toEqual([])
  await read(b, conversation, id)
  for (const each of [b2, b3]) expect(await ownReads(each)).toEqual([[conversation, idOf(id)]])
  await read(b, conversation, id)
  await read(b2, conversation, id)
  await pass(time, 2_000)
  // Senders ask: what they have in the conversation is not counted again for each time somebody repeats himself.
  for (const each of [a, b, b2, b3]) expect(await unasked(each, 'statusUpdate')).toEqual([])
  expect(await progress(a, id)).toEqual({ [idOf(id)]: '1/1' })
})

it.each(['this node', 'another'])('a device that is being let in on %s, its first read under way', async (where) => {
  const { sql } = relay.db.database
  const second = await bob!.link()
  await (await second.live()).close()
  const [a, b] = [await live(ann), await live(bob)]
  const id = await message(a, bob!, second)
  const key = await deviceKeyOf(sql, second)
  const lock = await holdLocks(sql, (tx) => tx`select 1 from device_consumers where device_key = ${key} for update`)
  const coming = await Socket.open((where === 'another' ? far : relay).url, second.token)
  open.push(coming)
  await lock.waiting(1)
  // Registered, and joined: it is told, and cannot be sent anything.
  await read(b, conversation, id)
  await b.fence()
  expect(coming.frames).toEqual([])
  await lock.release()
  await coming.next('hello')
  expect(await ownReads(coming)).toEqual([[conversation, idOf(id)]])
})
