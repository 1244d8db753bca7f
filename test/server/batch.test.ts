// What a batch does when a row is bad, an answer is lost or a lock is not to be had, on the real database.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { uuidV7 } from '../../proto/ids.ts'
import type { Entry } from '../../server/append.ts'
import { route } from '../../server/authorize.ts'
import type { Outcome } from '../../server/batch.ts'
import { openDatabase } from '../../server/database.ts'
import type { Send, Sender } from '../../server/frames.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { type Node, openNode, queueFaults, refused, sendTo, waitingRows } from '../support/node.ts'
import { conversations, converse, populate } from '../support/population.ts'
import { type LossyProxy, openProxy } from '../support/proxy.ts'
import { holdLocks } from './barrier.ts'

let db: TestDatabase
let proxy: LossyProxy
let node: Node
beforeAll(async () => {
  db = await testDatabase()
  proxy = await openProxy(db.url)
  node = openNode(proxy.url)
})
afterAll(async () => {
  await node?.close()
  await proxy?.close()
  await db?.close()
})
afterEach(async () => {
  expect(await queueFaults(db.database.sql)).toEqual([])
  node.reported.length = node.unknown.length = node.batches.length = 0
})

async function pair(people = 2) {
  const all = await populate(db.database.sql, people)
  const conversation = await converse(db.database.sql, all)
  const [from, to, ...others] = all.map((each) => each.devices[0]!)
  return { conversation, from: from!, to: to!, others }
}

/** Below mailbox and codec: what they would refuse gets through. */
async function entry(sender: Sender, send: Send): Promise<Entry> {
  const roster = (await node.rosters.load(send.conversationId))!
  return { sender, send, roster, ...route(sender, send, roster), overflow: [], messageId: uuidV7(Date.now()) }
}

describe('one poisoned row in a batch of 500', () => {
  it('499 are accepted in their order, 1 is refused, and the defect is reported', async () => {
    const { conversation, from, to } = await pair()
    const sends = Array.from({ length: 500 }, (_, i) =>
      sendTo(conversation, [to], i === 321 ? { attachmentUrl: 'https://cdn.test/a\0b' } : {}),
    )
    const entries = await Promise.all(sends.map((send) => entry(from, send)))
    const settled = await Promise.allSettled(entries.map((each) => node.writer.append(each)))
    expect(node.batches[0]).toBe(500)
    const failed = settled.flatMap((each, i) => (each.status === 'rejected' ? [[i, each.reason.code]] : []))
    expect(failed).toEqual([[321, 'INVALID_REQUEST']])
    const rows = await waitingRows(db.database.sql, to.deviceKey)
    const good = entries.filter((_, i) => i !== 321).map((each) => each.messageId)
    expect(rows.map((row) => row.message_id)).toEqual(good)
    expect(rows.map((row) => row.sequence)).toEqual(Array.from({ length: 499 }, (_, i) => i + 1))
    expect(node.reported.length).toBeGreaterThan(0)
  })

  it('a poisoned message alone is refused without a second try', async () => {
    const { conversation, from, to } = await pair()
    const error = await refused(
      node.writer.append(await entry(from, sendTo(conversation, [to], { thumbnailUrl: '\0' }))),
    )
    expect(error.code).toBe('INVALID_REQUEST')
    expect(await waitingRows(db.database.sql, to.deviceKey)).toEqual([])
  })

  it('the same client_message_id twice in one batch, which the mailbox never lets happen, is still one message (I2)', async () => {
    const { conversation, from, to } = await pair()
    const send = sendTo(conversation, [to])
    const [one, two] = await Promise.all([
      node.writer.append(await entry(from, send)),
      node.writer.append(await entry(from, send)),
    ])
    expect(two!.messageId).toBe(one!.messageId)
    expect([one!.duplicate, two!.duplicate]).toEqual([false, true])
  })
})

describe('a lost connection', () => {
  /** A send whose content can be found in the bytes to PostgreSQL. */
  const marked = (conversation: string, to: Parameters<typeof sendTo>[1]) => {
    const content = Buffer.from(uuidV7(Date.now()))
    return { send: sendTo(conversation, to, { content }), needle: content.toString('hex') }
  }

  it('a commit whose answer was lost is answered after the retry with the id that was committed, once, not as a duplicate', async () => {
    const { conversation, from, to } = await pair()
    await node.send(from, sendTo(conversation, [to]))
    const { send, needle } = marked(conversation, [to])
    const lost = proxy.lose('answer', needle)
    const outcome = node.send(from, send)
    await lost
    // Committed, and nobody knows.
    const [first, second] = await waitingRows(db.database.sql, to.deviceKey)
    expect(first?.sequence).toBe(1)
    expect(await outcome).toMatchObject({ messageId: second!.message_id, duplicate: false, skipped: [] })
    expect(await waitingRows(db.database.sql, to.deviceKey)).toHaveLength(2)
    // The recipient's session is told to look for itself: nobody can offer the row.
    expect(node.unknown).toContain(to.deviceKey)
  })

  it('a batch that did not reach the database is committed by the retry', async () => {
    const { conversation, from, to } = await pair()
    await node.send(from, sendTo(conversation, [to]))
    const { send, needle } = marked(conversation, [to])
    const lost = proxy.lose('request', needle)
    const outcome = node.send(from, send)
    await lost
    expect(await outcome).toMatchObject({ duplicate: false })
    expect(await waitingRows(db.database.sql, to.deviceKey)).toHaveLength(2)
  })

  it('takes the whole batch along: all of it is answered, each once', async () => {
    const { conversation, from, to } = await pair()
    await node.send(from, sendTo(conversation, [to]))
    const { send, needle } = marked(conversation, [to])
    const lost = proxy.lose('answer', needle)
    const all = [...Array.from({ length: 30 }, () => sendTo(conversation, [to])), send, sendTo(conversation, [to])]
    const outcomes = await Promise.all(all.map((each) => node.send(from, each)))
    await lost
    expect(outcomes.map((each: Outcome) => each.duplicate)).not.toContain(true)
    const rows = await waitingRows(db.database.sql, to.deviceKey)
    expect(rows.slice(1).map((row) => row.message_id)).toEqual(outcomes.map((each) => each.messageId))
  })

  it('the database is down: UNAVAILABLE or its error after some tries; back by itself, and the retry is accepted', async () => {
    const { conversation, from, to } = await pair()
    await node.send(from, sendTo(conversation, [to]))
    await proxy.down()
    const send = sendTo(conversation, [to])
    const error = await refused(node.send(from, send))
    expect(error.code).toMatch(/^(CONNECT|ECONN)/)
    await proxy.up()
    expect(await node.send(from, send)).toMatchObject({ duplicate: false })
    expect(await waitingRows(db.database.sql, to.deviceKey)).toHaveLength(2)
  })
})

describe('a database that is away for long', () => {
  it('is asked again often enough: neither the answer nor the way back waits for a pause that has grown', async () => {
    const other = await openProxy(db.url)
    const { sql, close } = openDatabase(other.url, { sql: 1, writer: 1, acker: 1, reader: 1 })
    try {
      await sql`select 1`
      await other.down()
      // The driver's own pauses add up to more than a test may take.
      for (let i = 0; i < 11; i++) await refused(sql`select 1`)
      await other.up()
      expect(await sql`select 1 as one`).toEqual([{ one: 1 }])
    } finally {
      await close()
      await other.close()
    }
  })
})

describe('locks', () => {
  it('a lock that is held too long is waited for again, then everything commits', async () => {
    const { conversation, from, to } = await pair()
    const held = await holdLocks(
      db.database.sql,
      (tx) => tx`select 1 from device_locks where device_key = ${to.deviceKey} for update`,
    )
    const outcome = node.send(from, sendTo(conversation, [to]))
    const [first] = await held.waiting(1)
    // lock_timeout ends that statement; the batch comes again.
    for (;;) {
      const [row] = await db.database.sql`select 1 from pg_locks where not granted and pid = ${first!}`
      if (!row) break
    }
    await held.waiting(1)
    await held.release()
    expect(await outcome).toMatchObject({ duplicate: false })
    expect(await waitingRows(db.database.sql, to.deviceKey)).toHaveLength(1)
  })
})

describe('refusals inside a batch', () => {
  it('leave the others of the batch in place: a stale send, a duplicate and a good one', async () => {
    const { sql } = db.database
    const { conversation, from, to } = await pair()
    const known = sendTo(conversation, [to])
    const first = await node.send(from, known)
    await sql`update keys.devices set registration_id = 222 where device_key = ${to.deviceKey}`
    const [again, stale, good] = await Promise.allSettled([
      node.send(from, known),
      node.send(from, sendTo(conversation, [to])),
      node.send(from, sendTo(conversation, [{ ...to, registrationId: 222 }])),
    ])
    expect(again).toMatchObject({ status: 'fulfilled', value: { messageId: first.messageId, duplicate: true } })
    expect(stale).toMatchObject({ status: 'rejected', reason: { code: 'DEVICE_MISMATCH' } })
    expect(good).toMatchObject({ status: 'fulfilled', value: { duplicate: false } })
    expect(await waitingRows(sql, to.deviceKey)).toHaveLength(2)
  })

  it('one conversation that changes does not fail the batch of the others', async () => {
    const { sql } = db.database
    const [alice, ...friends] = await populate(sql, 11)
    const ids = await conversations(
      sql,
      friends.map((friend) => [alice!, friend]),
      'direct',
    )
    const from = alice!.devices[0]!
    const to = friends.map((friend) => friend.devices[0]!)
    await Promise.all(ids.map((id, i) => node.send(from, sendTo(id, [to[i]!]))))
    // The cached rosters are stale for one of them: archived behind the node's back.
    await sql`update conversations set archived_at = now() where conversation_id = ${ids[4]!}`
    const settled = await Promise.allSettled(ids.map((id, i) => node.send(from, sendTo(id, [to[i]!]))))
    expect(settled.map((each) => (each.status === 'rejected' ? each.reason.code : 'accepted'))).toEqual(
      ids.map((_, i) => (i === 4 ? 'FORBIDDEN' : 'accepted')),
    )
  })
})
