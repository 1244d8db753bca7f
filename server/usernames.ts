// Usernames: libsignal hashes that point at a user. The name itself never reaches the relay.
import { limited, type Meter } from '../keys/meter.ts'
import { verifyUsernameProof } from '../keys/verify.ts'
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import type { Sql, Transaction } from './database.ts'

/** How long a released name is kept for its former owner, milliseconds. [U-3] */
export const USERNAME_LOCK_MS = 30 * 24 * 3600 * 1000
/** Names one user may keep locked behind himself. [U-3] */
const LOCKED_MAX = 3

export type Usernames = {
  /**
   * Gives the user this name and releases the one held before. Setting one's own name again changes nothing. [U-2]
   * @param hash 32 bytes. @param proof libsignal's, 128 bytes.
   * @throws RelayError INVALID_REQUEST (the proof does not verify), CONFLICT (another's, or locked for its former owner).
   */
  set(userId: Uuid, hash: Uint8Array, proof: Uint8Array, nowMs: number): Promise<void>
  /** Releases the user's name, if there is one, and locks it for 30 days. [U-3] */
  release(userId: Uuid, nowMs: number): Promise<void>
  /**
   * Whose name it is. Hashes are not salted, so look-ups are dear: a dictionary takes years. [U-4]
   * @throws RelayError NOT_FOUND (also for a released name, I13), RATE_LIMITED.
   */
  find(caller: Uuid, hash: Uint8Array): Promise<Uuid>
}

/** @param lookups counts them by caller. [U-4] */
export function openUsernames({ sql, lookups }: { sql: Sql; lookups: Meter }): Usernames {
  return {
    async set(userId, hash, proof, nowMs) {
      verifyUsernameProof(proof, hash)
      await sql.begin(async (tx) => {
        // One change of a user's name at a time; then the names in order of hash, so that two users who swap cannot deadlock.
        await tx`select 1 from accounts where user_id = ${userId} for no key update`
        await tx`select 1 from usernames where user_id = ${userId} or username_hash = ${hash}
          order by username_hash for update`
        const unlocked = new Date(nowMs - USERNAME_LOCK_MS)
        await refuseHoarding(tx, userId, hash, unlocked, nowMs)
        await releaseOthers(tx, userId, hash, nowMs)
        const taken = await tx`insert into usernames (username_hash, user_id) values (${hash}, ${userId})
          on conflict (username_hash) do update set user_id = excluded.user_id, former_user_id = null, released_at = null
          where usernames.user_id = excluded.user_id or (usernames.user_id is null
            and (usernames.former_user_id = excluded.user_id or usernames.released_at <= ${unlocked}))
          returning 1`
        if (taken.length === 0) throw new RelayError('CONFLICT', 'username_hash is taken')
      })
    },

    async release(userId, nowMs) {
      await sql.begin(async (tx) => {
        await tx`select 1 from accounts where user_id = ${userId} for no key update`
        await releaseOthers(tx, userId, null, nowMs)
      })
    },

    async find(caller, hash) {
      const waitMs = await lookups.take(caller, 1)
      if (waitMs > 0) throw limited('too many look-ups of usernames', waitMs)
      const [row] = await sql<{ user_id: Uuid }[]>`
        select user_id from usernames where username_hash = ${hash} and user_id is not null`
      if (!row) throw new RelayError('NOT_FOUND', 'no such username')
      return row.user_id
    },
  }
}

// Whoever changes names all day would lock them all. Taking a locked one of his own back locks no more than there are.
async function refuseHoarding(tx: Transaction, userId: Uuid, hash: Uint8Array, unlocked: Date, nowMs: number) {
  const locked = await tx<{ released_at: Date }[]>`select released_at from usernames
    where former_user_id = ${userId} and released_at > ${unlocked} and username_hash <> ${hash}
      and not exists (select from usernames own where own.user_id = ${userId} and own.username_hash = ${hash}) order by released_at`
  if (locked.length < LOCKED_MAX) return
  const retryAfterMs = Math.max(1, locked.at(-LOCKED_MAX)!.released_at.getTime() + USERNAME_LOCK_MS - nowMs)
  throw new RelayError('RATE_LIMITED', 'too many usernames were changed lately', { retryAfterMs })
}

const releaseOthers = (tx: Transaction, userId: Uuid, kept: Uint8Array | null, nowMs: number) =>
  tx`update usernames set user_id = null, former_user_id = ${userId}, released_at = ${new Date(nowMs)}
    where user_id = ${userId} and username_hash is distinct from ${kept}::bytea`
