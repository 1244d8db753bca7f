// Read receipts: the mark of each member, who may set it, and who learns of it. [G-4]
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { openLocalHub } from '../../server/bus/local.ts'
import { openLocalPresence } from '../../server/bus/presence.ts'
import { ReadMarks } from '../../server/read-marks.ts'
import { Client, idOf, type Socket } from '../support/client.ts'
import { pileUp } from '../support/conversations.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { inTime, pass, progress, progressOf, read, receipt, send, take, unasked } from '../support/signals.ts'

const { ErrorCode } = sealpost.v1
const time = new FakeTime()
const nodes = {
  bus: openLocalHub((error) => {
    throw error
  }),
  presence: openLocalPresence(),
}
let db: TestDatabase
let relay: TestRelay
let far: TestRelay
let [ann, bob, cy]: Client[] = []
beforeAll(async () => {
  db = await testDatabase({ lockMs: 60_000 })
  relay = await testRelay({ time, nodes, db })
  far = await testRelay({ time, nodes, db })
})
afterAll(async () => {
  await far.close()
  await relay.close()
  await db.close()
})

let open: Socket[] = []
let group = ''
beforeEach(async () => {
  time.set(Date.now())
  ;[ann, bob, cy] = await Promise.all([Client.register(relay), Client.register(relay), Client.register(relay)])
  group = await ann!.group([bob!, cy!])
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
const markOf = async (client: Client | undefined, conversation = group): Promise<string | null> =>
  (await client!.get(`/v1/conversations/${conversation}`)).body.read_up_to
const ids = async (socket: Socket, count: number): Promise<Uint8Array[]> => {
  const made: Uint8Array[] = []
  for (let i = 0; i < count; i++) made.push(await send(socket, group, bob!, cy!))
  return made.sort(Buffer.compare)
}

describe('the mark [G-4.1]', () => {
  it('is stored when it is confirmed, and moves only forward', async () => {
    const [a, b] = [await live(ann), await live(bob)]
    const [first, second, third] = await ids(a, 3)
    expect(await markOf(bob)).toBe(null)
    await read(b, group, second!)
    expect(await markOf(bob)).toBe(idOf(second))
    await read(b, group, first!)
    await read(b, group, second!)
    expect(await markOf(bob)).toBe(idOf(second))
    await read(b, group, third!)
    expect(await markOf(bob)).toBe(idOf(third))
    expect(await markOf(ann)).toBe(null)
  })

  it('of many at once on two nodes ends at the last, and each is confirmed', async () => {
    const second = await bob!.link()
    const [a, b, b2] = [await live(ann), await live(bob), await live(elsewhere(second))]
    const made: Uint8Array[] = []
    for (let i = 0; i < 20; i++)
      made.push(
        (
          await a.send(
            group,
            [bob!, second, cy!].map((each) => each.to()),
          )
        ).messageAccepted!.messageId!,
      )
    await Promise.all([...made].reverse().map((id, i) => read(i % 2 ? b : b2, group, id)))
    expect(await markOf(bob)).toBe(idOf(made.sort(Buffer.compare).at(-1)))
  })

  it('at or before it nothing is wrong, also when the message is forgotten', async () => {
    const [a, b] = [await live(ann), await live(bob)]
    const [id] = await ids(a, 1)
    await read(b, group, id!)
    await relay.db.database.sql`delete from messages where message_id = ${idOf(id)}`
    await read(b, group, id!)
    await read(b, group, uuidToBytes(uuidV7(1)))
    expect((await b.ask(receipt(group, uuidToBytes(uuidV7(Date.now() + 1000))))).error?.code).toBe(
      ErrorCode.ERROR_CODE_INVALID_REQUEST,
    )
    expect(await markOf(bob)).toBe(idOf(id))
  })

  it('may stand at what the relay itself said', async () => {
    const b = await bob!.connect()
    open.push(b)
    const { messages } = await b.sync()
    const created = messages!.find((each) => idOf(each.conversationId) === group)!
    await read(b, group, created.messageId!)
    expect(await markOf(bob)).toBe(idOf(created.messageId))
  })

  it('moves on in an archived conversation', async () => {
    const [a, b] = [await live(ann), await live(bob)]
    const [id] = await ids(a, 1)
    await ann!.post(`/v1/conversations/${group}/archive`)
    await read(b, group, id!)
    expect(await markOf(bob)).toBe(idOf(id))
  })
})

describe('refused [G-4.1] (I13)', () => {
  it('an unknown conversation and one of others are one answer; a former member is told so', async () => {
    const a = await live(ann)
    const [id] = await ids(a, 1)
    const stranger = await live(await Client.register(relay))
    const [unknown, foreign, nothing] = [
      await stranger.ask(receipt(randomUUID(), id!)),
      await stranger.ask(receipt(group, id!)),
      await stranger.ask(receipt(group, uuidToBytes(uuidV7(Date.now())))),
    ]
    expect(unknown.error?.code).toBe(ErrorCode.ERROR_CODE_INVALID_REQUEST)
    expect(foreign.error).toEqual(unknown.error)
    expect(nothing.error).toEqual(unknown.error)
    const c = await live(cy)
    await ann!.delete(`/v1/conversations/${group}/members/${cy!.userId}`)
    expect((await c.ask(receipt(group, id!))).error?.code).toBe(ErrorCode.ERROR_CODE_FORBIDDEN)
  })

  it('a message of another conversation and one nobody sent are one answer', async () => {
    const other = await ann!.direct(bob!)
    const [a, b] = [await live(ann), await live(bob)]
    const elsewhereId = await send(a, other, bob!)
    const [wrong, none] = [
      await b.ask(receipt(group, elsewhereId)),
      await b.ask(receipt(group, uuidToBytes(uuidV7(Date.now())))),
    ]
    expect(wrong.error?.code).toBe(ErrorCode.ERROR_CODE_INVALID_REQUEST)
    expect(none.error).toEqual(wrong.error)
    expect(await markOf(bob)).toBe(null)
  })

  it('a hundred at once, then ten a second [G-4.4]', async () => {
    const [a, b] = [await live(ann), await live(bob)]
    const [id] = await ids(a, 1)
    for (let i = 0; i < 100; i++) await read(b, group, id!)
    const { error } = await b.ask(receipt(group, id!))
    expect([error?.code, error?.retryAfterMs]).toEqual([ErrorCode.ERROR_CODE_RATE_LIMITED, 100])
    time.advance(100)
    await read(b, group, id!)
  })
})

describe('who learns of it', () => {
  it('the user’s other devices at once, on every node, and not the one that said it [G-4.2]', async () => {
    const [second, third] = [await bob!.link(), await bob!.link()]
    const [a, b, b2, b3, c] = [
      await live(ann),
      await live(bob),
      await live(second),
      await live(elsewhere(third)),
      await live(cy),
    ]
    const answer = await a.send(
      group,
      [bob!, second, third, cy!].map((each) => each.to()),
    )
    const id = answer.messageAccepted!.messageId!
    await read(b2, group, id)
    for (const own of [b, b3]) {
      const { ownReads, messages } = await own.next('statusUpdate', 0)
      expect(ownReads!.map((each) => [idOf(each.conversationId), idOf(each.messageId)])).toEqual([[group, idOf(id)]])
      expect(messages).toEqual([])
    }
    await read(b, group, id)
    for (const each of [a, b, b2, b3, c]) expect(await unasked(each, 'statusUpdate')).toEqual([])
  })

  it('the senders of what was read, of all of it, with what counts since the mark before', async () => {
    const [a, b, c] = [await live(ann), await live(bob), await live(elsewhere(cy))]
    const mine = await ids(a, 3)
    // A later millisecond is a higher id.
    time.advance(1)
    const theirs = (await c.send(group, [ann!.to(), bob!.to()])).messageAccepted!.messageId!
    for (let i = 0; i < 4; i++) await take(b)
    await inTime(time, a.next('statusUpdate', 0))
    await inTime(time, c.next('statusUpdate', 0))
    await read(b, group, mine[0]!)
    expect(progressOf(await inTime(time, a.next('statusUpdate', 0)))).toEqual({ [idOf(mine[0])]: '1/1' })
    await read(b, group, theirs)
    expect(progressOf(await inTime(time, a.next('statusUpdate', 0)))).toEqual({
      [idOf(mine[1])]: '1/1',
      [idOf(mine[2])]: '1/1',
    })
    expect(progressOf(await inTime(time, c.next('statusUpdate', 0)))).toEqual({ [idOf(theirs)]: '1/1' })
  })

  it('read counts only who has the message: a member who came later read nothing of before [G-3.4]', async () => {
    const dee = await Client.register(relay)
    const [a, b] = [await live(ann), await live(bob)]
    const [before] = await ids(a, 1)
    await take(b)
    await ann!.post(`/v1/conversations/${group}/members`, { user_ids: [dee.userId] })
    const d = await live(dee)
    const after = (await a.send(group, [bob!.to(), cy!.to(), dee.to()])).messageAccepted!.messageId!
    await take(d)
    await read(d, group, after)
    expect(await progress(a, before!, after)).toEqual({ [idOf(before)]: '1/0', [idOf(after)]: '1/1' })
  })
})

describe('switched off [G-4.3]', () => {
  it('marks are kept for one’s own devices, and nobody else learns of them', async () => {
    const second = await bob!.link()
    const [a, b, b2] = [await live(ann), await live(bob), await live(second)]
    await bob!.patch('/v1/settings', { read_receipts: false })
    const answer = await a.send(
      group,
      [bob!, second, cy!].map((each) => each.to()),
    )
    const id = answer.messageAccepted!.messageId!
    await take(b)
    expect(progressOf(await inTime(time, a.next('statusUpdate', 0)))).toEqual({ [idOf(id)]: '1/0' })
    await read(b, group, id)
    expect(idOf((await b2.next('statusUpdate', 0)).ownReads![0]!.messageId)).toBe(idOf(id))
    expect(await markOf(bob)).toBe(idOf(id))
    await pass(time, 3_000)
    expect(await progress(a, id)).toEqual({ [idOf(id)]: '1/0' })
    expect(await unasked(a, 'statusUpdate')).toEqual([])
  })

  it('what was told before stays told; on again, they begin with the next one', async () => {
    const [a, b] = [await live(ann), await live(bob)]
    const [first, second, third] = await ids(a, 3)
    for (let i = 0; i < 3; i++) await take(b)
    await read(b, group, first!)
    await bob!.patch('/v1/settings', { read_receipts: false })
    await read(b, group, second!)
    const seen = async () => Object.values(await progress(a, first!, second!, third!)).sort()
    expect(await seen()).toEqual(['1/0', '1/0', '1/1'])
    await bob!.patch('/v1/settings', { read_receipts: true })
    await read(b, group, second!)
    expect(await seen()).toEqual(['1/0', '1/0', '1/1'])
    await read(b, group, third!)
    expect(await seen()).toEqual(['1/1', '1/1', '1/1'])
  })

  it('whoever shows none sees none', async () => {
    const [a, b] = [await live(ann), await live(bob)]
    const [id] = await ids(a, 1)
    await take(b)
    await inTime(time, a.next('statusUpdate', 0))
    await ann!.patch('/v1/settings', { read_receipts: false })
    await read(b, group, id!)
    await pass(time, 3_000)
    expect(await progress(a, id!)).toEqual({ [idOf(id)]: '1/0' })
    expect(await unasked(a, 'statusUpdate')).toEqual([])
    await ann!.patch('/v1/settings', { read_receipts: true })
    expect(await progress(a, id!)).toEqual({ [idOf(id)]: '1/1' })
  })
})

describe('statements', () => {
  it('two nodes that mark the same conversations in opposite order wait for each other, not in a circle', async () => {
    const { sql } = relay.db.database
    const a = await live(ann)
    const groups = await Promise.all(Array.from({ length: 8 }, () => ann!.group([bob!, cy!])))
    const marks: { userId: string; conversationId: string; messageId: string }[] = []
    for (const conversationId of groups) {
      const messageId = idOf((await a.send(conversationId, [bob!.to(), cy!.to()])).messageAccepted!.messageId)
      for (const { userId } of [bob!, cy!]) marks.push({ conversationId, messageId, userId })
    }
    const [one, two] = [new ReadMarks(sql), new ReadMarks(far.db.database.sql)]
    const all = (node: ReadMarks, list: typeof marks) => Promise.all(list.map((each) => node.move(each)))
    await sql`insert into read_marks (conversation_id, user_id, read_up_to) select c, u, '00000000-0000-0000-0000-000000000000'
      from unnest(${groups}::uuid[]) c cross join unnest(${[bob!.userId, cy!.userId]}::uuid[]) u`
    const results = await pileUp(
      sql,
      (tx) => tx`select 1 from read_marks where conversation_id = ${groups[4]!} for update`,
      [() => all(one, marks), () => all(two, [...marks].reverse())],
    )
    expect(results.map((each) => each.status)).toEqual(['fulfilled', 'fulfilled'])
    const moved = results.flatMap((each) => (each.status === 'fulfilled' ? each.value : []))
    expect(moved.filter((each) => each.standing === 'member' && each.moved)).toHaveLength(marks.length)
  })

  it('a mark that was set further on meanwhile stays there', async () => {
    const { sql } = relay.db.database
    const a = await live(ann)
    const [low, high] = (await ids(a, 2)).map(idOf)
    const marks = new ReadMarks(sql)
    const conversationId = group
    await marks.move({ userId: bob!.userId, conversationId, messageId: low! })
    await sql`update read_marks set read_up_to = ${uuidV7(1)} where conversation_id = ${group}`
    const [result] = await pileUp(
      sql,
      (tx) =>
        tx`update read_marks set read_up_to = ${high!} where conversation_id = ${group} and user_id = ${bob!.userId}`,
      [() => marks.move({ userId: bob!.userId, conversationId, messageId: low! })],
    )
    expect(result).toMatchObject({ status: 'fulfilled', value: { standing: 'member', moved: false } })
    expect(await markOf(bob)).toBe(high)
  })
})
