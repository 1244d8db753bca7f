// Pages of the queue: all, incremental, empty, paged, by bytes, and the cursor.
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { PAGE_MAX_BYTES } from '../../proto/limits.ts'
import { commitUnannounced, numberOf } from '../support/backlog.ts'
import { Socket } from '../support/client.ts'
import { type Pair, pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ErrorCode, SyncResponse } = sealpost.v1

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay({ lockMs: 60_000 })
})
afterAll(() => relay.close())

type Page = Awaited<ReturnType<Socket['sync']>>
const numbers = (page: Page): number[] => page.messages!.map((each) => numberOf(each.ciphertext?.content))
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)
const marks = (socket: Socket): number => socket.frames.filter((frame) => frame.queueEmpty).length

const commit = ({ alice, bob, conversation }: Pair, count: number, bytes = 64) =>
  commitUnannounced(relay.db.database.sql, { from: alice, to: bob, conversation, count, bytes })

/** A pair whose second user has so many messages waiting. */
async function backlog(count: number, bytes = 64) {
  const users = await pair(relay)
  return { ...users, ids: await commit(users, count, bytes) }
}

describe('what a sync brings', () => {
  it('empty: one page with nothing, and QueueEmpty', async () => {
    const { bob } = await pair(relay)
    const to = await bob.connect()
    expect(to.hello.queueWaiting).toBe(false)
    expect(await to.sync()).toMatchObject({ messages: [], hasMore: false })
    await to.next('queueEmpty')
    await to.close()
  })

  it('all, in order of sequence', async () => {
    const { bob } = await backlog(20)
    const to = await bob.connect()
    const page = await to.sync()
    expect(numbers(page)).toEqual(range(0, 20))
    const sequences = page.messages!.map((each) => each.sequence!)
    expect(sequences).toEqual(range(sequences[0]!, sequences[0]! + 20))
    expect(page.hasMore).toBe(false)
    await to.close()
  })

  it('incremental: after last_message_id only', async () => {
    const { bob, ids } = await backlog(20)
    const to = await bob.connect()
    expect(numbers(await to.sync(uuidToBytes(ids[11]!)))).toEqual(range(12, 20))
    expect(numbers(await to.sync(uuidToBytes(ids[19]!)))).toEqual([])
    await to.close()
  })

  it('paged: 100 a page with has_more, and QueueEmpty once, after the last', async () => {
    const { bob } = await backlog(250)
    const to = await bob.connect()
    const sizes: [number, boolean][] = []
    const all: number[] = []
    for (let page = await to.sync(); ; page = await to.sync(page.messages!.at(-1)!.messageId)) {
      sizes.push([page.messages!.length, page.hasMore!])
      all.push(...numbers(page))
      if (!page.hasMore) break
      await to.fence()
      expect(marks(to)).toBe(0)
    }
    expect(sizes).toEqual([
      [100, true],
      [100, true],
      [50, false],
    ])
    expect(all).toEqual(range(0, 250))
    await to.fence()
    expect(marks(to)).toBe(1)
    expect(to.envelopes()).toEqual([])
    await to.close()
  })

  it('a full last page says has_more = false', async () => {
    const { bob } = await backlog(100)
    const to = await bob.connect()
    expect((await to.sync()).hasMore).toBe(false)
    await to.close()
  })

  it.each([
    [1, 1],
    [7, 7],
    [100, 100],
    [0, 100],
    [101, 100],
    [4_294_967_295, 100],
  ])('limit %i gives a page of %i', async (limit, size) => {
    const { bob } = await backlog(120)
    const to = await bob.connect()
    const page = await to.sync(null, limit)
    expect([page.messages!.length, page.hasMore]).toEqual([size, true])
    await to.close()
  })

  it('a page is at most 1 MiB, and a frame, too; nothing is left out', async () => {
    const { bob } = await backlog(30, 90 * 1024)
    const to = await bob.connect()
    const all: number[] = []
    let pages = 0
    for (let cursor: Uint8Array | null = null; ; ) {
      const page: Page = await to.sync(cursor)
      pages++
      expect(SyncResponse.encode(page).finish().length).toBeLessThanOrEqual(PAGE_MAX_BYTES)
      all.push(...numbers(page))
      cursor = page.messages!.at(-1)!.messageId!
      if (!page.hasMore) break
    }
    expect(all).toEqual(range(0, 30))
    expect(pages).toBe(3)
    await to.close()
  })

  it('long clear fields count into the 1 MiB', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const from = await alice.live()
    const url = '☃'.repeat(2048)
    const more = { attachmentUrl: url, thumbnailUrl: url }
    await Promise.all(
      Array.from({ length: 100 }, (_, i) => {
        const content = Buffer.alloc(64)
        content.writeInt32BE(i)
        return from.send(conversation, [bob.to(content)], more)
      }),
    )
    const to = await bob.connect()
    const all: number[] = []
    for (let cursor: Uint8Array | null = null; ; ) {
      const page: Page = await to.sync(cursor)
      expect(SyncResponse.encode(page).finish().length).toBeLessThanOrEqual(PAGE_MAX_BYTES)
      all.push(...numbers(page))
      cursor = page.messages!.at(-1)!.messageId!
      if (!page.hasMore) break
    }
    expect(all).toEqual(range(0, 100))
    await Promise.all([from.close(), to.close()])
  })
})

describe('last_message_id is a cursor, never an ack', () => {
  it('the last id of the previous page is known after it was acked', async () => {
    const { bob, ids } = await backlog(30)
    const to = await bob.connect()
    const page = await to.sync(null, 10)
    await to.ack(page.messages!.at(-1)!.messageId)
    expect(numbers(await to.sync(uuidToBytes(ids[9]!)))).toEqual(range(10, 30))
    await to.close()
  })

  it('what lies before the cursor is not acked by it', async () => {
    const { bob, ids } = await backlog(5)
    const to = await bob.connect()
    await to.sync(uuidToBytes(ids[3]!))
    expect(numbers(await to.sync())).toEqual(range(0, 5))
    await to.close()
  })

  it.each<[string, (ids: string[], other: string[]) => string]>([
    ['unknown', () => randomUUID()],
    ['foreign: it waits for another device', (_ids, other) => other[0]!],
    ['from the future', () => uuidV7(Date.now() + 3_600_000)],
    ['all ones', () => 'ffffffff-ffff-ffff-ffff-ffffffffffff'],
  ])('%s: from the start', async (_what, cursor) => {
    const [{ bob, ids }, other] = await Promise.all([backlog(5), backlog(3)])
    const to = await bob.connect()
    expect(numbers(await to.sync(uuidToBytes(cursor(ids, other.ids))))).toEqual(range(0, 5))
    await to.next('queueEmpty')
    await to.close()
  })

  it('acked on an earlier connection: from the start of what waits', async () => {
    const { bob, ids } = await backlog(5)
    const first = await bob.connect()
    await first.sync()
    await first.ack(uuidToBytes(ids[2]!))
    await first.close()
    const second = await bob.connect()
    expect(numbers(await second.sync(uuidToBytes(ids[2]!)))).toEqual([0, 1, 3, 4])
    await second.close()
  })
})

describe('one sync at a time, and live around it', () => {
  it('held: nothing live is sent until a SyncRequest, then the page has it all', async () => {
    const users = await backlog(2)
    const [from, to] = [await users.alice.live(), await users.bob.connect()]
    expect(to.hello.queueWaiting).toBe(true)
    await from.send(users.conversation, [users.bob.to()])
    await to.fence()
    expect(to.envelopes()).toEqual([])
    expect((await to.sync()).messages!.length).toBe(3)
    await from.send(users.conversation, [users.bob.to()])
    await to.next('envelope')
    await Promise.all([from.close(), to.close()])
  })

  it('a second SyncRequest while one is being answered is CONFLICT; the first is answered', async () => {
    const { bob } = await backlog(3)
    const to = await bob.connect()
    const answers = await Promise.all([to.ask({ syncRequest: {} }), to.ask({ syncRequest: {} }), to.ask({ ack: {} })])
    expect(answers[0].syncResponse?.messages?.length).toBe(3)
    expect(answers[1].error?.code).toBe(ErrorCode.ERROR_CODE_CONFLICT)
    expect(answers[2].ackCommitted).toBeTruthy()
    await to.fence()
    expect(marks(to)).toBe(1)
    expect((await to.sync()).messages!.length).toBe(3)
    await to.close()
  })

  it('what is sent before Hello is answered after it [C-3.3]', async () => {
    const { bob } = await pair(relay)
    const { sql } = relay.db.database
    let to!: Socket
    let answer!: Promise<unknown>
    await sql.begin(async (tx) => {
      await tx`set local idle_in_transaction_session_timeout = 0`
      // The session's first read waits here.
      await tx`lock table device_sequences in access exclusive mode`
      to = await Socket.open(relay.url, bob.token)
      answer = to.ask({ syncRequest: {} })
    })
    await to.next('hello')
    expect(await answer).toMatchObject({ syncResponse: {} })
    await to.close()
  })

  it('a sync of a live connection pauses it, repeats what is un-acked, and says QueueEmpty again', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const [from, to] = [await alice.live(), await bob.live()]
    await from.send(conversation, [bob.to()])
    const live = await to.next('envelope')
    for (let i = 0; i < 3; i++) {
      expect((await to.sync()).messages).toEqual([live])
      await to.fence()
      expect(marks(to)).toBe(i + 1)
    }
    await Promise.all([from.close(), to.close()])
  })

  it('what commits during a sync comes in a page or live after QueueEmpty: nothing skipped, nothing doubled', async () => {
    const users = await backlog(60)
    const { alice, bob, conversation } = users
    const [from, to] = [await alice.live(), await bob.connect()]
    // What arrived, in order: sequences, and 0 for QueueEmpty.
    const arrived: number[] = []
    to.ws.on('message', (data: Buffer) => {
      const frame = sealpost.v1.ServerFrame.decode(data)
      if (frame.queueEmpty) arrived.push(0)
      if (frame.envelope) arrived.push(frame.envelope.sequence!)
      for (const each of frame.syncResponse?.messages ?? []) arrived.push(each.sequence!)
    })
    const sends: Promise<unknown>[] = []
    let page: Page
    let cursor: Uint8Array | null = null
    do {
      for (let i = 0; i < 5 && sends.length < 50; i++) sends.push(from.send(conversation, [bob.to()]))
      page = await to.sync(cursor, 10)
      cursor = page.messages!.at(-1)?.messageId ?? cursor
      for (let i = 0; i < 5 && sends.length < 50; i++) sends.push(from.send(conversation, [bob.to()]))
    } while (page.hasMore)
    for (let i = 0; i < 50; i++) sends.push(from.send(conversation, [bob.to()]))
    await Promise.all(sends)
    await commit(users, 1)
    const total = 60 + sends.length + 1
    while (arrived.length < total + 1) await to.fence()
    const sequences = arrived.filter((each) => each !== 0)
    expect(sequences).toEqual(range(sequences[0]!, sequences[0]! + total))
    expect(arrived.filter((each) => each === 0).length).toBe(1)
    // Nothing live before QueueEmpty: all of it was in pages.
    expect(arrived.indexOf(0)).toBeGreaterThanOrEqual(60)
    expect(to.envelopes().length).toBe(total - arrived.indexOf(0))
    await Promise.all([from.close(), to.close()])
  })
})
