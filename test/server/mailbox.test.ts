// What a sender is told, from the cache's word and from the database's. [S-2] [S-9] I13
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { type Node, openNode, refused, sendTo, waitingRows } from '../support/node.ts'
import { converse, populate } from '../support/population.ts'
import { holdLocks } from './barrier.ts'

let db: TestDatabase
let node: Node
beforeAll(async () => {
  db = await testDatabase({ lockMs: 60_000 })
  node = openNode(db.url)
})
afterAll(async () => {
  await node?.close()
  await db?.close()
})
const sql = () => db.database.sql

async function group() {
  const people = await populate(sql(), 3)
  const conversation = await converse(sql(), people)
  const [from, ...to] = people.map((each) => each.devices[0]!)
  return { people, conversation, from: from!, to }
}
const told = async (promise: Promise<unknown>) => {
  const { code, message } = await refused(promise)
  return `${code}: ${message}`
}

describe('a refusal', () => {
  it('is one and the same for an unknown conversation and for one the sender was never in', async () => {
    const { conversation, to } = await group()
    const [stranger] = await populate(sql(), 1)
    const from = stranger!.devices[0]!
    const unknown = await told(node.send(from, sendTo(randomUUID(), to)))
    expect(unknown).toMatch(/^INVALID_REQUEST/)
    expect(await told(node.send(from, sendTo(conversation, to)))).toBe(unknown)
    // Also once a roster is cached.
    await node.rosters.load(conversation)
    expect(await told(node.send(from, sendTo(conversation, to)))).toBe(unknown)
    // A device set that does not fit tells a stranger nothing either.
    expect(await told(node.send(from, sendTo(conversation, [])))).toBe(unknown)
  })

  it.each(['left', 'removed'])('is FORBIDDEN for a member who %s', async (state) => {
    const { people, conversation, from, to } = await group()
    await sql()`update conversation_members set state = ${state} where conversation_id = ${conversation} and user_id = ${people[0]!.userId}`
    expect(await told(node.send(from, sendTo(conversation, to)))).toMatch(/^FORBIDDEN/)
  })

  it('is FORBIDDEN in an archived conversation, also with a device set that does not fit', async () => {
    const { conversation, from, to } = await group()
    await sql()`update conversations set archived_at = now() where conversation_id = ${conversation}`
    expect(await told(node.send(from, sendTo(conversation, to)))).toMatch(/^FORBIDDEN/)
    expect(await told(node.send(from, sendTo(conversation, [])))).toMatch(/^FORBIDDEN/)
  })

  it('by a stale cache alone is none: the database has the word', async () => {
    const { people, conversation, from, to } = await group()
    await sql()`update conversation_members set state = 'left' where conversation_id = ${conversation} and user_id = ${people[2]!.userId}`
    await node.rosters.load(conversation)
    // Back again, and nobody told this node.
    await sql()`update conversation_members set state = 'active' where conversation_id = ${conversation} and user_id = ${people[2]!.userId}`
    expect(await node.send(from, sendTo(conversation, to))).toMatchObject({ duplicate: false })
    expect(await waitingRows(sql(), to[1]!.deviceKey)).toHaveLength(1)
  })

  it('keeps nothing in the way of the next: the same id goes through once it fits', async () => {
    const { conversation, from, to } = await group()
    const send = sendTo(conversation, to.slice(1))
    await refused(node.send(from, send))
    await refused(node.send(from, send))
    expect(await node.send(from, { ...sendTo(conversation, to), clientMessageId: send.clientMessageId })).toMatchObject(
      { duplicate: false },
    )
  })
})

describe('submitted', () => {
  it('is null when the cached roster decides at once: the next frame may follow', async () => {
    const { conversation, from, to } = await group()
    await node.rosters.load(conversation)
    const { submitted, outcome } = node.mailbox.append(from, sendTo(conversation, to))
    expect(submitted).toBe(null)
    await outcome
  })

  it('resolves when the send is in its lane, before it is committed', async () => {
    const { conversation, from, to } = await group()
    const held = await holdLocks(
      sql(),
      (tx) => tx`select 1 from device_locks where device_key = ${from.deviceKey} for update`,
    )
    const { submitted, outcome } = node.mailbox.append(from, sendTo(conversation, to))
    await submitted
    await held.waiting(1)
    expect(await waitingRows(sql(), to[0]!.deviceKey)).toEqual([])
    await held.release()
    await outcome
    expect(await waitingRows(sql(), to[0]!.deviceKey)).toHaveLength(1)
  })

  it('resolves for a refusal too', async () => {
    const { from, to } = await group()
    const { submitted, outcome } = node.mailbox.append(from, sendTo(randomUUID(), to))
    const refusal = refused(outcome)
    await submitted
    expect((await refusal).code).toBe('INVALID_REQUEST')
  })
})

it('message ids ascend with time, sent_at is the relay’s clock', async () => {
  let nowMs = Date.UTC(2030, 0, 1)
  const other = openNode(db.url, { clock: () => nowMs })
  const { conversation, from, to } = await group()
  const one = await other.send(from, sendTo(conversation, to))
  nowMs += 1
  const two = await other.send(from, sendTo(conversation, to))
  expect(one.sentAtMs).toBe(nowMs - 1)
  expect(two.sentAtMs).toBe(nowMs)
  expect(one.messageId < two.messageId).toBe(true)
  expect(one.messageId[14]).toBe('7')
  await other.close()
})
