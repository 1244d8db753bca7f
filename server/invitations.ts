// Invitation tokens: what a stranger needs to register where registration is by invitation. Only their hash is stored.
import { createHash, randomBytes } from 'node:crypto'
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import type { Sql, Transaction } from './database.ts'

/** Life of an invitation unless its maker says otherwise, milliseconds. */
export const INVITATION_TTL_MS = 7 * 24 * 3600 * 1000

/** Makes a single-use invitation. @returns the token, 43 characters of base64url; it is not stored and cannot be shown again. */
export async function createInvitation(sql: Sql, nowMs: number, ttlMs = INVITATION_TTL_MS): Promise<string> {
  const token = randomBytes(32).toString('base64url')
  await sql`insert into invitations (token_hash, created_at, expires_at)
    values (${hash(token)}, ${new Date(nowMs)}, ${new Date(nowMs + ttlMs)})`
  return token
}

/**
 * Refuses an invitation that is not worth the work of checking keys. Decides nothing: see consumeInvitation.
 * @throws RelayError FORBIDDEN
 */
export async function peekInvitation(sql: Sql, token: string | null, nowMs: number): Promise<void> {
  const live = await sql`select 1 from invitations
    where token_hash = ${hash(token ?? '')} and used_by is null and expires_at > ${new Date(nowMs)}`
  if (live.length === 0) throw refused()
}

/**
 * Uses an invitation up, in the transaction that creates the account. [I-1.1]
 * @throws RelayError FORBIDDEN: missing, unknown, used and expired are one answer (I13).
 */
export async function consumeInvitation(
  tx: Transaction,
  token: string | null,
  userId: Uuid,
  nowMs: number,
): Promise<void> {
  const used = await tx`update invitations set used_by = ${userId}
    where token_hash = ${hash(token ?? '')} and used_by is null and expires_at > ${new Date(nowMs)} returning 1`
  if (used.length === 0) throw refused()
}

// The hash of no token is no row's: tokens have 43 characters.
const hash = (token: string): Buffer => createHash('sha256').update(token).digest()

const refused = () => new RelayError('FORBIDDEN', 'invitation is missing, unknown, used or expired')
