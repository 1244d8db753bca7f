// Append on the real database: sequences, idempotency, the device set under its locks, whichever of two nodes commits.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { uuidV7 } from '../../proto/ids.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { type Node, openNode, queueFaults, refused, sendTo, waitingRows } from '../support/node.ts'
import { converse, populate } from '../support/population.ts'
import { holdLocks } from './barrier.ts'

let db: TestDatabase
let east: Node
let west: Node
beforeAll(async () => {
  db = await testDatabase({ lockMs: 60_000 })
  east = openNode(db.url)
  west = openNode(db.url)
})
afterAll(async () => {
  await Promise.all([east?.close(), west?.close()])
  await db?.close()
})
afterEach(async () => {
  expect(await queueFaults(db.database.sql)).toEqual([])
  expect([...east.reported, ...west.reported]).toEqual([])
})

/** Alice, Bob, their direct conversation. */
async function pair(devicesEach = 1) {
  const [alice, bob] = await populate(db.database.sql, 2, devicesEach)
  const conversation = await converse(db.database.sql, [alice!, bob!])
  return { conversation, alice: alice!.devices, bob: bob!.devices, from: alice!.devices[0]!, to: bob!.devices[0]! }
}
const lockOf = (deviceKey: number) =>
  holdLocks(db.database.sql, (tx) => tx`select 1 from device_locks where device_key = ${deviceKey} for update`)

describe('sequences (I4)', () => {
  it('start at 1 and have no gaps, per device', async () => {
    const { conversation, from, to } = await pair()
    const outcomes = []
    for (let i = 0; i < 3; i++) outcomes.push(await east.send(from, sendTo(conversation, [to])))
    expect(outcomes.map((each) => each.committed[0]!.delivery.sequence)).toEqual([1, 2, 3])
    const back = await east.send(to, sendTo(conversation, [from]))
    expect(back.committed[0]!.delivery.sequence).toBe(1)
    const rows = await waitingRows(db.database.sql, to.deviceKey)
    expect(rows.map((row) => row.message_id)).toEqual(outcomes.map((each) => each.messageId))
  })

  it('two writers, the slow one commits last: a reader in between sees nothing of it and skips nothing', async () => {
    const { conversation, from, to } = await pair()
    const { sql } = db.database
    // The slow writer has locked the queue, taken sequence 1 and written; it commits when it is let.
    const slow = uuidV7(Date.now())
    const held = await holdLocks(sql, async (tx) => {
      await tx`select 1 from device_locks where device_key = ${to.deviceKey} for no key update`
      await tx`insert into messages (message_id, sender_type, sent_at) values (${slow}, 2, now())`
      await tx`insert into message_deliveries_waiting (device_key, sequence, message_id) values (${to.deviceKey}, 1, ${slow})`
      await tx`delete from device_sequences where device_key = ${to.deviceKey}`
      await tx`insert into device_sequences (device_key, last) values (${to.deviceKey}, 1)`
    })
    const fast = east.send(from, sendTo(conversation, [to]))
    await held.waiting(1)
    // The fast one can neither commit before it nor take its number.
    const before = await east.queue.page(to.deviceKey, 0, 100, 1e6)
    expect(before).toMatchObject({ deliveries: [], tail: 0, hasMore: false })
    await held.release()
    const { messageId } = await fast
    const after = await east.queue.page(to.deviceKey, before.tail, 100, 1e6)
    expect(after.deliveries.map(({ sequence, messageId }) => [sequence, messageId])).toEqual([
      [1, slow],
      [2, messageId],
    ])
  })

  it('takes no number for a writer that rolled back', async () => {
    const { conversation, from, to } = await pair()
    const failing = db.database.sql
      .begin(async (tx) => {
        await tx`select 1 from device_locks where device_key = ${to.deviceKey} for no key update`
        await tx`delete from device_sequences where device_key = ${to.deviceKey}`
        await tx`insert into device_sequences (device_key, last) values (${to.deviceKey}, 1)`
        throw new Error('rolled back')
      })
      .catch(() => {})
    const [outcome] = await Promise.all([east.send(from, sendTo(conversation, [to])), failing])
    expect(outcome!.committed[0]!.delivery.sequence).toBe(1)
  })
})

describe('a send is idempotent (I2) [S-2]', () => {
  it('two nodes at once: one message, one answer, one delivery', async () => {
    const { conversation, from, to } = await pair()
    const held = await lockOf(from.deviceKey)
    const send = sendTo(conversation, [to])
    // The twin's body differs: the first to commit decides.
    const twin = sendTo(conversation, [to], { clientMessageId: send.clientMessageId })
    const both = [east.send(from, send), west.send(from, twin)]
    await held.waiting(2)
    await held.release()
    const [one, two] = await Promise.all(both)
    expect(one!.messageId).toBe(two!.messageId)
    expect(one!.sentAtMs).toBe(two!.sentAtMs)
    expect([one!.duplicate, two!.duplicate].sort()).toEqual([false, true])
    expect(await waitingRows(db.database.sql, to.deviceKey)).toHaveLength(1)
  })

  it('one node at once: the second copy waits for the first and shares its answer, also its refusal', async () => {
    const { conversation, from, to } = await pair()
    const send = sendTo(conversation, [to])
    const [one, two] = await Promise.all([east.send(from, send), east.send(from, send)])
    expect(two!.messageId).toBe(one!.messageId)
    expect([one!.duplicate, two!.duplicate]).toEqual([false, true])
    expect(two!.committed).toEqual([])
    const bad = sendTo(conversation, [])
    const [first, second] = [refused(east.send(from, bad)), refused(east.send(from, bad))]
    expect([(await first).code, (await second).code]).toEqual(['DEVICE_MISMATCH', 'DEVICE_MISMATCH'])
  })

  it('answers a repeat whose body differs with the first answer', async () => {
    const { conversation, from, to } = await pair(2)
    const { clientMessageId, ...first } = sendTo(conversation, [to], { scope: 'SUBSET' })
    const answer = await east.send(from, { clientMessageId, ...first })
    // Another body, another scope, to devices that would be refused, into another conversation.
    const others = [
      sendTo(conversation, [], { clientMessageId }),
      sendTo(conversation, [{ ...to, registrationId: 9 }], { clientMessageId, scope: 'SUBSET' }),
      sendTo('00000000-0000-4000-8000-000000000000', [to], { clientMessageId }),
    ]
    for (const node of [east, west])
      for (const other of others) {
        const again = await node.send(from, other)
        expect(again).toMatchObject({
          messageId: answer.messageId,
          sentAtMs: answer.sentAtMs,
          duplicate: true,
          committed: [],
        })
      }
    expect(await waitingRows(db.database.sql, to.deviceKey)).toHaveLength(1)
  })

  it('is per device: another device of the user uses the same client_message_id for a message of its own', async () => {
    const { conversation, alice, to, bob } = await pair(2)
    const clientMessageId = uuidV7(Date.now())
    const one = await east.send(alice[0]!, sendTo(conversation, [alice[1]!, ...bob], { clientMessageId }))
    const two = await east.send(alice[1]!, sendTo(conversation, [alice[0]!, ...bob], { clientMessageId }))
    expect(two.duplicate).toBe(false)
    expect(two.messageId).not.toBe(one.messageId)
    expect(await waitingRows(db.database.sql, to.deviceKey)).toHaveLength(2)
  })

  it('burns no id with a refusal: the corrected send is accepted under the same client_message_id', async () => {
    const { conversation, from, to } = await pair()
    const send = sendTo(conversation, [{ ...to, registrationId: 7 }])
    expect((await refused(east.send(from, send))).mismatch?.stale).toHaveLength(1)
    const corrected = await east.send(from, sendTo(conversation, [to], { clientMessageId: send.clientMessageId }))
    expect(corrected.duplicate).toBe(false)
    expect(await waitingRows(db.database.sql, to.deviceKey)).toHaveLength(1)
  })

  it.each(['removed', 'left', 'archived'])('answers a retry as the first time after: %s', async (what) => {
    const { sql } = db.database
    const [alice, bob, carol] = await populate(sql, 3)
    const conversation = await converse(sql, [alice!, bob!, carol!])
    const [from, to] = [alice!.devices[0]!, [bob!.devices[0]!, carol!.devices[0]!]]
    const send = sendTo(conversation, to)
    const first = await east.send(from, send)
    if (what === 'archived')
      await sql`update conversations set archived_at = now() where conversation_id = ${conversation}`
    else
      await sql`update conversation_members set state = ${what}, ended_at = now()
        where conversation_id = ${conversation} and user_id = ${alice!.userId}`
    for (const node of [east, west])
      expect(await node.send(from, send)).toMatchObject({ messageId: first.messageId, duplicate: true })
    expect((await refused(east.send(from, sendTo(conversation, to)))).code).toBe('FORBIDDEN')
  })

  it('a retry that finds the sender removed under the locks is still answered as the first time', async () => {
    const { sql } = db.database
    const people = await populate(sql, 3)
    const conversation = await converse(sql, people)
    const [from, ...to] = people.map((each) => each.devices[0]!)
    const send = sendTo(conversation, to)
    const first = await east.send(from!, send)
    // East's cached roster still has the sender: only append_batch learns of the removal, while it waits.
    const held = await holdLocks(sql, async (tx) => {
      await tx`select 1 from device_locks where device_key = ${from!.deviceKey} for no key update`
      await tx`update conversation_members set state = 'removed' where conversation_id = ${conversation} and user_id = ${from!.userId}`
    })
    const retry = east.send(from!, send)
    const fresh = refused(east.send(from!, sendTo(conversation, to)))
    await held.waiting(1)
    await held.release()
    expect(await retry).toMatchObject({ messageId: first.messageId, duplicate: true })
    // Not the stranger's INVALID_REQUEST [S-9.2].
    expect((await fresh).code).toBe('FORBIDDEN')
  })
})

describe('a device that is gone', () => {
  const unlink = (deviceKey: number) =>
    db.database.sql.begin(async (tx) => {
      await tx`delete from message_deliveries_waiting where device_key = ${deviceKey}`
      await tx`delete from device_sequences where device_key = ${deviceKey}`
      await tx`delete from keys.devices where device_key = ${deviceKey}`
      await tx`delete from devices where device_key = ${deviceKey}`
      await tx`delete from device_locks where device_key = ${deviceKey}`
    })

  it('sends nothing, whatever a node still believes: UNAUTHENTICATED; nothing is stored', async () => {
    const { conversation, alice, bob } = await pair(2)
    const others = [alice[0]!, ...bob]
    await east.send(alice[1]!, sendTo(conversation, others))
    await unlink(alice[1]!.deviceKey)
    // East's roster is cached with the device in it, west has none.
    for (const node of [east, west])
      expect((await refused(node.send(alice[1]!, sendTo(conversation, others)))).code).toBe('UNAUTHENTICATED')
    expect(await waitingRows(db.database.sql, bob[0]!.deviceKey)).toHaveLength(1)
  })

  it('is extra to those who still address it, and gets no row', async () => {
    const { conversation, alice, bob } = await pair(2)
    const all = [alice[1]!, ...bob]
    await east.send(alice[0]!, sendTo(conversation, all))
    await unlink(bob[1]!.deviceKey)
    for (const node of [east, west]) {
      const error = await refused(node.send(alice[0]!, sendTo(conversation, all)))
      expect(error.mismatch).toMatchObject({ missing: [], extra: [{ deviceId: 2, userId: bob[0]!.userId }], stale: [] })
    }
    // And under SUBSET too.
    const subset = sendTo(conversation, [bob[1]!], { scope: 'SUBSET' })
    expect((await refused(east.send(alice[0]!, subset))).mismatch?.extra).toHaveLength(1)
    expect(await waitingRows(db.database.sql, bob[0]!.deviceKey)).toHaveLength(1)
  })
})

describe('two nodes, one busy device', () => {
  it('8 senders x 200 messages to one device: gapless, none twice, in commit order', async () => {
    const { sql } = db.database
    const [reader, ...senders] = await populate(sql, 9)
    const to = reader!.devices[0]!
    const work = senders.map(async (sender, i) => {
      const conversation = await converse(sql, [sender, reader!])
      const node = i % 2 ? east : west
      // Windows of 20, as a client with a few requests in flight.
      const ids: string[] = []
      for (let n = 0; n < 10; n++) {
        const part = Array.from({ length: 20 }, () => node.send(sender.devices[0]!, sendTo(conversation, [to])))
        ids.push(...(await Promise.all(part)).map((each) => each.messageId))
      }
      return ids
    })
    const sent = await Promise.all(work)
    const rows = await waitingRows(sql, to.deviceKey)
    expect(rows.map((row) => row.sequence)).toEqual(Array.from({ length: 1600 }, (_, i) => i + 1))
    const place = new Map(rows.map((row, i) => [row.message_id, i]))
    expect(place.size).toBe(1600)
    // Each sender's own order holds [S-8].
    for (const ids of sent) {
      const places = ids.map((id) => place.get(id)!)
      expect(places).toEqual([...places].sort((a, b) => a - b))
    }
  })
})
