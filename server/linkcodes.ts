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
      select code_hash from link_codes where user_id = ${userId} and device_key is null order by expires_at desc offset ${LINK_CODES_MAX_LIVE - 1}))`
    await tx`insert into link_codes (code_hash, user_id, expires_at)
      values (${hash(code)}, ${userId}, ${new Date(expiresAtMs)})`
  })
  return { code, expiresAtMs }
}

/** What a used code let in. @property keysDigest of the keys the device came with [K-7.1]. @property provenAtMs of the last proof accepted. */
export type LinkCodeUse = { deviceKey: number; keysDigest: Uint8Array; provenAtMs: number }

/**
 * Refuses a code that is not worth the work of checking keys. Decides nothing: see lockLinkCode.
 * @throws RelayError FORBIDDEN
 */
export async function peekLinkCode(sql: Sql, code: string, userId: Uuid, nowMs: number): Promise<void> {
  await lookUp(sql, code, userId, nowMs)
}

/**
 * The use a code was put to, null = none yet; until the transaction ends, which holds the account's row, nobody else uses it. [I-4.1]
 * @throws RelayError FORBIDDEN: wrong, another user's and expired are one answer (I13), which a used one gets from the caller
 *   unless it is the same device that asks again. [I-4.5]
 */
export const lockLinkCode = (tx: Transaction, code: string, userId: Uuid, nowMs: number): Promise<LinkCodeUse | null> =>
  lookUp(tx, code, userId, nowMs)

/** Notes who came in with a code, in the transaction that let him in. */
export async function spendLinkCode(tx: Transaction, code: string, use: LinkCodeUse): Promise<void> {
  await tx`update link_codes set device_key = ${use.deviceKey}, keys_digest = ${use.keysDigest}, proven_at_ms = ${use.provenAtMs}
    where code_hash = ${hash(code)}`
}

async function lookUp(sql: Sql | Transaction, code: string, userId: Uuid, nowMs: number): Promise<LinkCodeUse | null> {
  const [row] = await sql<{ deviceKey: number | null; keysDigest: Uint8Array; provenAtMs: number }[]>`
    select device_key as "deviceKey", keys_digest as "keysDigest", proven_at_ms as "provenAtMs" from link_codes
    where code_hash = ${hash(code)} and user_id = ${userId} and expires_at > ${new Date(nowMs)}`
  if (!row) throw refusedLinkCode()
  const { deviceKey, keysDigest, provenAtMs } = row
  return deviceKey === null ? null : { deviceKey, keysDigest, provenAtMs }
}

const hash = (code: string): Buffer => createHash('sha256').update(code).digest()

/** The one answer for every link code and every outside token that lets nobody in. I13 */
export const refusedLinkCode = () => new RelayError('FORBIDDEN', 'link_code is unknown, used or expired')
