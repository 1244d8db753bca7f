// Connections that end at the worst moment, commits nobody announced, rows that others took: nothing is lost. I3 I4
import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { uuidToBytes } from '../../proto/ids.ts'
import { commitUnannounced, endElsewhere, numberOf, waitingFor } from '../support/backlog.ts'
import { type Client, idOf, type Socket } from '../support/client.ts'
import { type Pair, pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const BACKLOG = 6

let relay: TestRelay
let users: Pair
let alice: Client
let bob: Client
beforeAll(async () => {
  relay = await testRelay()
  users = await pair(relay)
  ;({ alice, bob } = users)
})
afterAll(() => relay.close())

const commit = (count: number, bytes = 64) =>
  commitUnannounced(relay.db.database.sql, {
    from: alice,
    to: bob,
    conversation: users.conversation,
    count,
    bytes,
  })
const waiting = () => waitingFor(relay.db.database.sql, bob)
const idsOf = (all: { messageId?: Uint8Array | null }[]): string[] => all.map((each) => idOf(each.messageId))

/** Cuts the connection without a close frame, as a tunnel does. */
async function cut(socket: Socket): Promise<void> {
  const closed = once(socket.ws, 'close')
  socket.ws.terminate()
  await closed
}

/** Everything that waits, read and acked on a new connection. */
async function collect(): Promise<string[]> {
  const socket = await bob.connect()
  const all = idsOf(await socket.drain())
  await socket.close()
  expect(await waiting()).toEqual([])
  return all
}

describe.each(Array.from({ length: BACKLOG + 1 }, (_, k) => k))('a socket dropped at drain index %i', (k) => {
  it('after pages of one: what was acked is gone, everything else comes again, in order', async () => {
    const ids = await commit(BACKLOG)
    const socket = await bob.connect()
    const seen: Uint8Array[] = []
    for (let i = 0; i < k; i++) {
      const page = await socket.sync(seen.at(-1), 1)
      seen.push(page.messages![0]!.messageId!)
    }
    const acked = seen.slice(0, Math.floor(k / 2))
    await socket.ack(...acked)
    await cut(socket)
    expect(await collect()).toEqual(ids.slice(acked.length))
  })

  it('with the next page and an ack of the last on their way: nothing un-acked is lost', async () => {
    const ids = await commit(BACKLOG)
    const socket = await bob.connect()
    let last: Uint8Array | undefined
    for (let i = 0; i < k; i++) last = (await socket.sync(last, 1)).messages![0]!.messageId!
    if (last) socket.write({ ack: { messageIds: [last] } })
    socket.write({ syncRequest: { lastMessageId: last ?? new Uint8Array(0), limit: 1 } })
    await cut(socket)
    const rest = await collect()
    // The ack may have been read before the cut or not: the one it named is gone or comes again.
    const expected = ids.filter((id) => !last || id !== idOf(last))
    expect(rest.filter((id) => !last || id !== idOf(last))).toEqual(expected)
  })

  it('while live: what was sent and not acked comes again', async () => {
    const socket = await bob.live()
    const from = await alice.live()
    const sends = Array.from({ length: BACKLOG }, () => from.send(users.conversation, [bob.to()]))
    for (let i = 0; i < k; i++) await socket.next('envelope')
    await cut(socket)
    const ids = idsOf((await Promise.all(sends)).map((answer) => answer.messageAccepted!))
    expect(await collect()).toEqual(ids)
    await from.close()
  })
})

it('a page cut in its middle was never acked: all of it comes again', async () => {
  const ids = await commit(10, 90 * 1024)
  const socket = await bob.connect()
  const tcp = (socket.ws as unknown as { _socket: NodeJS.ReadableStream })._socket
  socket.write({ syncRequest: { lastMessageId: new Uint8Array(0), limit: 0 } })
  await once(tcp, 'data')
  await cut(socket)
  expect(socket.frames.filter((frame) => frame.syncResponse)).toEqual([])
  expect(await collect()).toEqual(ids)
})

describe('rows acked elsewhere', () => {
  it('empty page: something waited at Hello, nothing at the sync; QueueEmpty, and live goes on', async () => {
    const ids = await commit(5)
    const socket = await bob.connect()
    expect(socket.hello.queueWaiting).toBe(true)
    await endElsewhere(relay.db.database.sql, bob, ids)
    expect(await socket.sync()).toMatchObject({ messages: [], hasMore: false })
    await socket.next('queueEmpty')
    const from = await alice.live()
    await from.send(users.conversation, [bob.to()])
    await socket.ack((await socket.next('envelope')).messageId)
    await Promise.all([from.close(), socket.close()])
  })

  it('empty catch-up: a live session that is behind rows which are gone catches up to the tail, and live goes on', async () => {
    const { sql } = relay.db.database
    const socket = await bob.live()
    const [from, ids] = [await alice.live(), await commit(3)]
    await endElsewhere(sql, bob, ids)
    // The gap before it is looked up: empty rows, a tail, and this one.
    const sent = await from.send(users.conversation, [bob.to()])
    let got = await socket.next('envelope')
    // The re-poll may have been quicker with those that were taken.
    while (idOf(got.messageId) !== idOf(sent.messageAccepted?.messageId)) got = await socket.next('envelope')
    await socket.ack(got.messageId)
    for (let i = 0; i < 3; i++) {
      await from.send(users.conversation, [bob.to()])
      await socket.ack((await socket.next('envelope')).messageId)
    }
    await Promise.all([from.close(), socket.close()])
  })

  it('a hole in the middle of a backlog is passed over', async () => {
    const ids = await commit(250)
    const socket = await bob.connect()
    const first = await socket.sync()
    await endElsewhere(relay.db.database.sql, bob, ids.slice(90, 210))
    const second = await socket.sync(first.messages!.at(-1)!.messageId)
    expect(second.hasMore).toBe(false)
    expect(second.messages!.map((each) => numberOf(each.ciphertext?.content))).toEqual(
      Array.from({ length: 40 }, (_, i) => 210 + i),
    )
    await socket.close()
    await collect()
  })
})

describe('a commit whose answer was lost: nobody announces it', () => {
  it('a live session finds it by the re-poll, in order, once', async () => {
    const socket = await bob.live()
    const ids = await commit(20)
    const got: string[] = []
    for (let i = 0; i < 20; i++) got.push(idOf((await socket.next('envelope')).messageId))
    expect(got).toEqual(ids)
    await socket.ack(...ids.map(uuidToBytes))
    expect(socket.envelopes()).toEqual([])
    await socket.close()
  })

  it('the next announced message shows the gap: the lost one comes first', async () => {
    const [from, socket] = [await alice.live(), await bob.live()]
    for (let round = 0; round < 5; round++) {
      const [lost] = await commit(1)
      const sent = (await from.send(users.conversation, [bob.to()])).messageAccepted!
      const got = [await socket.next('envelope'), await socket.next('envelope')]
      expect(idsOf(got)).toEqual([lost, idOf(sent.messageId)])
      expect(got[1]!.sequence).toBe(got[0]!.sequence! + 1)
      await socket.ack(...got.map((each) => each.messageId))
    }
    await Promise.all([from.close(), socket.close()])
  })

  it('a session in the middle of a sync finds it in a later page', async () => {
    const ids = await commit(5)
    const socket = await bob.connect()
    const page = await socket.sync(null, 3)
    ids.push(...(await commit(5)))
    const rest = await socket.sync(page.messages!.at(-1)!.messageId)
    expect(idsOf([...page.messages!, ...rest.messages!])).toEqual(ids)
    await socket.close()
    await collect()
  })
})
