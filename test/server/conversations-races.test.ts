// Changes that meet. Each race is forced: the steps queue behind a lock the test holds.
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Uuid } from '../../proto/ids.ts'
import type { Conversations } from '../../server/conversations.ts'
import type { Sql, Transaction } from '../../server/database.ts'
import { by, makeUsers, pileUp, recording } from '../support/conversations.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { addDevices } from '../support/population.ts'

let db: TestDatabase
let sql: Sql
let conversations: Conversations

beforeAll(async () => {
  db = await testDatabase({ lockMs: 60_000 })
  sql = db.database.sql
  conversations = recording(sql).conversations
})
afterAll(() => db.close())

async function group(count = 4): Promise<{ id: Uuid; users: Uuid[] }> {
  const users = await makeUsers(sql, count)
  const { conversationId: id } = await conversations.createGroup(by(users[0]!), {
    userIds: users.slice(1),
    name: '',
    description: '',
  })
  return { id, users }
}

const rowOf = (id: Uuid) => (tx: Transaction) => tx`select from conversations where conversation_id = ${id} for update`
const outcomes = (settled: PromiseSettledResult<unknown>[]) =>
  settled.map((each) => (each.status === 'fulfilled' ? 'done' : each.reason.code))
const admins = async (id: Uuid) =>
  (
    await sql<{ user_id: Uuid }[]>`
      select user_id from conversation_members where conversation_id = ${id} and state = 'active' and role = 'admin'`
  ).map((each) => each.user_id)
const chain = async (id: Uuid) =>
  (
    await sql<{ revision: number; change: string }[]>`
      select revision, change from conversation_changes where conversation_id = ${id} order by revision`
  ).map((each) => `${each.revision} ${each.change}`)

test('two admins removing each other: one stays', async () => {
  const { id, users } = await group()
  const [ann, bob] = users as [Uuid, Uuid]
  await conversations.setRole(id, by(ann), bob, 'admin')
  const settled = await pileUp(sql, rowOf(id), [
    () => conversations.removeMember(id, by(ann), bob),
    () => conversations.removeMember(id, by(bob), ann),
  ])
  expect(outcomes(settled)).toEqual(['done', 'FORBIDDEN'])
  expect(await admins(id)).toEqual([ann])
})

test('the last two admins, one leaving and one stepping down: one stays', async () => {
  for (const leaverFirst of [true, false]) {
    const { id, users } = await group()
    const [ann, bob] = users as [Uuid, Uuid]
    await conversations.setRole(id, by(ann), bob, 'admin')
    const leave = () => conversations.removeMember(id, by(ann), ann)
    const stepDown = () => conversations.setRole(id, by(bob), bob, 'member')
    const settled = await pileUp(sql, rowOf(id), leaverFirst ? [leave, stepDown] : [stepDown, leave])
    expect(outcomes(settled)).toEqual(['done', 'CONFLICT'])
    expect(await admins(id)).toEqual([leaverFirst ? bob : ann])
  }
})

test('an addition behind an archive is refused, an archive behind an addition is not', async () => {
  const [extra] = (await makeUsers(sql, 1)) as [Uuid]
  const one = await group()
  expect(
    outcomes(
      await pileUp(sql, rowOf(one.id), [
        () => conversations.archive(one.id, by(one.users[0]!)),
        () => conversations.addMembers(one.id, by(one.users[0]!), [extra]),
      ]),
    ),
  ).toEqual(['done', 'FORBIDDEN'])
  expect(await chain(one.id)).toEqual(['1 CREATED', '2 ARCHIVED'])
  const two = await group()
  expect(
    outcomes(
      await pileUp(sql, rowOf(two.id), [
        () => conversations.addMembers(two.id, by(two.users[0]!), [extra]),
        () => conversations.archive(two.id, by(two.users[0]!)),
      ]),
    ),
  ).toEqual(['done', 'done'])
  expect(await chain(two.id)).toEqual(['1 CREATED', '2 MEMBERS_ADDED', '3 ARCHIVED'])
})

test('two additions to 499 members: one finds room', async () => {
  const { id, users } = await group(499)
  const extra = (await makeUsers(sql, 2)) as [Uuid, Uuid]
  const settled = await pileUp(
    sql,
    rowOf(id),
    extra.map((each) => () => conversations.addMembers(id, by(users[0]!), [each])),
  )
  expect(outcomes(settled)).toEqual(['done', 'INVALID_REQUEST'])
})

test('two changes signed on one revision: the chain does not fork', async () => {
  const { id, users } = await group()
  const settled = await pileUp(
    sql,
    rowOf(id),
    ['a', 'b'].map((name) => () => conversations.describe(id, by(users[0]!, { expectedRevision: 1 }), { name })),
  )
  expect(outcomes(settled)).toEqual(['done', 'CONFLICT'])
  expect(await chain(id)).toEqual(['1 CREATED', '2 UPDATED'])
})

test('two direct creations at once: one conversation, one made it', async () => {
  const [one, two] = (await makeUsers(sql, 2)) as [Uuid, Uuid]
  const settled = await pileUp(sql, (tx) => tx`select from accounts where user_id = ${one} for update`, [
    () => conversations.createDirect(by(one), two),
    () => conversations.createDirect(by(two), one),
  ])
  const [first, second] = settled.map((each) => (each.status === 'fulfilled' ? each.value : null))
  expect(first).toMatchObject({ created: true, revision: 1 })
  expect(second).toEqual({ ...first, created: false })
  expect(await chain(first!.conversationId)).toEqual(['1 CREATED'])
})

test("a direct creation that meets the archiving of the pair's conversation gets one that lives", async () => {
  const [one, two] = (await makeUsers(sql, 2)) as [Uuid, Uuid]
  const old = await conversations.createDirect(by(one), two)
  // The archive has written and not committed when it comes to this queue.
  const queueOf = (tx: Transaction) => tx`
    select from device_sequences where device_key in (select device_key from devices where user_id = ${one}) for update`
  const [archived, made] = await pileUp<unknown>(sql, queueOf, [
    () => conversations.archive(old.conversationId, by(one)),
    () => conversations.createDirect(by(two), one),
  ])
  expect(archived).toMatchObject({ status: 'fulfilled' })
  expect(made).toMatchObject({ status: 'fulfilled', value: { created: true, revision: 1 } })
  expect(made).not.toMatchObject({ value: { conversationId: old.conversationId } })
})

test('a device linked while a change waits for it hears of the change; one unlinked meanwhile does not', async () => {
  const { id, users } = await group()
  const [ann, bob] = users as [Uuid, Uuid]
  const [goes] = (await addDevices(sql, [bob], 2)) as [number]
  let linked = 0
  await pileUp(
    sql,
    async (tx) => {
      // as linking and unlinking do: the account first, then the device's rows
      await tx`select from accounts where user_id = ${bob} for update`
      ;[linked] = (await addDevices(tx, [bob], 3)) as [number]
      await tx`delete from device_locks where device_key = ${goes}`
      await tx`delete from devices where device_key = ${goes}`
    },
    [() => conversations.describe(id, by(ann), { name: 'new' })],
  )
  const told = await sql`
    select device_key from message_deliveries_waiting join messages using (message_id)
    where conversation_id = ${id} and device_key in (${linked}, ${goes})`
  expect(told.map((each) => each.device_key)).toEqual([linked])
})

test('50 changes at once: no gap in the chain nor in any queue', async () => {
  const { id, users } = await group(6)
  const [ann, bob] = users as [Uuid, Uuid]
  await conversations.setRole(id, by(ann), bob, 'admin')
  const made = await Promise.all(
    Array.from({ length: 50 }, (_, i) => conversations.describe(id, by(i % 2 ? ann : bob), { name: `n${i}` })),
  )
  expect(made.map((each) => each.revision).sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i + 3))
  const revisions = await sql`select revision from conversation_changes where conversation_id = ${id} order by revision`
  expect(revisions.map((each) => each.revision)).toEqual(Array.from({ length: 52 }, (_, i) => i + 1))
  const queues = await sql`
    select d.device_key, array_agg(w.sequence order by w.sequence) as sequences
    from devices d join message_deliveries_waiting w using (device_key)
    where d.user_id = any(${users}::uuid[]) group by d.device_key`
  expect(queues).toHaveLength(6)
  for (const { sequences } of queues) expect(sequences.map(Number)).toEqual(Array.from({ length: 52 }, (_, i) => i + 1))
})
