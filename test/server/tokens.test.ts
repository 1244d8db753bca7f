// Access tokens, the rotation of their keys on the real database, and an outside issuer over real HTTP.
import { createHmac, generateKeyPairSync } from 'node:crypto'
import { type CryptoKey, createLocalJWKSet, generateKeyPair, importJWK, jwtVerify, SignJWT } from 'jose'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type Database, openDatabase } from '../../server/database.ts'
import { KEYS_FRESH_MS, KEYS_OVERLAP_MS } from '../../server/signing.ts'
import { type OutsideIssuer, openTokens, type Tokens } from '../../server/tokens.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { startOutsideIssuer } from './outside-issuer.ts'

const REALM = 'https://relay.test'
const NOW = 1_800_000_000_000
const HOUR = 3_600_000
const device = {
  userId: '6f1f6d0e-6c1b-4f5e-9a0e-0d9a5f3f6b01',
  deviceId: 2,
  deviceUuid: '0d8f6a52-2f2b-4c3e-8a4c-6f0d3b1a7e02',
}
const UNAUTHENTICATED = expect.objectContaining({ code: 'UNAUTHENTICATED' })

let db: TestDatabase
let database: Database
let tokens: Tokens

beforeAll(async () => {
  db = await testDatabase({ lockMs: 60_000 })
  database = db.database
})
afterAll(() => db?.close())
beforeEach(async () => {
  await database.sql`truncate signing_keys`
  tokens = await openTokens({ sql: database.sql, realm: REALM, nowMs: NOW })
})

const decode = (part: string) => JSON.parse(Buffer.from(part, 'base64url').toString())
const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
const storedKeys = () => database.sql`select key_id, retires_at from signing_keys order by created_at`

describe('access tokens', () => {
  test('say who, which device row and until when, for one hour', async () => {
    const { token, expiresInSeconds } = await tokens.issue(device, NOW)
    expect(expiresInSeconds).toBe(3600)
    const [header, payload] = token.split('.').map((part, i) => (i < 2 ? decode(part) : part))
    const [key] = (await tokens.jwks(NOW)).keys
    expect(header).toEqual({ alg: 'EdDSA', typ: 'JWT', kid: key!.kid })
    expect(payload).toEqual({
      iss: REALM,
      aud: REALM,
      sub: device.userId,
      device_id: 2,
      dev: device.deviceUuid,
      iat: NOW / 1000,
      exp: NOW / 1000 + 3600,
      jti: expect.any(String),
    })
    expect(await tokens.verify(token, NOW)).toEqual({ ...device, expiresAtMs: NOW + HOUR })
  })

  test('verify with nothing but the published keys', async () => {
    const { token } = await tokens.issue(device, NOW)
    const { keys } = await tokens.jwks(NOW)
    expect(keys).toEqual([
      { kty: 'OKP', crv: 'Ed25519', alg: 'EdDSA', use: 'sig', kid: expect.any(String), x: expect.any(String) },
    ])
    const checked = await jwtVerify(token, createLocalJWKSet({ keys }), { issuer: REALM, currentDate: new Date(NOW) })
    expect(checked.payload.sub).toBe(device.userId)
  })

  test('live to the last second of their hour and not beyond', async () => {
    const { token } = await tokens.issue(device, NOW)
    await expect(tokens.verify(token, NOW + HOUR - 1000)).resolves.toMatchObject(device)
    await expect(tokens.verify(token, NOW + HOUR)).rejects.toEqual(UNAUTHENTICATED)
  })

  test('of another realm are refused, though the key is the same', async () => {
    const other = await openTokens({ sql: database.sql, realm: 'https://other.test', nowMs: NOW })
    const { token } = await other.issue(device, NOW)
    await expect(tokens.verify(token, NOW)).rejects.toEqual(UNAUTHENTICATED)
  })

  test('altered, truncated, empty and oversized ones are refused alike', async () => {
    const { token } = await tokens.issue(device, NOW)
    const [header, payload, signature] = token.split('.') as [string, string, string]
    const promoted = encode({ ...decode(payload), device_id: 1 })
    const bad = [
      `${header}.${promoted}.${signature}`,
      token.slice(0, -2),
      `${header}.${payload}`,
      `${header}.${payload}.`,
      '',
      'x',
      `${token}${'A'.repeat(5000)}`,
      'ÿ.ÿ.ÿ',
    ]
    const refusals = await Promise.all(bad.map((each) => tokens.verify(each, NOW).catch((error) => error)))
    for (const error of refusals) expect(error).toEqual(UNAUTHENTICATED)
    expect(new Set(refusals.map((error) => error.message)).size).toBe(1)
  })

  test('signed with our key but naming no device are refused', async () => {
    const [row] = await database.sql`select key_id, private_jwk from signing_keys`
    const key = (await importJWK(row!.private_jwk, 'EdDSA')) as CryptoKey
    const make = (claims: Record<string, unknown>) =>
      new SignJWT({
        iss: REALM,
        aud: REALM,
        sub: device.userId,
        dev: device.deviceUuid,
        device_id: 2,
        exp: NOW / 1000 + 60,
        ...claims,
      })
        .setProtectedHeader({ alg: 'EdDSA', kid: row!.key_id })
        .sign(key)
    await expect(tokens.verify(await make({}), NOW)).resolves.toMatchObject(device)
    for (const claims of [
      { dev: undefined },
      { dev: 'x' },
      { sub: 'somebody' },
      { sub: undefined },
      { exp: undefined },
      { aud: 'https://elsewhere.test' },
      { device_id: 0 },
      { device_id: 128 },
      { device_id: '2' },
    ]) {
      await expect(tokens.verify(await make(claims), NOW), JSON.stringify(claims)).rejects.toEqual(UNAUTHENTICATED)
    }
  })

  test('of another algorithm are refused: HS256 with the public key, none, ES256 with our key id', async () => {
    const { token } = await tokens.issue(device, NOW)
    const [, payload] = token.split('.') as [string, string]
    const [key] = (await tokens.jwks(NOW)).keys
    const der = Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), Buffer.from(key!.x, 'base64url')])
    const pem = `-----BEGIN PUBLIC KEY-----\n${der.toString('base64')}\n-----END PUBLIC KEY-----\n`
    const hs256 = (secret: Buffer | string) => {
      const signed = `${encode({ alg: 'HS256', typ: 'JWT', kid: key!.kid })}.${payload}`
      return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`
    }
    const es256 = await new SignJWT(decode(payload))
      .setProtectedHeader({ alg: 'ES256', kid: key!.kid })
      .sign(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
    const none = `${encode({ alg: 'none', kid: key!.kid })}.${payload}.`
    for (const forged of [
      hs256(Buffer.from(key!.x, 'base64url')),
      hs256(key!.x),
      hs256(der),
      hs256(pem),
      es256,
      none,
    ]) {
      await expect(tokens.verify(forged, NOW)).rejects.toEqual(UNAUTHENTICATED)
    }
  })
})

describe('signing keys', () => {
  test('survive a restart', async () => {
    const { token } = await tokens.issue(device, NOW)
    const again = await openTokens({ sql: database.sql, realm: REALM, nowMs: NOW + 1000 })
    expect(await again.verify(token, NOW + 1000)).toMatchObject(device)
    expect(await storedKeys()).toHaveLength(1)
  })

  test('two nodes that start together agree on one', async () => {
    await database.sql`truncate signing_keys`
    const second = openDatabase(db.url)
    // Both are inside openTokens, waiting for the table, before either can make a key.
    let open!: () => void
    const opened = new Promise<void>((resolve) => {
      open = resolve
    })
    const holding = database.reader.begin(async (tx) => {
      await tx`set local idle_in_transaction_session_timeout = 0`
      await tx`lock table signing_keys in access exclusive mode`
      await opened
    })
    // Of this database: the others of this run were cloned from the same one, and their tables have the same number.
    const locks = async (granted: boolean) => {
      const [row] = await database.writer`
        select count(*)::int as n from pg_locks where relation = 'signing_keys'::regclass and granted = ${granted}
          and database = (select oid from pg_database where datname = current_database())`
      return row!.n as number
    }
    while ((await locks(true)) === 0);
    const nodes = [database, second].map(({ sql }) => openTokens({ sql, realm: REALM, nowMs: NOW }))
    while ((await locks(false)) < 2);
    open()
    const [a, b] = (await Promise.all(nodes)) as [Tokens, Tokens]
    await holding
    expect(await storedKeys()).toHaveLength(1)
    expect(await b.verify((await a.issue(device, NOW)).token, NOW)).toMatchObject(device)
    expect(await a.verify((await b.issue(device, NOW)).token, NOW)).toMatchObject(device)
    await second.close()
  })

  test('rotate with overlap: the new one signs, the old one verifies until no token of it can live', async () => {
    const old = await tokens.issue(device, NOW)
    const [before] = (await tokens.jwks(NOW)).keys
    const keyId = await tokens.rotate(NOW)
    const fresh = await tokens.issue(device, NOW)
    expect(decode(fresh.token.split('.')[0]!).kid).toBe(keyId)
    expect((await tokens.jwks(NOW)).keys.map((key) => key.kid)).toEqual([keyId, before!.kid])
    expect(await tokens.verify(old.token, NOW + HOUR - 1000)).toMatchObject(device)
    expect(KEYS_OVERLAP_MS).toBeGreaterThan(HOUR + KEYS_FRESH_MS)
    expect((await tokens.jwks(NOW + KEYS_OVERLAP_MS - 1)).keys).toHaveLength(2)
    expect((await tokens.jwks(NOW + KEYS_OVERLAP_MS)).keys.map((key) => key.kid)).toEqual([keyId])
  })

  test('a retired key verifies nothing, however young the token', async () => {
    await tokens.rotate(NOW)
    const [row] = await database.sql`select key_id, private_jwk from signing_keys where retires_at is not null`
    const late = await new SignJWT({ iss: REALM, aud: REALM, sub: device.userId, dev: device.deviceUuid, device_id: 2 })
      .setProtectedHeader({ alg: 'EdDSA', kid: row!.key_id })
      .setExpirationTime(NOW / 1000 + 10 * 3600)
      .sign((await importJWK(row!.private_jwk, 'EdDSA')) as CryptoKey)
    expect(await tokens.verify(late, NOW + KEYS_OVERLAP_MS - 1000)).toMatchObject(device)
    await expect(tokens.verify(late, NOW + KEYS_OVERLAP_MS)).rejects.toEqual(UNAUTHENTICATED)
  })

  test('a node that has not heard of a rotation accepts the new key at once and signs with it within a minute', async () => {
    const laggard = await openTokens({ sql: database.sql, realm: REALM, nowMs: NOW })
    const keyId = await tokens.rotate(NOW)
    const signer = async (nowMs: number) => decode((await laggard.issue(device, nowMs)).token.split('.')[0]!).kid
    expect(await signer(NOW)).not.toBe(keyId)
    expect(await laggard.verify((await tokens.issue(device, NOW)).token, NOW)).toMatchObject(device)
    const third = await openTokens({ sql: database.sql, realm: REALM, nowMs: NOW })
    await third.rotate(NOW)
    expect(await signer(NOW + KEYS_FRESH_MS)).toBe((await third.jwks(NOW)).keys[0]!.kid)
  })

  test('rotations at once leave one key that signs', async () => {
    await Promise.all([1, 2, 3, 4].map(() => tokens.rotate(NOW)))
    const keys = await storedKeys()
    expect(keys).toHaveLength(5)
    expect(keys.filter((key) => key.retires_at === null)).toHaveLength(1)
  })

  test('retired keys are deleted by a later rotation', async () => {
    await tokens.rotate(NOW)
    await tokens.rotate(NOW + KEYS_OVERLAP_MS)
    expect(await storedKeys()).toHaveLength(2)
  })

  test('verifying goes on while the database is away', async () => {
    const mine = openDatabase(db.url)
    const node = await openTokens({ sql: mine.sql, realm: REALM, nowMs: NOW })
    const { token } = await node.issue(device, NOW)
    await mine.close()
    expect(await node.verify(token, NOW + 2 * KEYS_FRESH_MS)).toMatchObject(device)
    await expect(node.issue(device, NOW + 2 * KEYS_FRESH_MS)).rejects.toMatchObject({ code: 'CONNECTION_ENDED' })
  })
})

describe('an outside issuer', () => {
  let issuer: Awaited<ReturnType<typeof startOutsideIssuer>>
  beforeAll(async () => {
    issuer = await startOutsideIssuer(NOW)
  })
  afterAll(() => issuer?.close())
  const open = (outside: OutsideIssuer = issuer.config) =>
    openTokens({ sql: database.sql, realm: REALM, outside, nowMs: NOW })
  const sign: typeof issuer.sign = (...given) => issuer.sign(...given)

  test('vouches for a subject, its keys fetched once', async () => {
    const node = await open()
    issuer.state.fetches = 0
    expect(await node.verifyOutside(await sign(), NOW)).toEqual({ subject: 'person-1' })
    expect(await node.verifyOutside(await sign({ sub: 'person-2' }), NOW)).toEqual({ subject: 'person-2' })
    expect(issuer.state.fetches).toBe(1)
  })

  test('is held to its issuer, audience, life, algorithm and keys', async () => {
    const node = await open()
    const stranger = (await generateKeyPair('ES256')).privateKey
    const bad = [
      await sign({ iss: 'https://evil.test' }),
      await sign({ aud: 'another-service' }),
      await sign({ exp: NOW / 1000 - 61 }),
      await sign({ exp: undefined }),
      await sign({ sub: undefined }),
      await sign({ sub: '' }),
      await sign({ sub: 17 }),
      await sign({ sub: 'a\0b' }),
      await sign({ sub: 'x'.repeat(256) }),
      await sign({}, {}, stranger),
      await sign({}, { kid: 'outside-2' }),
      `${encode({ alg: 'none', kid: 'outside-1' })}.${encode({ iss: issuer.config.issuer, aud: 'sealpost', sub: 'x', exp: NOW / 1000 + 300 })}.`,
      (await tokens.issue(device, NOW)).token,
    ]
    for (const token of bad) await expect(node.verifyOutside(token, NOW)).rejects.toEqual(UNAUTHENTICATED)
  })

  test('cannot make device tokens', async () => {
    const node = await open()
    const forged = await sign({ iss: REALM, aud: REALM, sub: device.userId, dev: device.deviceUuid, device_id: 2 })
    await expect(node.verify(forged, NOW)).rejects.toEqual(UNAUTHENTICATED)
  })

  test('is refused as configuration with a symmetric algorithm or none', async () => {
    for (const algorithms of [['HS256'], ['none'], [], ['ES256', 'HS512']]) {
      await expect(open({ ...issuer.config, algorithms })).rejects.toThrow(RangeError)
    }
  })

  test('whose keys cannot be fetched is our trouble, not the bearer’s', async () => {
    const token = await sign()
    const working = issuer.state.answer
    const broken = [
      { status: 500, body: {} },
      { status: 200, body: { nothing: true } },
    ]
    for (const answer of broken) {
      issuer.state.answer = answer
      const node = await open()
      await expect(node.verifyOutside(token, NOW)).rejects.toMatchObject({ code: 'UNAVAILABLE', retryAfterMs: 5000 })
      issuer.state.answer = working
      expect(await node.verifyOutside(token, NOW)).toEqual({ subject: 'person-1' })
    }
    const nobody = await open({ ...issuer.config, jwksUrl: 'http://127.0.0.1:1/keys' })
    await expect(nobody.verifyOutside(token, NOW)).rejects.toMatchObject({ code: 'UNAVAILABLE' })
  })

  test('without one, no token vouches', async () => {
    await expect(tokens.verifyOutside(await sign(), NOW)).rejects.toEqual(UNAUTHENTICATED)
  })
})
