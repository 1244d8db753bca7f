// Who is told of a new identity: everybody who shares a conversation, once, in slices that survive whoever works on them. [V-5]
import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidFromBytes } from '../../proto/ids.ts'
import type { Committed } from '../../server/frames.ts'
import { keepTelling } from '../../server/news.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { queueFaults } from '../support/node.ts'
import { conversations, converse, type Person, populate } from '../support/population.ts'
import { holdLocks } from './barrier.ts'

let db: TestDatabase
const tellers: { stop(): Promise<void> }[] = []
beforeEach(async () => {
  db = await testDatabase()
})
afterEach(async () => {
  await Promise.all(tellers.splice(0).map((each) => each.stop()))
  await db.close()
})

const newKey = (): Uint8Array => Uint8Array.of(5, ...randomBytes(32))

/** Begins to tell, as a node that starts; `failure` resolves with its first error. */
function teller({ again = false } = {}) {
  const fannedOut: Committed[] = []
  let failed!: (error: unknown) => void
  const failure = new Promise<unknown>((resolve) => {
    failed = resolve
  })
  const it = keepTelling({
    ...{ sql: db.database.sql, clock: Date.now },
    report(error) {
      failed(error)
      // A barrier that was held for long, on a machine with much to do: it would be tried again in a while.
      if (again) it.tell()
    },
    fanOut: (committed) => fannedOut.push(...committed),
  })
  tellers.push(it)
  return { ...it, fannedOut, failure }
}
const toldAll = async () => {
  for (;;) if ((await db.database.sql`select 1 from identity_news`).length === 0) return
}
/** Notes a new identity as its transaction does; `more` is done in the same. Nobody tells of it yet. */
async function began({ userId }: Person, identityKey: Uint8Array, more = async () => {}) {
  const notes = teller()
  await notes.stop()
  await db.database.sql.begin(async (tx) => {
    await notes.put(tx, userId, identityKey, Date.now())
    await more()
  })
}

/** The IdentityChanged that wait, by device key: the key each names, in order. All of them are that user's. */
async function heard(user: Person): Promise<Map<number, string[]>> {
  const rows = await db.database.sql<{ device_key: number; content: Buffer; conversation_id: string | null }[]>`
    select w.device_key, w.content, m.conversation_id
    from message_deliveries_waiting w join messages m using (message_id) order by w.device_key, w.sequence`
  const by = new Map<number, string[]>()
  for (const { device_key, content, conversation_id } of rows) {
    const { identityChanged } = sealpost.v1.SystemEvent.decode(content)
    expect([uuidFromBytes(identityChanged!.userId!), conversation_id]).toEqual([user.userId, null])
    by.set(device_key, [...(by.get(device_key) ?? []), Buffer.from(identityChanged!.identityKey!).toString('hex')])
  }
  return by
}
const hex = (key: Uint8Array) => Buffer.from(key).toString('hex')
const devicesOf = (people: Person[]) => people.flatMap((each) => each.devices.map((device) => device.deviceKey))
/** Each of these devices, and no other, heard exactly this. */
const expectHeard = async (user: Person, people: Person[], ...keys: Uint8Array[]) => {
  const said = keys.map(hex)
  expect(await heard(user)).toEqual(new Map(devicesOf(people).map((key) => [key, said])))
  expect(await queueFaults(db.database.sql)).toEqual([])
}

describe('who', () => {
  test('every device of everybody with whom a conversation is shared, once however many are; not the user himself', async () => {
    const { sql } = db.database
    const people = await populate(sql, 5, 2)
    const [user, ann, bob, cy, eve] = people as [Person, Person, Person, Person, Person]
    await converse(sql, [user, ann])
    await conversations(
      sql,
      [
        [user, ann, bob],
        [user, bob, cy],
        [ann, bob, eve],
      ],
      'group',
    )
    const key = newKey()
    await began(user, key)
    const node = teller()
    await toldAll()
    await expectHeard(user, [ann, bob, cy], key)
    // The connected hear of it at once.
    expect(node.fannedOut.map((each) => each.deviceKey).sort()).toEqual(devicesOf([ann, bob, cy]).sort())
  })

  test('nobody by a conversation that is archived, or that one of the two has left', async () => {
    const { sql } = db.database
    const people = await populate(sql, 5)
    const [user, ann, bob, cy, dan] = people as [Person, Person, Person, Person, Person]
    const [archived, left] = await conversations(
      sql,
      [
        [user, ann, dan],
        [user, bob, cy],
      ],
      'group',
    )
    const [gone] = await conversations(sql, [[user, ann, bob]], 'group')
    await sql`update conversations set archived_at = now() where conversation_id = ${archived!}`
    await sql`update conversation_members set state = 'left' where conversation_id = ${left!} and user_id = ${cy.userId}`
    await sql`update conversation_members set state = 'removed' where conversation_id = ${gone!} and user_id = ${user.userId}`
    const key = newKey()
    await began(user, key)
    teller()
    await toldAll()
    await expectHeard(user, [bob], key)
  })

  test('nobody by a transaction that fails', async () => {
    const { sql } = db.database
    const [user, ann] = (await populate(sql, 2)) as [Person, Person]
    await converse(sql, [user, ann])
    const failing = began(user, newKey(), async () => {
      throw new Error('rolled back')
    })
    await expect(failing).rejects.toThrow('rolled back')
    await teller().stop()
    await expectHeard(user, [])
  })
})

describe('hundreds', () => {
  /** A user in two groups that overlap: 260 others, three slices. In the order in which they are told. */
  async function crowd() {
    const { sql } = db.database
    const [user, ...others] = (await populate(sql, 261)) as [Person, ...Person[]]
    await conversations(
      sql,
      [
        [user, ...others.slice(0, 180)],
        [user, ...others.slice(100)],
      ],
      'group',
    )
    return { user, others: others.sort((a, b) => (a.userId < b.userId ? -1 : 1)) }
  }
  const queueLock = (person: Person) => (tx: Parameters<Parameters<typeof db.database.sql.begin>[1]>[0]) =>
    tx`select 1 from device_locks where device_key = ${person.devices[0]!.deviceKey} for no key update`

  test('are told in several transactions, each once', async () => {
    const { user, others } = await crowd()
    const key = newKey()
    await began(user, key)
    teller()
    await toldAll()
    await expectHeard(user, others, key)
    const [row] = await db.database.sql`select count(distinct message_id)::int as n from message_deliveries_waiting`
    expect(row!.n).toBe(3)
  })

  test('cut off between two: the rest is told later, nobody twice', async () => {
    const { user, others } = await crowd()
    const { reader } = db.database
    const key = newKey()
    await began(user, key)
    const held = await holdLocks(reader, queueLock(others[150]!))
    const node = teller()
    const [pid] = await held.waiting(1)
    await expectHeard(user, others.slice(0, 100), key)
    await reader`select pg_terminate_backend(${pid!})`
    await node.failure
    await held.release()
    // Another node finds it; this one would in a while.
    await node.stop()
    teller()
    await toldAll()
    await expectHeard(user, others, key)
  })

  test('by two nodes at once: nobody twice', async () => {
    const { user, others } = await crowd()
    const key = newKey()
    await began(user, key)
    const held = await holdLocks(db.database.reader, queueLock(others[50]!))
    teller({ again: true })
    teller({ again: true })
    await held.waiting(2)
    await held.release()
    await toldAll()
    await expectHeard(user, others, key)
  })

  test('begun anew again meanwhile: everybody hears of the last, some of both, in order', async () => {
    const { user, others } = await crowd()
    const [first, second] = [newKey(), newKey()]
    await began(user, first)
    const held = await holdLocks(db.database.reader, queueLock(others[150]!))
    teller({ again: true })
    await held.waiting(1)
    await began(user, second)
    await held.release()
    await toldAll()
    const told = await heard(user)
    expect(told.size).toBe(260)
    for (const [at, person] of others.entries())
      expect(told.get(person.devices[0]!.deviceKey), `person ${at}`).toEqual(
        at < 100 ? [hex(first), hex(second)] : [hex(second)],
      )
    expect(await queueFaults(db.database.sql)).toEqual([])
  })

  test('one whose queue cannot be had does not keep others from being told', async () => {
    const { user, others } = await crowd()
    const { sql, reader } = db.database
    const [lonely, friend] = (await populate(sql, 2)) as [Person, Person]
    await converse(sql, [lonely, friend])
    await began(user, newKey())
    await began(lonely, newKey())
    const held = await holdLocks(reader, queueLock(others[0]!))
    const node = teller()
    const friendKey = friend.devices[0]!.deviceKey
    // The lock is waited for as long as any is: the teller's error, then the next in line.
    expect(await node.failure).toMatchObject({ code: '55P03' })
    while ((await sql`select 1 from message_deliveries_waiting where device_key = ${friendKey}`).length === 0);
    await held.release()
  })
})
