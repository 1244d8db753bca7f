// The Ed25519 keys that sign access tokens: made on first start, shared by all nodes through table signing_keys,
// rotated with overlap. What a token says is in tokens.ts.
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type JsonWebKey,
  type KeyObject,
} from 'node:crypto'
import { TOKEN_TTL_SECONDS } from '../proto/limits.ts'
import type { Sql, Transaction } from './database.ts'

/** A public key as /.well-known/jwks.json shows it (RFC 8037). */
export type PublicJwk = { kty: 'OKP'; crv: 'Ed25519'; x: string; kid: string; alg: 'EdDSA'; use: 'sig' }

export type SigningKey = {
  /** RFC 7638 thumbprint, base64url, 43 characters. */
  keyId: string
  privateKey: KeyObject
  publicKey: KeyObject
  publicJwk: PublicJwk
  /** Unix milliseconds; null while it signs. */
  retiresAtMs: number | null
}

export type SigningKeys = {
  /** The key that signs now; at most KEYS_FRESH_MS behind a rotation on another node. @throws the database's error. */
  signer(nowMs: number): Promise<SigningKey>
  /** The unretired key of that id, or null. An id not seen yet is looked up once more: another node may just have rotated. */
  verifier(keyId: string, nowMs: number): Promise<SigningKey | null>
  /** Every unretired key, the signing one first. */
  published(nowMs: number): Promise<SigningKey[]>
  /** Makes a new signing key; the old one verifies until no token it signed can be alive. @returns the new key's id. */
  rotate(nowMs: number): Promise<string>
}

/** How long a node signs with what it last read, milliseconds. */
export const KEYS_FRESH_MS = 60_000
/** Clock difference between nodes that the overlap forgives, milliseconds. */
export const KEYS_SKEW_MS = 60_000
/** From rotation to retirement of the old key: the last token signed by the laziest node, its life, and skew. [T-4] */
export const KEYS_OVERLAP_MS = KEYS_FRESH_MS + TOKEN_TTL_SECONDS * 1000 + KEYS_SKEW_MS

const KEY_ID = /^[A-Za-z0-9_-]{43}$/

type Row = { key_id: string; private_jwk: JsonWebKey; retires_at: Date | null }

/**
 * Opens the key ring, making the first key if the table has none. Nodes that start together agree on one.
 * @throws the database's error.
 */
export async function openSigningKeys(sql: Sql, nowMs: number): Promise<SigningKeys> {
  let keys: SigningKey[] = []
  let loadedAtMs = 0
  let loading: Promise<void> | null = null

  const load = (now: number): Promise<void> => {
    loading ??= read(sql)
      .then((found) => {
        keys = found
        loadedAtMs = now
      })
      .finally(() => {
        loading = null
      })
    return loading
  }
  const stale = (now: number) => Math.abs(now - loadedAtMs) >= KEYS_FRESH_MS
  const alive = (key: SigningKey, now: number) => key.retiresAtMs === null || key.retiresAtMs > now

  await sql.begin(async (tx) => {
    await exclusive(tx)
    const [signing] = await tx`select 1 from signing_keys where retires_at is null`
    if (!signing) await insert(tx, nowMs)
  })
  await load(nowMs)

  return {
    async signer(now) {
      if (stale(now)) await load(now)
      const key = keys.find((each) => each.retiresAtMs === null)
      if (!key) throw new Error('table signing_keys has no signing key')
      return key
    },
    async verifier(keyId, now) {
      if (!KEY_ID.test(keyId)) return null
      const known = () => keys.find((each) => each.keyId === keyId)
      if (!known()) await load(now)
      // A known key keeps verifying while the database is away: it was true a minute ago.
      else if (stale(now)) await load(now).catch(() => {})
      const key = known()
      return key && alive(key, now) ? key : null
    },
    async published(now) {
      if (stale(now)) await load(now)
      return keys.filter((each) => alive(each, now))
    },
    async rotate(now) {
      const keyId = await sql.begin(async (tx) => {
        await exclusive(tx)
        await tx`delete from signing_keys where retires_at <= ${new Date(now)}`
        await tx`update signing_keys set retires_at = ${new Date(now + KEYS_OVERLAP_MS)} where retires_at is null`
        return insert(tx, now)
      })
      // A load that began before the commit would bring back the old ring.
      await loading?.catch(() => {})
      await load(now)
      return keyId
    },
  }
}

// Readers go on; makers of keys take turns.
const exclusive = (tx: Transaction) => tx`lock table signing_keys in share row exclusive mode`

async function insert(tx: Transaction, nowMs: number): Promise<string> {
  const jwk = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
  const keyId = thumbprint(jwk.x!)
  await tx`insert into signing_keys (key_id, private_jwk, created_at)
    values (${keyId}, ${tx.json({ kty: 'OKP', crv: 'Ed25519', x: jwk.x!, d: jwk.d! })}, ${new Date(nowMs)})`
  return keyId
}

async function read(sql: Sql): Promise<SigningKey[]> {
  const rows = await sql<Row[]>`select key_id, private_jwk, retires_at from signing_keys
    order by retires_at is null desc, created_at desc`
  return rows.map((row) => {
    const privateKey = createPrivateKey({ key: row.private_jwk, format: 'jwk' })
    return {
      keyId: row.key_id,
      privateKey,
      publicKey: createPublicKey(privateKey),
      publicJwk: { kty: 'OKP', crv: 'Ed25519', x: row.private_jwk.x!, kid: row.key_id, alg: 'EdDSA', use: 'sig' },
      retiresAtMs: row.retires_at?.getTime() ?? null,
    }
  })
}

const thumbprint = (x: string): string =>
  createHash('sha256').update(`{"crv":"Ed25519","kty":"OKP","x":"${x}"}`).digest('base64url')
