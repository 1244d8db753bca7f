// Users with devices, registration ids and queues, and conversations of theirs, straight in the database: thousands in a moment.
import { randomBytes, randomUUID } from 'node:crypto'
import type { Uuid } from '../../proto/ids.ts'
import type { Sql, Transaction } from '../../server/database.ts'
import type { RosterDevice } from '../../server/rosters.ts'

export type Person = { userId: Uuid; devices: RosterDevice[] }

/** So many users with so many devices each, numbered from 1; registration id 100 + device id. Device keys ascend in order. */
export async function populate(sql: Sql, users: number, devicesEach = 1): Promise<Person[]> {
  const people = Array.from({ length: users }, (): Person => ({ userId: randomUUID(), devices: [] }))
  const ids = people.map((each) => each.userId)
  await sql`insert into accounts (user_id) select u from unnest(${ids}::uuid[]) u`
  await sql`insert into keys.identities (user_id, identity_key)
    select u, decode('05', 'hex') || sha256(u::text::bytea) from unnest(${ids}::uuid[]) u`
  for (let deviceId = 1; deviceId <= devicesEach; deviceId++) {
    const keys = await addDevices(sql, ids, deviceId)
    for (const [i, { userId, devices }] of people.entries())
      devices.push({ deviceKey: keys[i]!, userId, deviceId, registrationId: 100 + deviceId })
  }
  return people
}

/** One more device for each of the users. @returns their keys, in the users' order and ascending. */
export async function addDevices(sql: Sql | Transaction, users: Uuid[], deviceId: number): Promise<number[]> {
  const rows = await sql<{ user_id: Uuid; device_key: number }[]>`
    insert into devices (device_uuid, user_id, device_id, secret_hash)
    select gen_random_uuid(), u, ${deviceId}, ${randomBytes(32)} from unnest(${users}::uuid[]) with ordinality x(u, n) order by n
    returning user_id, device_key`
  const keys = rows.map((row) => row.device_key)
  await sql`insert into keys.devices (device_key, user_id, device_id, registration_id)
    select device_key, user_id, device_id, ${100 + deviceId} from devices where device_key = any(${keys}::bigint[])`
  await sql`insert into device_locks (device_key) select k from unnest(${keys}::bigint[]) k`
  await sql`insert into device_sequences (device_key, last) select k, 0 from unnest(${keys}::bigint[]) k`
  const keyOf = new Map(rows.map((row) => [row.user_id, row.device_key]))
  return users.map((user) => keyOf.get(user)!)
}

/** A conversation of these users: direct when there are two and nothing else is said. */
export async function converse(
  sql: Sql,
  people: Person[],
  kind = people.length === 2 ? 'direct' : 'group',
): Promise<Uuid> {
  const [id] = await conversations(sql, [people], kind)
  return id!
}

/** Many conversations at once. */
export async function conversations(sql: Sql, of: Person[][], kind: string): Promise<Uuid[]> {
  const ids = of.map(() => randomUUID())
  const pairs = of.map((people) => (kind === 'direct' ? people.map((each) => each.userId).sort() : [null, null]))
  await sql`insert into conversations (conversation_id, kind, low_user, high_user)
    select i, ${kind}, l, h from unnest(${ids}::uuid[], ${pairs.map((p) => p[0]!)}::uuid[], ${pairs.map((p) => p[1]!)}::uuid[]) x(i, l, h)`
  const members = of.flatMap((people, i) => people.map((each) => [ids[i]!, each.userId] as const))
  await sql`insert into conversation_members (conversation_id, user_id)
    select c, u from unnest(${members.map((m) => m[0])}::uuid[], ${members.map((m) => m[1])}::uuid[]) x(c, u)`
  return ids
}
