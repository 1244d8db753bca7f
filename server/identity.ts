// Who calls: a verified access token whose device row still exists. Making and checking the token itself is in tokens.ts.
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import type { Caller } from '../proto/route.ts'
import type { Sql } from './database.ts'
import type { TokenDevice, Tokens } from './tokens.ts'

export type Identity = {
  /**
   * The device a bearer token speaks for. [T-2]
   * @throws RelayError UNAUTHENTICATED: no token, a bad one, or its device is gone (the same answer, I13).
   */
  authenticate(token: string | null, nowMs: number): Promise<Caller>
  /** The second half alone, for a token verified before: the device row of these claims. @throws RelayError UNAUTHENTICATED. */
  caller(claims: TokenDevice, nowMs: number): Promise<Caller>
  /** Drops the device from the cache: called when it was unlinked. */
  forget(deviceUuid: Uuid): void
  /** The same, where another node unlinked it. */
  forgetKey(deviceKey: number): void
}

/** How long a device row that was seen is taken to exist, milliseconds: another node's unlink is noticed within it, when its hint is
 * lost. [T-2] */
export const IDENTITY_FRESH_MS = 5000
/** Devices remembered; past it the oldest is dropped. I10 */
const IDENTITY_MAX_CACHED = 50_000

/** @param options.maxCached devices remembered, at least 1. */
export function openIdentity(options: { sql: Sql; tokens: Tokens; maxCached?: number }): Identity {
  const { sql, tokens, maxCached = IDENTITY_MAX_CACHED } = options
  const cache = new Map<Uuid, { caller: Caller; untilMs: number }>()
  let forgotten = 0

  async function caller(claims: TokenDevice, nowMs: number): Promise<Caller> {
    const known = cache.get(claims.deviceUuid)
    if (known && nowMs < known.untilMs && matches(known.caller, claims)) return known.caller
    const before = forgotten
    const [row] = await sql<{ device_key: number; user_id: Uuid; device_id: number }[]>`
      select device_key, user_id, device_id from devices where device_uuid = ${claims.deviceUuid}`
    cache.delete(claims.deviceUuid)
    if (!row) throw refused()
    const found = {
      userId: row.user_id,
      deviceId: row.device_id,
      deviceKey: row.device_key,
      deviceUuid: claims.deviceUuid,
    }
    if (!matches(found, claims)) throw refused()
    // A row read before an unlink committed must not be remembered after it.
    if (forgotten === before) {
      if (cache.size >= maxCached) cache.delete(cache.keys().next().value!)
      cache.set(claims.deviceUuid, { caller: found, untilMs: nowMs + IDENTITY_FRESH_MS })
    }
    return found
  }

  return {
    async authenticate(token, nowMs) {
      if (token === null) throw refused()
      return caller(await tokens.verify(token, nowMs), nowMs)
    },
    caller,
    forget(deviceUuid) {
      forgotten++
      cache.delete(deviceUuid)
    },
    forgetKey(deviceKey) {
      forgotten++
      for (const [deviceUuid, known] of cache) if (known.caller.deviceKey === deviceKey) cache.delete(deviceUuid)
    },
  }
}

const matches = (caller: Caller, claims: TokenDevice) =>
  caller.userId === claims.userId && caller.deviceId === claims.deviceId

const refused = () => new RelayError('UNAUTHENTICATED', 'the token is missing, invalid or expired')
