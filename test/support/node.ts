// The writing half of a relay node, without sockets: rosters, writer and mailbox on pools of their own. Two of them on one
// database are two nodes.
import { randomBytes } from 'node:crypto'
import { openLocalMeters } from '../../keys/meter.ts'
import type { RelayError } from '../../proto/errors.ts'
import { type Uuid, uuidV7 } from '../../proto/ids.ts'
import { Acks } from '../../server/acks.ts'
import { openAllowance } from '../../server/allowance.ts'
import type { Outcome } from '../../server/batch.ts'
import { Conversations } from '../../server/conversations.ts'
import { type Database, openDatabase, type Sql } from '../../server/database.ts'
import type { Send } from '../../server/frames.ts'
import { liftedRates } from '../../server/limits.ts'
import { Mailbox } from '../../server/mailbox.ts'
import { Queue } from '../../server/queue.ts'
import { type RosterDevice, Rosters } from '../../server/rosters.ts'
import { Writer } from '../../server/writer.ts'

export type Node = {
  database: Database
  rosters: Rosters
  writer: Writer
  mailbox: Mailbox
  conversations: Conversations
  acks: Acks
  queue: Queue
  /** Device keys whose sessions were told to look for themselves, in order. */
  unknown: number[]
  /** Errors nobody expected. */
  reported: unknown[]
  /** Messages per batch, in order. */
  batches: number[]
  send(sender: RosterDevice, send: Send): Promise<Outcome>
  close(): Promise<void>
}

/** @param options.quota rows a queue holds; 10,000 unless said. */
export function openNode(
  url: string,
  options: {
    quota?: number
    /** Whether strangers are asked; 'open' unless said: who writes to whom in most stories knows the other. [V-6] */
    strangers?: 'ask' | 'open'
    clock?: () => number
    sizes?: { sql: number; writer: number; acker: number; reader: number }
  } = {},
): Node {
  const database = openDatabase(url, options.sizes)
  const { quota = 10_000, clock = Date.now } = options
  const rosters = new Rosters(database.sql)
  const unknown: number[] = []
  const reported: unknown[] = []
  const batches: number[] = []
  const writer = new Writer(
    {
      sql: database.writer,
      rosters,
      clock,
      quota,
      onAccepted: (id) => rosters.drop(id),
      onUnknown: (keys) => unknown.push(...keys),
      report: (error) => reported.push(error),
    },
    { batch: (messages) => batches.push(messages), depth: () => {} },
  )
  const conversations = new Conversations({
    sql: database.sql,
    strangers: options.strangers ?? 'open',
    fanOut: () => {},
    onChanged: (id) => rosters.drop(id),
  })
  const mailbox = new Mailbox({
    sql: database.sql,
    rosters,
    writer,
    clock,
    allowance: openAllowance(openLocalMeters(clock), liftedRates()),
    membershipOf: (conversationId, userId) => conversations.membershipOf(conversationId, userId),
  })
  return {
    database,
    rosters,
    writer,
    mailbox,
    conversations,
    acks: new Acks(database.acker),
    queue: new Queue(database.reader),
    unknown,
    reported,
    batches,
    send: (sender, send) => mailbox.append(sender, send).outcome,
    close: async () => {
      await writer.drained()
      await database.close()
    },
  }
}

/** A checked send to these devices, 64 random bytes each unless `content` is given. */
export function sendTo(
  conversationId: Uuid,
  devices: RosterDevice[],
  more: Partial<Send> & { content?: Uint8Array } = {},
): Send {
  const { content, ...fields } = more
  return {
    clientMessageId: uuidV7(Date.now()),
    conversationId,
    scope: 'ALL',
    recipients: devices.map(({ userId, deviceId, registrationId }) => ({
      userId,
      deviceId,
      registrationId,
      ciphertextType: 2,
      content: content ?? randomBytes(64),
      iv: new Uint8Array(0),
      withheld: 0,
    })),
    messageType: 1,
    replyToMessageId: null,
    attachmentUrl: null,
    thumbnailUrl: null,
    priority: 2,
    urgent: true,
    ...fields,
  }
}

/** What a promise was refused with; fails the test when it was not. */
export const refused = (promise: Promise<unknown>): Promise<RelayError> =>
  promise.then(
    (value) => {
      throw new Error(`was not refused: ${JSON.stringify(value)}`)
    },
    (error: RelayError) => error,
  )

export type QueueRow = { sequence: number; message_id: Uuid; content: Buffer | null; withheld: number }

/** What waits for a device, by sequence. */
export const waitingRows = (sql: Sql, deviceKey: number): Promise<QueueRow[]> =>
  sql<QueueRow[]>`select sequence, message_id, content, withheld from message_deliveries_waiting
    where device_key = ${deviceKey} order by sequence`.then((rows) => [...rows])

/**
 * Faults in any queue of the database: sequences with gaps, twice, or other than device_sequences says. Sound: none.
 * @param delivered false when partitions of the delivered were dropped: gaps are no fault then.
 */
export async function queueFaults(sql: Sql, delivered = true): Promise<string[]> {
  const rows = await sql<
    {
      device_key: number
      copies: number
      distinct: number
      highest: number
      last: number
      tails: number
      expired: number
    }[]
  >`
    select l.device_key, s.last, s.tails, coalesce(d.copies, 0) as copies, coalesce(d.different, 0) as distinct,
      coalesce(d.highest, 0) as highest, coalesce(g.expired, 0) as expired
    from device_locks l
    left join (select device_key, max(last) as last, count(*) as tails from device_sequences group by 1) s using (device_key)
    left join (select device_key, count(*) as copies, count(distinct sequence) as different, max(sequence) as highest
      from message_deliveries group by 1) d using (device_key)
    left join gaps g using (device_key)`
  const faults: string[] = []
  for (const row of rows) {
    if (row.tails !== 1) faults.push(`device ${row.device_key} has ${row.tails} rows in device_sequences`)
    if (row.copies !== row.distinct) faults.push(`device ${row.device_key} has a sequence twice`)
    if (!delivered && row.highest <= row.last) continue
    if (row.copies + row.expired !== row.last || (row.expired === 0 && row.highest !== row.last))
      faults.push(
        `device ${row.device_key}: ${row.copies} rows up to ${row.highest}, ${row.expired} expired, last ${row.last}`,
      )
  }
  const [orphans] = await sql<[{ n: number }]>`
    select count(*) as n from message_deliveries_waiting w where not exists (select 1 from device_locks l where l.device_key = w.device_key)`
  if (orphans.n > 0) faults.push(`${orphans.n} rows wait for devices that do not exist`)
  const [lost] = await sql<[{ n: number }]>`
    select count(*) as n from message_deliveries_waiting w where not exists (select 1 from messages m where m.message_id = w.message_id)`
  if (lost.n > 0) faults.push(`${lost.n} rows wait without their message`)
  return faults
}
