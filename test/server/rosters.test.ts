// Rosters: what roster() says, what is cached of it, and that a stale one is only ever stale.
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Rosters } from '../../server/rosters.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { conversations, converse, type Person, populate } from '../support/population.ts'
import { holdLocks } from './barrier.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await testDatabase({ lockMs: 60_000 })
})
afterAll(() => db?.close())
const sql = () => db.database.sql
const keysOf = (people: Person[]) =>
  people.flatMap((each) => each.devices.map((device) => device.deviceKey)).sort((a, b) => a - b)

describe('a roster', () => {
  it('holds every device of every active member, ascending, findable both ways', async () => {
    const people = await populate(sql(), 4, 2)
    const id = await converse(sql(), people)
    await sql()`update conversation_members set state = 'left' where conversation_id = ${id} and user_id = ${people[2]!.userId}`
    await sql()`update conversation_members set state = 'removed' where conversation_id = ${id} and user_id = ${people[3]!.userId}`
    const roster = (await new Rosters(sql()).load(id))!
    expect(roster).toMatchObject({ conversationId: id, kind: 'group', archived: false })
    expect(roster.devices.map((each) => each.deviceKey)).toEqual(keysOf(people.slice(0, 2)))
    for (const device of people.slice(0, 2).flatMap((each) => each.devices)) {
      expect(roster.byAddress.get(`${device.userId}.${device.deviceId}`)).toEqual(device)
      expect(roster.byKey.get(device.deviceKey)).toEqual(device)
    }
  })

  it('of nothing is null, and nothing is cached of it', async () => {
    const rosters = new Rosters(sql())
    const id = randomUUID()
    expect(await rosters.load(id)).toBe(null)
    expect(rosters.cached(id)).toBe(undefined)
  })

  it('may be asked for by its age: an old one is read again, and from then on it is the one that is held', async () => {
    const people = await populate(sql(), 3)
    const id = await converse(sql(), people)
    const rosters = new Rosters(sql())
    expect(await rosters.recent(id, 60_000)).toMatchObject({ devices: { length: 3 } })
    await sql()`update conversation_members set state = 'left' where conversation_id = ${id} and user_id = ${people[2]!.userId}`
    expect(await rosters.recent(id, 60_000)).toMatchObject({ devices: { length: 3 } })
    expect(await rosters.recent(id, -1)).toMatchObject({ devices: { length: 2 } })
    expect(rosters.cached(id)).toMatchObject({ devices: { length: 2 } })
    expect(await rosters.recent(randomUUID(), 60_000)).toBe(null)
  })

  it('of a conversation that everybody left has no devices', async () => {
    const id = await converse(sql(), await populate(sql(), 3))
    await sql()`update conversation_members set state = 'left' where conversation_id = ${id}`
    expect(await new Rosters(sql()).load(id)).toMatchObject({ devices: [] })
  })
})

describe('its digest', () => {
  const digestOf = async (id: string) => (await new Rosters(sql()).load(id))!.digest
  const changes: [string, (id: string, people: Person[]) => Promise<unknown>][] = [
    ['a device comes', (_, people) => addDevice(people[1]!)],
    [
      'a device goes',
      (_, people) => sql()`delete from keys.devices where device_key = ${people[1]!.devices[1]!.deviceKey}`,
    ],
    [
      'a registration id changes',
      (_, people) =>
        sql()`update keys.devices set registration_id = 7 where device_key = ${people[1]!.devices[0]!.deviceKey}`,
    ],
    [
      'a member goes',
      (id, people) =>
        sql()`update conversation_members set state = 'left' where conversation_id = ${id} and user_id = ${people[1]!.userId}`,
    ],
    ['it is archived', (id) => sql()`update conversations set archived_at = now() where conversation_id = ${id}`],
  ]
  it.each(changes)('is another one when %s', async (_, change) => {
    const people = await populate(sql(), 3, 2)
    const id = await converse(sql(), people)
    const before = await digestOf(id)
    expect(await digestOf(id)).toBe(before)
    await change(id, people)
    expect(await digestOf(id)).not.toBe(before)
  })

  it('is not moved by what does not change who receives', async () => {
    const people = await populate(sql(), 3, 2)
    const id = await converse(sql(), people)
    const before = await digestOf(id)
    await sql()`update conversations set name = 'another', revision = 9 where conversation_id = ${id}`
    await sql()`update conversation_members set role = 'admin', muted_until = now() where conversation_id = ${id}`
    expect(await digestOf(id)).toBe(before)
  })

  it('tells two ids in two places apart: swapped registration ids are another set', async () => {
    const people = await populate(sql(), 2)
    const id = await converse(sql(), people)
    const [one, two] = people.map((each) => each.devices[0]!.deviceKey)
    await sql()`update keys.devices set registration_id = 1 where device_key = ${one!}`
    await sql()`update keys.devices set registration_id = 11 where device_key = ${two!}`
    const before = await digestOf(id)
    await sql()`update keys.devices set registration_id = 12 - registration_id where device_key in (${one!}, ${two!})`
    expect(await digestOf(id)).not.toBe(before)
  })

  async function addDevice(person: Person) {
    const [row] = await sql()`insert into devices (device_uuid, user_id, device_id, secret_hash)
      values (gen_random_uuid(), ${person.userId}, 9, sha256('x')) returning device_key`
    await sql()`insert into keys.devices (device_key, user_id, device_id, registration_id) values (${row!.device_key}, ${person.userId}, 9, 9)`
  }
})

describe('the cache', () => {
  it('loads of one turn share a query, and each gets its own', async () => {
    const people = await populate(sql(), 6)
    const ids = await conversations(sql(), [people.slice(0, 2), people.slice(2, 4), people.slice(4, 6)], 'direct')
    const rosters = new Rosters(sql())
    const loaded = await Promise.all([...ids, ids[0]!, randomUUID()].map((id) => rosters.load(id)))
    expect(loaded.map((each) => each?.conversationId ?? null)).toEqual([...ids, ids[0], null])
    expect(loaded[3]).toBe(loaded[0])
    for (const [i, id] of ids.entries()) expect(rosters.cached(id)).toBe(loaded[i])
  })

  it('keeps what it has until it is told to drop it, and reads again on load', async () => {
    const people = await populate(sql(), 3)
    const id = await converse(sql(), people)
    const rosters = new Rosters(sql())
    await rosters.load(id)
    await sql()`update conversation_members set state = 'left' where conversation_id = ${id} and user_id = ${people[0]!.userId}`
    expect(rosters.cached(id)!.devices).toHaveLength(3)
    rosters.drop(id)
    expect(rosters.cached(id)).toBe(undefined)
    rosters.drop(id)
    expect((await rosters.load(id))!.devices).toHaveLength(2)
    expect(rosters.cached(id)!.devices).toHaveLength(2)
  })

  it('keeps nothing that was read before it was told to drop it, however late the answer comes', async () => {
    const id = await converse(sql(), await populate(sql(), 3))
    const rosters = new Rosters(sql())
    const held = await holdLocks(sql(), (tx) => tx`lock table conversation_members in access exclusive mode`)
    const loading = rosters.load(id)
    await held.waiting(1)
    rosters.drop(id)
    await held.release()
    expect((await loading)!.devices).toHaveLength(3)
    expect(rosters.cached(id)).toBe(undefined)
    await rosters.load(id)
    expect(rosters.cached(id)!.devices).toHaveLength(3)
  })

  it('a failing database fails the loads of that turn and no later one', async () => {
    const people = await populate(sql(), 2)
    const id = await converse(sql(), people)
    const other = await testDatabase()
    const rosters = new Rosters(other.database.sql)
    await other.database.sql.unsafe('alter table conversation_members rename to gone')
    const failed = await Promise.allSettled([rosters.load(id), rosters.load(randomUUID())])
    expect(failed.map((each) => each.status)).toEqual(['rejected', 'rejected'])
    await other.database.sql.unsafe('alter table gone rename to conversation_members')
    expect(await rosters.load(id)).toBe(null)
    await other.close()
  })
})
