// What is to be sent, in order, until the relay has accepted it or it failed: rows that survive a restart. Delivering them is in delivery.ts.
import type { Uuid } from '../proto/ids.ts'
import type { Body } from './content.ts'
import type { Recipient } from './mismatch.ts'
import type { Reader, Transaction, Writer } from './storage.ts'
import { next, ordered, Table } from './tables.ts'
import type { Address } from './wire.ts'

/** Rows at most; a send beyond is refused. */
export const OUTBOX_MAX = 1000
/** The relay remembers ids for 7 days: what is older could be delivered twice. [S-2] */
export const OUTBOX_MAX_AGE_MS = 6 * 24 * 3_600_000

/** message: shown to people. The others are between devices. */
export type OutboxKind = 'message' | 'resend' | 'heartbeat' | 'complaint'

/** One send. @property to null = every device of the conversation (SCOPE_ALL). */
export type OutboxRow = {
  /** Place in the order; the key. */
  place: string
  kind: OutboxKind
  clientMessageId: Uuid
  conversationId: Uuid
  queuedAtMs: number
  to: Address[] | null
  body: Body
  resendOf: Uuid
  /** The packed content, once it was encrypted for anybody. */
  plaintext: Uint8Array | null
  /** The exact ciphertexts; a retry sends these. null = not made yet. */
  recipients: Recipient[] | null
  /** Mismatches answered so far. */
  rounds: number
  /** '' while it is to be sent. */
  failure: string
}

/** There is no more room for what is to be sent. */
export class OutboxFull extends Error {}

const rows = new Table<OutboxRow>('outbox')
const byId = new Table<string>('outbox_ids')

/** Appends. @throws OutboxFull. */
export function enqueue(
  tx: Transaction,
  row: Omit<OutboxRow, 'place' | 'plaintext' | 'recipients' | 'rounds' | 'failure'> & { recipients?: Recipient[] },
): OutboxRow {
  if (rows.count(tx) >= OUTBOX_MAX) throw new OutboxFull(`${OUTBOX_MAX} messages wait already`)
  const place = ordered(next(tx, 'outbox'))
  const whole: OutboxRow = { ...{ plaintext: null, recipients: null, rounds: 0, failure: '' }, ...row, place }
  rows.put(tx, place, whole)
  byId.put(tx, row.clientMessageId, place)
  return whole
}

/** Whether what devices tell each other still fits: people's messages come first. */
export const hasRoom = (tx: Transaction): boolean => rows.count(tx) < OUTBOX_MAX / 2

/** Stores a changed row. */
export const putRow = (to: Writer, row: OutboxRow): void => rows.put(to, row.place, row)
/** null once it was accepted or given up. */
export const rowAt = (from: Reader, place: string): OutboxRow | null => rows.get(from, place)

/** By its client_message_id. */
export function rowOf(from: Reader, clientMessageId: Uuid): OutboxRow | null {
  const place = byId.get(from, clientMessageId)
  return place === null ? null : rows.get(from, place)
}

/** It is done, or nobody wants it any more. */
export function removeRow(from: Writer, row: OutboxRow): void {
  rows.delete(from, row.place)
  byId.delete(from, row.clientMessageId)
}

/** A failed row is to be sent after all: at the end of the order, with the bytes it has. [S-2.4] */
export function requeue(tx: Transaction, row: OutboxRow): void {
  rows.delete(tx, row.place)
  const place = ordered(next(tx, 'outbox'))
  rows.put(tx, place, { ...row, place, failure: '', rounds: 0 })
  byId.put(tx, row.clientMessageId, place)
}

/** Everything, in order. */
export const allRows = (tx: Transaction): OutboxRow[] => rows.scan(tx).map(({ record }) => record)
