// What an ack ends, and what it leaves alone. I3
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { bytesOfAll, commitUnannounced, deliveredTo, waitingFor } from '../support/backlog.ts'
import { Client, idOf } from '../support/client.ts'
import { type Pair, pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ErrorCode } = sealpost.v1

let relay: TestRelay
let bystander: Client
beforeAll(async () => {
  relay = await testRelay({ lockMs: 60_000 })
  bystander = await Client.register(relay)
})
afterAll(() => relay.close())

let users: Pair
let ids: string[]
const waiting = () => waitingFor(relay.db.database.sql, users.bob)
const commit = (count: number) =>
  commitUnannounced(relay.db.database.sql, {
    from: users.alice,
    to: users.bob,
    conversation: users.conversation,
    count,
  })
beforeEach(async () => {
  users = await pair(relay)
  ids = await commit(3)
})

it('unknown ids change nothing and are no error', async () => {
  const to = await users.bob.connect()
  await to.ack(uuidToBytes(randomUUID()), uuidToBytes(uuidV7(Date.now())), new Uint8Array(16))
  expect(await waiting()).toEqual(ids)
  await to.close()
})

it('foreign ids change nothing and are no error: a delivery is ended by its own device only', async () => {
  const other = await bystander.live()
  await other.ack(...bytesOfAll(ids))
  expect(await waiting()).toEqual(ids)
  await other.close()
})

it('repeated ids change nothing and are no error: in one ack, in the next, on the next connection', async () => {
  const to = await users.bob.connect()
  await to.sync()
  const [first] = bytesOfAll(ids)
  await to.ack(first, first, first)
  await to.ack(first)
  await to.close()
  const again = await users.bob.connect()
  await again.ack(first, first)
  expect(await waiting()).toEqual(ids.slice(1))
  expect((await deliveredTo(relay.db.database.sql, users.bob, ids)).map((row) => row.message_id)).toEqual([ids[0]])
  await again.close()
})

it('acked out of order, the others stay', async () => {
  const to = await users.bob.connect()
  await to.sync()
  await to.ack(uuidToBytes(ids[1]!))
  expect(await waiting()).toEqual([ids[0], ids[2]])
  expect((await to.sync()).messages!.map((each) => idOf(each.messageId))).toEqual([ids[0], ids[2]])
  await to.close()
})

it('an ack of an id from another connection, never sent on this one, counts', async () => {
  const first = await users.bob.connect()
  await first.sync()
  await first.close()
  const second = await users.bob.connect()
  await second.ack(...bytesOfAll(ids))
  expect(await waiting()).toEqual([])
  await second.close()
})

it('an ack that a displaced session sent before it was closed is valid', async () => {
  const { sql } = relay.db.database
  const older = await users.bob.connect()
  await older.sync()
  let newer: Promise<Awaited<ReturnType<Client['connect']>>> | null = null
  await sql.begin(async (tx) => {
    await tx`set local idle_in_transaction_session_timeout = 0`
    // The ack's statement stands in line while the newer connection takes over.
    await tx`select 1 from message_deliveries_waiting where message_id = any(${ids}::uuid[]) for update`
    older.write({ ack: { messageIds: bytesOfAll(ids) } })
    for (let lined = 0; lined === 0; ) {
      await tx`select pg_stat_clear_snapshot()`
      const [row] = await tx<[{ lined: number }]>`select count(*) as lined from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'`
      lined = row.lined
    }
    newer = users.bob.connect()
    expect(await older.end()).toBe(4409)
  })
  const socket = await newer!
  // A round trip through the same acks: the older one's came first.
  await socket.fence()
  for (;;) if ((await waiting()).length === 0) break
  expect((await socket.sync()).messages).toEqual([])
  await socket.close()
})

it('an ack of 1,000 ids is one frame; 1,001 are TOO_LARGE and end nothing', async () => {
  ids = [...ids, ...(await commit(998))]
  const to = await users.bob.connect()
  const refused = await to.ask({ ack: { messageIds: bytesOfAll(ids) } })
  expect(refused.error?.code).toBe(ErrorCode.ERROR_CODE_TOO_LARGE)
  expect((await waiting()).length).toBe(1001)
  await to.ack(...bytesOfAll(ids.slice(0, 1000)))
  expect(await waiting()).toEqual(ids.slice(1000))
  await to.close()
})

it('an id of 15 bytes is refused by name, and ends nothing of that ack', async () => {
  const to = await users.bob.connect()
  const refused = await to.ask({ ack: { messageIds: [...bytesOfAll(ids), new Uint8Array(15)] } })
  expect(refused.error).toMatchObject({ code: ErrorCode.ERROR_CODE_INVALID_REQUEST })
  expect(refused.error?.message).toContain('message_ids[3]')
  expect(await waiting()).toEqual(ids)
  await to.close()
})

it('a sync right behind an ack, not waiting for its commit, does not bring the acked again', async () => {
  const to = await users.bob.connect()
  await to.sync()
  for (let round = 0; round < 10; round++) {
    const more = await commit(5)
    const all = [...(await waiting())]
    expect(all.slice(-5)).toEqual(more)
    const acked = all.slice(0, -1)
    to.write({ ack: { messageIds: bytesOfAll(acked) } })
    const page = await to.sync()
    expect(page.messages!.map((each) => idOf(each.messageId))).toEqual(all.slice(-1))
  }
  await to.close()
})

it('the ciphertext is erased in the commit of the ack: the row is in its day partition without content', async () => {
  const { sql } = relay.db.database
  const from = await users.alice.live()
  const iv = Buffer.alloc(12, 3)
  const sent = await from.send(users.conversation, [{ ...users.bob.to(), iv }])
  const all = [...ids, idOf(sent.messageAccepted?.messageId)]
  const to = await users.bob.connect()
  await to.drain()
  const rows = await deliveredTo(sql, users.bob, all)
  expect(rows).toEqual(all.map((message_id) => ({ message_id, bytes: null })))
  const partitions = await sql<{ name: string }[]>`
    select distinct tableoid::regclass::text as name from message_deliveries
    where message_id = any(${all}::uuid[])`
  expect(partitions.map((row) => row.name)).toEqual([expect.stringMatching(/^message_deliveries_\d{8}$/)])
  await Promise.all([from.close(), to.close()])
})
