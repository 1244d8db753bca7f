// One batch into append_batch() and back: arrays in, what was written or why nothing was out. No policy here; that is in batch.ts.
import type { Uuid } from '../proto/ids.ts'
import { STRANGER_MAX_MESSAGES } from '../proto/limits.ts'
import type { Addressed, Route } from './authorize.ts'
import type { PendingQuery, Sql, Transaction } from './database.ts'
import type { Send, Sender } from './frames.ts'
import type { Roster, RosterDevice } from './rosters.ts'
import { hex, STAGED_ABOVE_BYTES, stage, staged } from './staging.ts'

/** A decided send on its way to commit. */
export type Entry = Route & {
  sender: Sender
  send: Send
  messageId: Uuid
  /** The roster it was decided on. */
  roster: Roster
  /** Rows for full queues; they become dead letters. */
  overflow: Addressed[]
  /** Of the suppressed, those whose queue is full: skipped like the others, and told nothing. [V-7.1] */
  unheard?: RosterDevice[]
}

export type AppendResult =
  | {
      written: true
      /** Per entry and row: the sequence given. */
      sequences: number[][]
    }
  | {
      written: false
      /** Sender or recipient devices that no longer exist. */
      gone: Set<number>
      /** By entry index: the message that was accepted first. */
      duplicates: Map<number, { messageId: Uuid; sentAtMs: number }>
      /** Conversations whose roster is not the decided one. */
      moved: Set<Uuid>
      /** By entry index: messages too many for somebody who has not accepted. [V-6.2] */
      over: Set<number>
      /** Devices without room for all of their rows: how many they take. */
      full: Map<number, number>
    }

type Answer = {
  base: number[] | null
  gone: number[] | null
  duplicates: number[] | null
  first_ids: Uuid[] | null
  first_at: Date[] | null
  moved: number[] | null
  full_keys: number[] | null
  full_room: number[] | null
  over: number[] | null
  written: boolean
}

const array = (values: readonly (string | number | boolean | null)[]): string =>
  `{${values.map((v) => v ?? 'null').join(',')}}`
const texts = (values: readonly (string | null)[]): string =>
  `{${values.map((v) => (v === null ? 'null' : `"${v.replace(/["\\]/g, '\\$&')}"`)).join(',')}}`
const ascending = (keys: Iterable<number>): number[] => [...keys].sort((a, b) => a - b)

/**
 * Commits the whole batch or nothing of it.
 * @param entries decided sends; no (sender, client_message_id) twice.
 * @param sentAtMs the time all of them get.
 * @param quota rows a queue holds at most.
 * @throws the database's error; unless it is a lost connection, nothing was written.
 */
export async function append(sql: Sql, entries: Entry[], sentAtMs: number, quota: number): Promise<AppendResult> {
  const counts = new Map<number, number>()
  const locks = new Set<number>()
  const suppressed = new Set<number>()
  for (const entry of entries) {
    locks.add(entry.sender.deviceKey)
    for (const { device } of entry.overflow) locks.add(device.deviceKey)
    // Locked although nothing is written: whose send is suppressed waits for the same locks as any other. [V-6.3] [V-7.1]
    for (const device of entry.suppressed) {
      locks.add(device.deviceKey)
      if (!entry.unheard?.includes(device)) suppressed.add(device.deviceKey)
    }
    for (const { device } of entry.rows) {
      locks.add(device.deviceKey)
      counts.set(device.deviceKey, (counts.get(device.deviceKey) ?? 0) + 1)
    }
  }
  const keys = ascending(counts.keys())
  const indexOf = new Map(keys.map((key, i) => [key, i + 1]))
  // Each roster that something was decided on, also when there are two of one conversation.
  const rosters = [
    ...new Map(entries.map(({ roster }) => [`${roster.conversationId}${roster.digest}`, roster])).values(),
  ]

  const next = new Map<number, number>()
  const r = { k: [] as number[], n: [] as number[], m: [] as number[], type: [] as number[], withheld: [] as number[] }
  const at: number[] = []
  const length: number[] = []
  const iv: number[] = []
  const blob: Uint8Array[] = []
  const asking: { m: number; pending: Uuid }[] = []
  const accepting = entries.filter((entry) => entry.accepts)
  let offset = 1
  entries.forEach((entry, m) => {
    if (entry.asks) asking.push({ m: m + 1, pending: entry.asks })
    for (const { device, recipient } of entry.rows) {
      const n = (next.get(device.deviceKey) ?? 0) + 1
      next.set(device.deviceKey, n)
      r.k.push(indexOf.get(device.deviceKey)!)
      r.n.push(n)
      r.m.push(m + 1)
      r.type.push(recipient.ciphertextType)
      r.withheld.push(recipient.withheld)
      at.push(offset)
      length.push(recipient.content.length)
      iv.push(recipient.iv.length)
      blob.push(recipient.content, recipient.iv)
      offset += recipient.content.length + recipient.iv.length
    }
  })
  const dropped = entries.flatMap((entry) =>
    entry.overflow.map(({ device }) => [device.deviceKey, entry.messageId] as const),
  )
  const unheard = entries.flatMap((entry) =>
    (entry.unheard ?? []).map(({ deviceKey }) => [deviceKey, entry.messageId] as const),
  )
  const sends = entries.map((entry) => entry.send)

  const call = (sql: Sql | Transaction, bytes: PendingQuery) => sql<[Answer]>`select * from append_batch(
    ${array(ascending(locks))}::text::bigint[], ${array(keys)}::text::bigint[], ${array(keys.map((key) => counts.get(key)!))}::text::int[],
    ${array(rosters.map((each) => each.conversationId))}::text::uuid[], ${array(rosters.map((each) => each.digest))}::text::text[],
    ${array(entries.map((e) => e.messageId))}::text::uuid[], ${array(sends.map((s) => s.conversationId))}::text::uuid[],
    ${array(entries.map((e) => e.sender.userId))}::text::uuid[], ${array(entries.map((e) => e.sender.deviceKey))}::text::bigint[],
    ${array(entries.map((e) => e.sender.deviceId))}::text::smallint[], ${array(sends.map((s) => s.clientMessageId))}::text::uuid[],
    ${array(sends.map((s) => s.messageType))}::text::smallint[], ${array(sends.map((s) => s.urgent))}::text::boolean[],
    ${array(sends.map((s) => s.replyToMessageId))}::text::uuid[],
    ${texts(sends.map((s) => s.attachmentUrl))}::text::text[], ${texts(sends.map((s) => s.thumbnailUrl))}::text::text[],
    ${array(r.k)}::text::int[], ${array(r.n)}::text::int[], ${array(r.m)}::text::int[],
    ${array(r.type)}::text::smallint[], ${array(r.withheld)}::text::smallint[],
    ${array(at)}::text::int[], ${array(length)}::text::int[], ${array(iv)}::text::int[], ${bytes},
    ${array(dropped.map(([key]) => key))}::text::bigint[], ${array(dropped.map(([, id]) => id))}::text::uuid[],
    ${array(ascending(suppressed))}::text::bigint[],
    ${array(unheard.map(([key]) => key))}::text::bigint[], ${array(unheard.map(([, id]) => id))}::text::uuid[],
    ${array(asking.map((each) => each.m))}::text::int[], ${array(asking.map((each) => each.pending))}::text::uuid[],
    ${array(accepting.map((each) => each.send.conversationId))}::text::uuid[],
    ${array(accepting.map((each) => each.sender.userId))}::text::uuid[],
    ${new Date(sentAtMs)}, ${quota}, ${STRANGER_MAX_MESSAGES})`
  const [answer] =
    offset > STAGED_ABOVE_BYTES
      ? await sql.begin(async (tx) => {
          await stage(tx, blob)
          return call(tx, staged(tx))
        })
      : await call(sql, sql`${hex(blob)}::text::bytea`)

  if (!answer.written)
    return {
      written: false,
      gone: new Set(answer.gone?.map(Number)),
      duplicates: new Map(
        (answer.duplicates ?? []).map((i, n) => [
          Number(i) - 1,
          { messageId: answer.first_ids![n]!, sentAtMs: answer.first_at![n]!.getTime() },
        ]),
      ),
      moved: new Set((answer.moved ?? []).map((i) => rosters[Number(i) - 1]!.conversationId)),
      over: new Set((answer.over ?? []).map((i) => Number(i) - 1)),
      full: new Map((answer.full_keys ?? []).map((key, i) => [Number(key), Number(answer.full_room![i])])),
    }
  const base = answer.base ?? []
  let row = 0
  const sequences = entries.map((entry) =>
    entry.rows.map(() => {
      const sequence = Number(base[r.k[row]! - 1]) + r.n[row]!
      row++
      return sequence
    }),
  )
  return { written: true, sequences }
}
