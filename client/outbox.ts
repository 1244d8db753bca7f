// What is to be sent, in order, until the relay has accepted it or it failed: rows that survive a restart. Delivering them is in delivery.ts.
import type { Uuid } from '../proto/ids.ts'
import type { Body } from './content.ts'
import type { Recipient } from './mismatch.ts'
import type { Reader, Transaction, Writer } from './storage.ts'
import { next, ordered, Table } from './tables.ts'
import type { Address } from './wire.ts'

/** Rows that wait at most; a send beyond is refused. What failed stands in nobody's way. */
export const OUTBOX_MAX = 1000
/** The relay remembers ids for 7 days: what is older could be delivered twice. [S-2] */
export const OUTBOX_MAX_AGE_MS = 6 * 24 * 3_600_000

/** message: shown to people. The others are between devices. */
export type OutboxKind = 'message' | 'resend' | 'heartbeat' | 'complaint' | 'naming'

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

/** Under `<conversation>/<order>`: what is to be sent, and apart from it what failed, so that it stands in nobody's way. */
const waiting = new Table<OutboxRow>('outbox')
const failed = new Table<OutboxRow>('outbox_failed')
const byId = new Table<string>('outbox_ids')

/** Appends. @throws OutboxFull. */
export function enqueue(
  tx: Transaction,
  row: Omit<OutboxRow, 'place' | 'plaintext' | 'recipients' | 'rounds' | 'failure'> & { recipients?: Recipient[] },
): OutboxRow {
  if (waiting.count(tx) >= OUTBOX_MAX) throw new OutboxFull(`${OUTBOX_MAX} messages wait already`)
  const place = placeIn(tx, row.conversationId)
  const whole: OutboxRow = { ...{ plaintext: null, recipients: null, rounds: 0, failure: '' }, ...row, place }
  waiting.put(tx, place, whole)
  byId.put(tx, row.clientMessageId, place)
  return whole
}

const placeIn = (tx: Transaction, conversationId: Uuid): string => `${conversationId}/${ordered(next(tx, 'outbox'))}`

/** Whether what devices tell each other still fits: people's messages come first. */
export const hasRoom = (tx: Transaction): boolean => waiting.count(tx) < OUTBOX_MAX / 2

/** Stores a changed row. */
export const putRow = (to: Writer, row: OutboxRow): void => waiting.put(to, row.place, row)
/** Still to be sent; null once it was accepted, failed or given up. */
export const rowAt = (from: Reader, place: string): OutboxRow | null => waiting.get(from, place)

/** By its client_message_id, waiting or failed. */
export function rowOf(from: Reader, clientMessageId: Uuid): OutboxRow | null {
  const place = byId.get(from, clientMessageId)
  return place === null ? null : (waiting.get(from, place) ?? failed.get(from, place))
}

/** It is done, or nobody wants it any more. */
export function removeRow(from: Writer, row: OutboxRow): void {
  waiting.delete(from, row.place)
  failed.delete(from, row.place)
  byId.delete(from, row.clientMessageId)
}

/** It is not sent any more until somebody asks; its bytes are kept. */
export function setAside(tx: Transaction, row: OutboxRow, failure: string): void {
  waiting.delete(tx, row.place)
  failed.put(tx, row.place, { ...row, failure })
}

/** What was accepted once and is not any more: failed, with the bytes it has. */
export function addFailed(tx: Transaction, row: Omit<OutboxRow, 'place'>): void {
  const place = placeIn(tx, row.conversationId)
  failed.put(tx, place, { ...row, place })
  byId.put(tx, row.clientMessageId, place)
}

/** Lets go of the bytes of failed rows that are too old to be sent again; their messages stay shown as failed. */
export function expireFailed(tx: Transaction, nowMs: number): void {
  for (const { record } of failed.scan(tx)) if (nowMs - record.queuedAtMs > OUTBOX_MAX_AGE_MS) removeRow(tx, record)
}

/** A failed row is to be sent after all: at the end of the order, with the bytes it has. [S-2.4] */
export function requeue(tx: Transaction, row: OutboxRow): void {
  failed.delete(tx, row.place)
  const place = placeIn(tx, row.conversationId)
  waiting.put(tx, place, { ...row, place, failure: '', rounds: 0 })
  byId.put(tx, row.clientMessageId, place)
}

/**
 * This device begins anew: ciphertexts are void, and what devices tell each other was about its former sessions.
 * @param keepsNumber false: what may have left is not sent again by itself.
 * @returns ids of the messages that are still to be sent or failed, and of those that failed now.
 */
export function restartOutbox(tx: Transaction, keepsNumber: boolean): { kept: Uuid[]; failed: Uuid[] } {
  const kept: Uuid[] = []
  const failedNow: Uuid[] = []
  for (const { record } of [...waiting.scan(tx), ...failed.scan(tx)]) {
    if (record.kind !== 'message') {
      removeRow(tx, record)
      continue
    }
    kept.push(record.clientMessageId)
    const row: OutboxRow = { ...record, plaintext: null, recipients: null, rounds: 0 }
    if (row.failure) failed.put(tx, row.place, row)
    else if (keepsNumber || record.recipients === null) waiting.put(tx, row.place, row)
    else {
      setAside(tx, row, 'began_anew')
      failedNow.push(row.clientMessageId)
    }
  }
  return { kept, failed: failedNow }
}

/** The next one of a conversation. */
export const firstRow = (tx: Transaction, conversationId: Uuid): OutboxRow | null =>
  waiting.scan(tx, { prefix: `${conversationId}/`, limit: 1 })[0]?.record ?? null

/** Conversations in which something waits. */
export const busyConversations = (tx: Transaction): Uuid[] => [
  ...new Set(tx.scan(waiting.name).map(({ key }) => key.split('/')[0]!)),
]
