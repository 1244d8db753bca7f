// The writer on the real database: order, priorities, what a batch holds, and what the pipeline holds (I10).
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { uuidV7 } from '../../proto/ids.ts'
import type { Entry } from '../../server/append.ts'
import { route } from '../../server/authorize.ts'
import type { Roster, RosterDevice } from '../../server/rosters.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { type Node, openNode, queueFaults, sendTo, waitingRows } from '../support/node.ts'
import { conversations, converse, type Person, populate } from '../support/population.ts'
import { holdLocks } from './barrier.ts'

let db: TestDatabase
let node: Node
beforeAll(async () => {
  db = await testDatabase({ lockMs: 60_000 })
  node = openNode(db.url, { quota: 1e6 })
})
afterAll(async () => {
  await node?.close()
  await db?.close()
})
afterEach(async () => {
  expect(await queueFaults(db.database.sql)).toEqual([])
  expect(node.reported).toEqual([])
  node.batches.length = 0
})

const block = (device: RosterDevice) =>
  holdLocks(db.database.sql, (tx) => tx`select 1 from device_locks where device_key = ${device.deviceKey} for update`)

async function pair() {
  const people = await populate(db.database.sql, 2)
  const conversation = await converse(db.database.sql, people)
  const roster = (await node.rosters.load(conversation))!
  return { roster, from: people[0]!.devices[0]!, to: people[1]!.devices[0]! }
}

const entryOf = (roster: Roster, from: RosterDevice, more: Parameters<typeof sendTo>[2] = {}): Entry => {
  const send = sendTo(
    roster.conversationId,
    roster.devices.filter((each) => each.deviceKey !== from.deviceKey),
    more,
  )
  return { sender: from, send, roster, ...route(from, send, roster), overflow: [], messageId: uuidV7(Date.now()) }
}
const byte = (n: number, length = 1) => Buffer.alloc(length, n)
const contents = async (to: RosterDevice) =>
  (await waitingRows(db.database.sql, to.deviceKey)).map((row) => row.content![0])

describe('order [S-8]', () => {
  it('of one conversation and priority is the order of the calls, across batches', async () => {
    const { roster, from, to } = await pair()
    const held = await block(to)
    const first = node.writer.append(entryOf(roster, from, { content: byte(0) }))
    await held.waiting(1)
    const rest = Array.from({ length: 99 }, (_, i) =>
      node.writer.append(entryOf(roster, from, { content: byte(i + 1) })),
    )
    await held.release()
    await Promise.all([first, ...rest])
    expect(node.batches).toEqual([1, 99])
    expect(await contents(to)).toEqual(Array.from({ length: 100 }, (_, i) => i))
  })

  it('high goes before normal before low, among what waits', async () => {
    const { roster, from, to } = await pair()
    const held = await block(to)
    const sends = [node.writer.append(entryOf(roster, from, { content: byte(0), priority: 3 }))]
    await held.waiting(1)
    for (const [content, priority] of [
      [5, 3],
      [3, 2],
      [1, 1],
      [6, 3],
      [4, 2],
      [2, 1],
    ] as const)
      sends.push(node.writer.append(entryOf(roster, from, { content: byte(content), priority })))
    await held.release()
    await Promise.all(sends)
    expect(await contents(to)).toEqual([0, 1, 2, 3, 4, 5, 6])
  })

  it('a conversation whose queue is locked does not hold up the other lane', async () => {
    const { sql } = db.database
    const people = await populate(sql, 40)
    const pairs = Array.from({ length: 20 }, (_, i): Person[] => [people[2 * i]!, people[2 * i + 1]!])
    const ids = await conversations(sql, pairs, 'direct')
    const even = ids.findIndex((id) => Number.parseInt(id.slice(-1), 16) % 2 === 0)
    const odd = ids.findIndex((id) => Number.parseInt(id.slice(-1), 16) % 2 === 1)
    const rosterOf = async (i: number) => (await node.rosters.load(ids[i]!))!
    const held = await block(pairs[even]![1]!.devices[0]!)
    const slow = node.writer.append(entryOf(await rosterOf(even), pairs[even]![0]!.devices[0]!))
    await held.waiting(1)
    await node.writer.append(entryOf(await rosterOf(odd), pairs[odd]![0]!.devices[0]!))
    await held.release()
    await slow
  })
})

describe('a batch', () => {
  it('holds at most 500 messages', async () => {
    const { roster, from, to } = await pair()
    const held = await block(to)
    const first = node.writer.append(entryOf(roster, from))
    await held.waiting(1)
    const rest = Array.from({ length: 1100 }, () => node.writer.append(entryOf(roster, from)))
    await held.release()
    await Promise.all([first, ...rest])
    expect(node.batches).toEqual([1, 500, 500, 100])
  })

  it('holds at most 1 MiB: more would stand in the way of the event loop (I14)', async () => {
    const { roster, from, to } = await pair()
    const held = await block(to)
    const first = node.writer.append(entryOf(roster, from))
    await held.waiting(1)
    const rest = Array.from({ length: 50 }, () =>
      node.writer.append(entryOf(roster, from, { content: byte(1, 90_000) })),
    )
    await held.release()
    await Promise.all([first, ...rest])
    expect(node.batches[0]).toBe(1)
    expect(Math.max(...node.batches) * 90_000).toBeLessThanOrEqual(1024 * 1024)
    expect(node.batches.length).toBe(6)
  })

  it('holds at most 2,000 rows, but always one message', async () => {
    const people = await populate(db.database.sql, 300, 3)
    const conversation = await converse(db.database.sql, people)
    const roster = (await node.rosters.load(conversation))!
    const from = people[0]!.devices[0]!
    const held = await block(people[1]!.devices[0]!)
    const first = node.writer.append(entryOf(roster, from, { content: byte(1, 8) }))
    await held.waiting(1)
    const rest = Array.from({ length: 5 }, () => node.writer.append(entryOf(roster, from, { content: byte(1, 8) })))
    await held.release()
    await Promise.all([first, ...rest])
    // 899 rows each: two fit, three do not.
    expect(node.batches).toEqual([1, 2, 2, 1])
  })
})

describe('the pipeline with a database that stands still (I10)', () => {
  it('takes 10,000 messages, answers OVERLOADED beyond, and commits everything it took', async () => {
    const { roster, from, to } = await pair()
    const held = await block(to)
    const taken: Promise<unknown>[] = [node.writer.append(entryOf(roster, from))]
    await held.waiting(1)
    for (let i = 1; i < 10_000; i++) taken.push(node.writer.append(entryOf(roster, from, { content: byte(1, 16) })))
    const before = process.memoryUsage().rss
    for (let i = 0; i < 20_000; i++)
      expect(() => node.writer.append(entryOf(roster, from))).toThrow(
        expect.objectContaining({ code: 'OVERLOADED', retryAfterMs: expect.any(Number) }),
      )
    expect(process.memoryUsage().rss - before).toBeLessThan(200 * 1024 * 1024)
    await held.release()
    await Promise.all(taken)
    const rows = await waitingRows(db.database.sql, to.deviceKey)
    expect(rows.map((row) => row.sequence)).toEqual(Array.from({ length: 10_000 }, (_, i) => i + 1))
    // There is room again.
    expect(await node.writer.append(entryOf(roster, from))).toMatchObject({ duplicate: false })
  })

  it('takes 64 MiB, answers OVERLOADED beyond, and commits everything it took', async () => {
    const { roster, from, to } = await pair()
    const held = await block(to)
    const content = byte(7, 96 * 1024)
    const taken: Promise<unknown>[] = [node.writer.append(entryOf(roster, from))]
    await held.waiting(1)
    const refusals: unknown[] = []
    while (refusals.length === 0) {
      try {
        taken.push(node.writer.append(entryOf(roster, from, { content })))
      } catch (error) {
        refusals.push(error)
      }
    }
    expect(refusals).toEqual([expect.objectContaining({ code: 'OVERLOADED' })])
    const bytes = (taken.length - 1) * content.length
    expect(bytes).toBeLessThanOrEqual(64 * 1024 * 1024)
    expect(bytes).toBeGreaterThan(62 * 1024 * 1024)
    await held.release()
    await Promise.all(taken)
    expect(await waitingRows(db.database.sql, to.deviceKey)).toHaveLength(taken.length)
  })

  it('drained() resolves when the last of it is committed, and at once when there is nothing', async () => {
    await node.writer.drained()
    const { roster, from, to } = await pair()
    const held = await block(to)
    const order: string[] = []
    const sends = Array.from({ length: 600 }, () =>
      node.writer.append(entryOf(roster, from)).then(() => order.push('sent')),
    )
    await held.waiting(1)
    const drained = node.writer.drained().then(() => order.push('drained'))
    await held.release()
    await Promise.all([drained, ...sends])
    expect(order.indexOf('drained')).toBe(600)
  })
})
