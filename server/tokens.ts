// Access tokens: what they say and how they are checked, ours and an outside issuer's. The only importer of jose.
// Whether the device a token names still exists is identity.ts's question.
import { randomUUID } from 'node:crypto'
import { createRemoteJWKSet, errors, jwtVerify, SignJWT } from 'jose'
import { RelayError } from '../proto/errors.ts'
import { isUuid, type Uuid } from '../proto/ids.ts'
import { DEVICE_ID_MAX, DEVICE_ID_MIN, TOKEN_TTL_SECONDS } from '../proto/limits.ts'
import type { Sql } from './database.ts'
import { KEYS_FRESH_MS, openSigningKeys, type PublicJwk } from './signing.ts'

/** The device a token speaks for. */
export type TokenDevice = {
  userId: Uuid
  /** 1..127 */
  deviceId: number
  /** UUID of the device row, so that a relinked number is another device. [T-2] */
  deviceUuid: Uuid
}

/** What a verified token says. Its device row was NOT looked up yet. */
export type TokenClaims = TokenDevice & {
  /** Unix milliseconds. */
  expiresAtMs: number
}

/** Another party that vouches for people: registration, linking and recovery; device tokens are always ours. [T-5] */
export type OutsideIssuer = {
  issuer: string
  audience: string
  /** Signature algorithms accepted; asymmetric ones only. */
  algorithms: string[]
  /** https, or http for a host one trusts the way to. */
  jwksUrl: string
}

export type Tokens = {
  /** Issues a token for one hour. [T-1] @throws the database's error. */
  issue(device: TokenDevice, nowMs: number): Promise<{ token: string; expiresInSeconds: number }>
  /** @throws RelayError UNAUTHENTICATED: not ours, altered, expired or malformed. */
  verify(token: string, nowMs: number): Promise<TokenClaims>
  /**
   * Checks a token of the outside issuer.
   * @throws RelayError UNAUTHENTICATED, also when no such issuer is configured; UNAVAILABLE when its keys cannot be fetched.
   */
  verifyOutside(token: string, nowMs: number): Promise<{ subject: string }>
  /** Public keys, the signing one first. */
  jwks(nowMs: number): Promise<{ keys: PublicJwk[] }>
  /** A new key signs from now on; tokens already out stay valid. [T-4] @returns its key id. */
  rotate(nowMs: number): Promise<string>
}

/** Longest token looked at, characters. */
export const TOKEN_MAX_CHARS = 4096
/** Verified tokens remembered, and no longer than a signing key is: about 700 bytes each. I10 */
const VERIFIED_MAX = 10_000
/** Longest `sub` of the outside issuer, characters. */
const SUBJECT_MAX_CHARS = 255
/** Clock difference forgiven to the outside issuer, seconds. Ours gets none: its clock is the one asked. */
const OUTSIDE_SKEW_SECONDS = 60
// With a symmetric one, whoever can read the issuer's public keys could sign.
const ASYMMETRIC = ['EdDSA', 'Ed25519', 'ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512', 'RS256', 'RS384', 'RS512']

/**
 * @param options realm is the issuer and audience of our tokens.
 * @throws RangeError if the outside issuer's algorithms are empty or not all asymmetric; TypeError if its URL is none.
 */
export async function openTokens(options: {
  sql: Sql
  realm: string
  outside?: OutsideIssuer | null
  nowMs: number
}): Promise<Tokens> {
  const { realm, outside = null } = options
  if (outside && (outside.algorithms.length === 0 || outside.algorithms.some((each) => !ASYMMETRIC.includes(each)))) {
    throw new RangeError(`the outside issuer's algorithms must be among ${ASYMMETRIC.join(', ')}`)
  }
  const outsideKeys = outside && createRemoteJWKSet(new URL(outside.jwksUrl), { timeoutDuration: 3000 })
  const keys = await openSigningKeys(options.sql, options.nowMs)
  // A signature check costs more than the rest of a small request, and a client calls many times with one token.
  const verified = new Map<string, { claims: TokenClaims; untilMs: number }>()

  return {
    async issue(device, nowMs) {
      const key = await keys.signer(nowMs)
      const issuedAt = Math.floor(nowMs / 1000)
      const token = await new SignJWT({ dev: device.deviceUuid, device_id: device.deviceId })
        .setProtectedHeader({ alg: 'EdDSA', typ: 'JWT', kid: key.keyId })
        .setIssuer(realm)
        .setAudience(realm)
        .setSubject(device.userId)
        .setIssuedAt(issuedAt)
        .setExpirationTime(issuedAt + TOKEN_TTL_SECONDS)
        .setJti(randomUUID())
        .sign(key.privateKey)
      return { token, expiresInSeconds: TOKEN_TTL_SECONDS }
    },

    async verify(token, nowMs) {
      if (token.length > TOKEN_MAX_CHARS) throw refused()
      const known = verified.get(token)
      if (known && nowMs < known.untilMs && nowMs < known.claims.expiresAtMs) return known.claims
      let untilMs = nowMs + KEYS_FRESH_MS
      const find = async (header: { kid?: string }) => {
        const key = await keys.verifier(header.kid ?? '', nowMs)
        if (!key) throw refused()
        untilMs = Math.min(untilMs, key.retiresAtMs ?? untilMs)
        return key.publicKey
      }
      const { payload } = await jwtVerify(token, find, {
        algorithms: ['EdDSA'],
        issuer: realm,
        audience: realm,
        requiredClaims: ['sub', 'exp'],
        currentDate: new Date(nowMs),
      }).catch(translate)
      const { sub, dev, device_id: deviceId, exp } = payload
      if (!sub || !isUuid(sub) || typeof dev !== 'string' || !isUuid(dev) || !isDeviceId(deviceId)) throw refused()
      const claims = { userId: sub, deviceId, deviceUuid: dev, expiresAtMs: exp! * 1000 }
      verified.delete(token)
      if (verified.size >= VERIFIED_MAX) verified.delete(verified.keys().next().value!)
      verified.set(token, { claims, untilMs })
      return claims
    },

    async verifyOutside(token, nowMs) {
      if (!outside || !outsideKeys || token.length > TOKEN_MAX_CHARS) throw refused()
      const { payload } = await jwtVerify(token, outsideKeys, {
        algorithms: outside.algorithms,
        issuer: outside.issuer,
        audience: outside.audience,
        requiredClaims: ['sub', 'exp'],
        clockTolerance: OUTSIDE_SKEW_SECONDS,
        currentDate: new Date(nowMs),
      }).catch(translate)
      const subject: unknown = payload.sub
      if (typeof subject !== 'string' || subject.length === 0 || subject.length > SUBJECT_MAX_CHARS) throw refused()
      // PostgreSQL's text has no NUL.
      if (subject.includes('\0')) throw refused()
      return { subject }
    },

    async jwks(nowMs) {
      return { keys: (await keys.published(nowMs)).map((key) => key.publicJwk) }
    },
    rotate: (nowMs) => keys.rotate(nowMs),
  }
}

const isDeviceId = (claim: unknown): claim is number =>
  Number.isInteger(claim) && (claim as number) >= DEVICE_ID_MIN && (claim as number) <= DEVICE_ID_MAX

const refused = () => new RelayError('UNAUTHENTICATED', 'the token is missing, invalid or expired')

// One answer for everything wrong with a token (I13); what is wrong with us or the issuer's server is not the caller's fault.
function translate(error: unknown): never {
  if (error instanceof errors.JWKSTimeout || (error instanceof errors.JOSEError && error.code === 'ERR_JOSE_GENERIC')) {
    throw unavailable()
  }
  if (error instanceof errors.JWKSInvalid) throw unavailable()
  if (error instanceof errors.JOSEError) throw refused()
  // What fetch throws when nobody answers.
  if (error instanceof TypeError && error.message === 'fetch failed') throw unavailable()
  throw error
}

const unavailable = () => new RelayError('UNAVAILABLE', "the issuer's keys cannot be fetched", { retryAfterMs: 5000 })
