// Recovery codes: what a user keeps on paper to begin anew when every device and key is gone. Only a hash is stored; using one
// up is newidentity.ts's.
import { createHash, randomBytes } from 'node:crypto'
import { checkClock, recoveryMessage } from '../keys/statements.ts'
import { isSameDigest, isSignedBy } from '../keys/verify.ts'
import { invalid, RelayError } from '../proto/errors.ts'
import type { Caller } from '../proto/route.ts'
import type { Sql } from './database.ts'
import { PRIMARY_DEVICE_ID } from './devices.ts'

/** A user's word on his recovery code; nothing in it is trusted. codeHash: 32 bytes, null = there shall be none. [I-6.3] */
export type RecoveryWish = { codeHash: Uint8Array | null; timestampMs: number; signature: Uint8Array }

export type RecoveryCodes = {
  /**
   * Stores the hash of a code in the place of the former, or removes it. [I-6.3]
   * @throws RelayError FORBIDDEN (not the primary), INVALID_REQUEST (not signed by the user's identity key, the clock),
   *   UNAUTHENTICATED (the device is gone).
   */
  store(caller: Caller, wish: RecoveryWish, nowMs: number): Promise<void>
}

/** realm is the one signatures name. */
export function openRecoveryCodes({ sql, realm }: { sql: Sql; realm: string }): RecoveryCodes {
  return {
    async store({ userId, deviceId, deviceKey }, { codeHash, timestampMs, signature }, nowMs) {
      if (deviceId !== PRIMARY_DEVICE_ID) throw new RelayError('FORBIDDEN', 'only the primary device may do this')
      checkClock('timestamp_ms', timestampMs, nowMs)
      await sql.begin(async (tx) => {
        await tx`select 1 from accounts where user_id = ${userId} for no key update`
        // The caller was looked up up to 5 s ago: a device whose user began anew since must not prepare a way back for itself.
        const [row] = await tx<{ identity_key: Buffer }[]>`
          select i.identity_key from devices d join keys.identities i using (user_id) where d.device_key = ${deviceKey}`
        if (!row) throw new RelayError('UNAUTHENTICATED', 'the token is missing, invalid or expired')
        // Whoever has the code has the user, so a stolen token is not enough to set it.
        if (!isSignedBy(row.identity_key, recoveryMessage({ realm, userId, codeHash, timestampMs }), signature))
          throw invalid("signature does not verify under the user's identity key")
        await tx`update accounts set recovery_code_hash = ${codeHash} where user_id = ${userId}`
      })
    },
  }
}

// Compared against where there is none, so that every refusal takes the same way. I13
const NOBODYS = randomBytes(32)

/** Whether the text is the code under the hash, in constant time. Form is not looked at: the hash decides. [I-6.1] */
export function isRecoveryCode(code: string, codeHash: Uint8Array | null): boolean {
  const same = isSameDigest(createHash('sha256').update(code).digest(), codeHash ?? NOBODYS)
  return same && codeHash !== null
}
