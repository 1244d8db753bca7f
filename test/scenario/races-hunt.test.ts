// A hunt for deadlocks and gaps: sends, links, unlinks, member changes, acks and vacuums at random from several pools for
// some seconds, then every queue of the database is checked. I2 I4 I8 I9
import { randomBytes, randomUUID } from 'node:crypto'
import { expect, it } from 'vitest'
import { RelayError } from '../../proto/errors.ts'
import type { Uuid } from '../../proto/ids.ts'
import type { Sql } from '../../server/database.ts'
import { enqueueEvent } from '../../server/events.ts'
import type { Send } from '../../server/frames.ts'
import { makePartitions } from '../../server/partitions.ts'
import { lockDevices, retireDevices } from '../../server/retirement.ts'
import type { RosterDevice } from '../../server/rosters.ts'
import { by } from '../support/conversations.ts'
import { testDatabase } from '../support/database.ts'
import { type Node, openNode, queueFaults, sendTo } from '../support/node.ts'
import { conversations, populate } from '../support/population.ts'

const HUNT_MS = 8_000
const USERS = 12

// A small generator with a printed seed: a failure can be run again.
const seed = Number(process.env.HUNT_SEED ?? Date.now() % 1e9)
function random(from: number): () => number {
  let state = from
  return () => {
    state = (state * 1103515245 + 12345) % 2147483648
    return state / 2147483648
  }
}

it(`finds neither deadlocks nor gaps (seed ${seed})`, { timeout: 60_000 }, async () => {
  const db = await testDatabase()
  const { sql } = db.database
  await makePartitions(sql, Date.now())
  // A low quota, so that full queues are part of it.
  const nodes = [openNode(db.url, { quota: 300 }), openNode(db.url, { quota: 300 })]
  const people = await populate(sql, USERS, 2)
  const users = people.map((each) => each.userId)
  const groups = await conversations(sql, [people.slice(0, 8), people.slice(4, 12), people], 'group')
  await sql`update conversation_members set role = 'admin'`
  const directs = await conversations(
    sql,
    Array.from({ length: 6 }, (_, i) => [people[i]!, people[11 - i]!]),
    'direct',
  )
  const all = [...groups, ...groups, ...directs]

  const end = Date.now() + HUNT_MS
  const errors: unknown[] = []
  const answers = new Map<string, Set<Uuid>>()
  const done = { sends: 0, refused: 0, links: 0, unlinks: 0, members: 0, acks: 0, vacuums: 0 }
  const run = async (worker: number, step: (next: () => number, node: Node) => Promise<void>) => {
    const next = random(seed + worker * 7919)
    const node = nodes[worker % 2]!
    while (Date.now() < end && errors.length === 0)
      await step(next, node).catch((error) => {
        // Refusals are part of the game, and so is a lock that took too long; a deadlock or anything else is not.
        if (!(error instanceof RelayError) && error?.code !== '55P03') errors.push(error)
      })
  }
  const pick = <T>(next: () => number, of: readonly T[]): T => of[Math.floor(next() * of.length)]!

  const sending = async (next: () => number, node: Node) => {
    const conversation = pick(next, all)
    const roster = await node.rosters.load(conversation)
    if (!roster || roster.devices.length === 0) return
    const from = pick(next, roster.devices)
    const others = roster.devices.filter((each) => each.deviceKey !== from.deviceKey)
    const several = Array.from({ length: 1 + Math.floor(next() * 6) }, () => sendTo(conversation, others))
    await Promise.all(
      several.flatMap((send) =>
        next() < 0.3 ? [submit(node, from, send), submit(nodes[0]!, from, send)] : [submit(node, from, send)],
      ),
    )
  }
  async function submit(node: Node, from: RosterDevice, send: Send) {
    try {
      const { messageId } = await node.send(from, send)
      const key = `${from.deviceKey}.${send.clientMessageId}`
      answers.set(key, (answers.get(key) ?? new Set()).add(messageId))
      done.sends++
    } catch (error) {
      if (!(error instanceof RelayError)) throw error
      done.refused++
    }
  }

  const linking = async (next: () => number) => {
    const userId = pick(next, users)
    await sql.begin(async (tx) => {
      const devices = (await lockDevices(tx, userId))!
      if (devices.length < 4) {
        const deviceId = 1 + Math.max(...devices.map((each) => each.deviceId))
        if (deviceId > 127) return
        const [row] = await tx<
          { device_key: number }[]
        >`insert into devices (device_uuid, user_id, device_id, secret_hash)
          values (${randomUUID()}, ${userId}, ${deviceId}, ${randomBytes(32)}) returning device_key`
        const key = row!.device_key
        await tx`insert into keys.devices (device_key, user_id, device_id, registration_id) values (${key}, ${userId}, ${deviceId}, ${deviceId + 100})`
        await tx`insert into device_locks (device_key) values (${key})`
        await tx`insert into device_sequences (device_key, last) values (${key}, 0)`
        await tell(tx, 'LINKED', deviceId, devices)
        done.links++
      } else {
        const target = pick(next, devices.slice(1))
        // The key directory has nothing of these devices but their row.
        const directory = {
          remove: (t: Sql, keys: number[]) => t`delete from keys.devices where device_key = any(${keys}::bigint[])`,
        }
        await retireDevices(tx, directory as never, userId, [target], Date.now())
        await tell(
          tx,
          'UNLINKED',
          target.deviceId,
          devices.filter((each) => each !== target),
        )
        done.unlinks++
      }
    })
  }
  const tell = (
    tx: Parameters<typeof enqueueEvent>[0],
    change: 'LINKED' | 'UNLINKED',
    deviceId: number,
    to: { deviceKey: number }[],
  ) =>
    enqueueEvent(tx, {
      conversationId: null,
      event: { devicesChanged: { change, deviceId, registrationId: 1 } },
      deviceKeys: to.map((each) => each.deviceKey),
      nowMs: Date.now(),
    })

  const changing = async (next: () => number, node: Node) => {
    const group = pick(next, groups)
    const rows = await sql<{ user_id: Uuid; state: string }[]>`
      select user_id, state from conversation_members where conversation_id = ${group}`
    const active = rows.filter((row) => row.state === 'active').map((row) => row.user_id)
    // Removals that ran side by side emptied it.
    if (active.length === 0) return
    const outside = users.filter((each) => !active.includes(each))
    // Both ends of it: nobody is left to add, or nobody to be added.
    if ((next() < 0.5 || active.length <= 3) && outside.length > 0)
      await node.conversations.addMembers(group, by(pick(next, active)), [pick(next, outside)])
    else if (active.length > 3) await node.conversations.removeMember(group, by(pick(next, active)), pick(next, active))
    done.members++
    // Roles are lost with a removal, and somebody must be able to add.
    await sql`update conversation_members set role = 'admin' where conversation_id = ${group} and state = 'active'`
  }

  const acking = async (next: () => number, node: Node) => {
    const rows = await sql<{ device_key: number; sequence: number; message_id: Uuid }[]>`
      select device_key, sequence, message_id from message_deliveries_waiting order by random() limit ${1 + Math.floor(next() * 200)}`
    const byId = rows.filter((row) => row.device_key === rows[0]!.device_key)
    await Promise.all([
      node.acks.end(rows.map((row) => ({ deviceKey: row.device_key, sequence: row.sequence }))),
      nodes[1]!.acks.endByIds(
        rows[0]?.device_key ?? 0,
        byId.map((row) => row.message_id),
      ),
    ])
    done.acks += rows.length
  }

  const vacuuming = async () => {
    await sql`vacuum message_deliveries_waiting, device_sequences`
    done.vacuums++
  }

  await Promise.all([
    ...[0, 1, 2, 3, 4, 5].map((worker) => run(worker, sending)),
    run(6, linking),
    run(7, linking),
    run(8, changing),
    run(9, changing),
    run(10, acking),
    run(11, acking),
    run(12, vacuuming),
  ])
  await Promise.all(nodes.map((node) => node.writer.drained()))
  expect(errors).toEqual([])
  expect(nodes.flatMap((node) => node.reported)).toEqual([])

  // PostgreSQL counts the deadlocks it has broken, also those a retry has hidden.
  const [stats] = await sql`select deadlocks from pg_stat_database where datname = current_database()`
  expect(Number(stats!.deadlocks)).toBe(0)
  expect(await queueFaults(sql)).toEqual([])
  // One message for each (device, client_message_id), whoever was asked and how often.
  expect([...answers.values()].filter((ids) => ids.size !== 1)).toEqual([])
  const [twice] = await sql`select count(*) as n from (
    select 1 from messages where sender_type = 1 group by sender_device_key, client_message_id having count(*) > 1) x`
  expect(twice!.n).toBe(0)
  // It was a hunt: all of it happened.
  for (const [what, count] of Object.entries(done)) expect(count, what).toBeGreaterThan(5)
  await Promise.all(nodes.map((node) => node.close()))
  await db.close()
})
