// What was accepted in the last days, with its exact ciphertexts: for devices that could not read it, and for a restored relay.
import type { Uuid } from '../proto/ids.ts'
import type { Body } from './content.ts'
import type { Recipient } from './mismatch.ts'
import type { Transaction } from './storage.ts'
import { ordered, Table } from './tables.ts'

const KEPT_MS = 3 * 24 * 3_600_000
const KEPT_ROWS = 500
/** Per message and device: a device complains once of a message, and whoever says it again is the relay. */
const MAX_RESENDS = 1

/** @property sentAtMs the relay's: what a complaint names. @property resends by device name. */
export type SentRow = {
  clientMessageId: Uuid
  conversationId: Uuid
  sentAtMs: number
  body: Body
  recipients: Recipient[]
  resends: Record<string, number>
}

const rows = new Table<SentRow>('sent')
const keyOf = (row: SentRow): string => `${ordered(row.sentAtMs)}/${row.clientMessageId}`

/** Keeps it, and lets go of what is too old or too much. */
export function noteSent(tx: Transaction, row: SentRow, nowMs: number): void {
  rows.put(tx, keyOf(row), row)
  const tooMany = rows.count(tx) - KEPT_ROWS
  if (tooMany > 0 && tooMany % 20 === 0) for (const { key } of rows.scan(tx, { limit: tooMany })) rows.delete(tx, key)
  for (const { key } of rows.scan(tx, { before: ordered(Math.max(0, nowMs - KEPT_MS)), limit: 20 }))
    rows.delete(tx, key)
}

/** What was sent at that time to that device and may be sent again; counted as a resend. */
export function takeForResend(tx: Transaction, sentAtMs: number, device: string): SentRow[] {
  return (
    rows
      .scan(tx, { prefix: `${ordered(sentAtMs)}/` })
      .map(({ record }) => record)
      // Whom no member had added then is not told now what was said then.
      .filter((row) =>
        row.recipients.some(
          (each) => `${each.userId}.${each.deviceId}` === device && each.withheld !== 'not_in_roster',
        ),
      )
      .filter((row) => (row.resends[device] ?? 0) < MAX_RESENDS)
      .map((row) => {
        row.resends[device] = (row.resends[device] ?? 0) + 1
        rows.put(tx, keyOf(row), row)
        return row
      })
  )
}

/** It counts as sent no more. */
export const removeSent = (tx: Transaction, row: SentRow): void => rows.delete(tx, keyOf(row))

/** Nothing of it may be sent again: it was another device that sent it. */
export function forgetSent(tx: Transaction): void {
  for (const { key } of rows.scan(tx)) rows.delete(tx, key)
}

/** Everything that is kept, oldest first. [K-9.1] */
export const allSent = (tx: Transaction): SentRow[] => rows.scan(tx).map(({ record }) => record)
