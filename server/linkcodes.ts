// Link codes: what the primary device hands to a new one so that the relay lets it in. Only their hash is stored.
import { createHash, randomBytes } from 'node:crypto'
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { LINK_CODE_TTL_MS } from '../proto/limits.ts'
import type { Sql, Transaction } from './database.ts'

/** 128 bits; 22 characters of base64url on the wire. [I-4.1] */
const LINK_CODE_BYTES = 16
/** Live codes of one user; a new one beyond them voids the oldest. */
export const LINK_CODES_MAX_LIVE = 3

/**
 * Makes a code for the caller's user; that the caller is the primary was checked.
 * @returns base64url text, and when it ends in Unix milliseconds.
 * @throws RelayError UNAUTHENTICATED: the caller was unlinked since it was looked up.
 */
export async function createLinkCode(
  sql: Sql,
  { userId, deviceKey }: { userId: Uuid; deviceKey: number },
  nowMs: number,
): Promise<{ code: string; expiresAtMs: number }> {
  const code = randomBytes(LINK_CODE_BYTES).toString('base64url')
  const expiresAtMs = nowMs + LINK_CODE_TTL_MS
  await sql.begin(async (tx) => {
    // Also keeps the order accounts → link_codes, in which linking locks them.
    await tx`select 1 from accounts where user_id = ${userId} for no key update`
    const [device] = await tx`select 1 from devices where device_key = ${deviceKey}`
    if (!device) throw new RelayError('UNAUTHENTICATED', 'the token is missing, invalid or expired')
    await tx`delete from link_codes where user_id = ${userId} and (expires_at <= ${new Date(nowMs)} or code_hash in (
      select code_hash from link_codes where user_id = ${userId} order by expires_at desc offset ${LINK_CODES_MAX_LIVE - 1}))`
    await tx`insert into link_codes (code_hash, user_id, expires_at)
      values (${hash(code)}, ${userId}, ${new Date(expiresAtMs)})`
  })
  return { code, expiresAtMs }
}

/**
 * Refuses a code that is not worth the work of checking keys. Decides nothing: see consumeLinkCode.
 * @throws RelayError FORBIDDEN
 */
export async function peekLinkCode(sql: Sql, code: string, userId: Uuid, nowMs: number): Promise<void> {
  const live = await sql`select 1 from link_codes
    where code_hash = ${hash(code)} and user_id = ${userId} and expires_at > ${new Date(nowMs)}`
  if (live.length === 0) throw refusedLinkCode()
}

/**
 * Uses a code up, in the transaction that creates the device and that holds the account's row. [I-4.1]
 * @throws RelayError FORBIDDEN: wrong, another user's, used and expired are one answer (I13).
 */
export async function consumeLinkCode(tx: Transaction, code: string, userId: Uuid, nowMs: number): Promise<void> {
  const used = await tx`delete from link_codes
    where code_hash = ${hash(code)} and user_id = ${userId} and expires_at > ${new Date(nowMs)} returning 1`
  if (used.length === 0) throw refusedLinkCode()
}

const hash = (code: string): Buffer => createHash('sha256').update(code).digest()

/** The one answer for every link code and every outside token that lets nobody in. I13 */
export const refusedLinkCode = () => new RelayError('FORBIDDEN', 'link_code is unknown, used or expired')
