// Registration and the token endpoint on the real database: proofs, invitations, RFC 6749 answers.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { verifyCredentials } from '../../server/credentials.ts'
import { accountRoutes } from '../../server/http/accounts.ts'
import { tokenRoutes } from '../../server/http/tokens.ts'
import { createInvitation, INVITATION_TTL_MS } from '../../server/invitations.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { enrolmentJson } from '../support/enrolment.ts'
import { TestDevice } from '../support/keys.ts'
import { enrolment, NOW, openWorld, REALM, refusal, type World } from './relay-world.ts'
import { callRoute } from './routes.ts'

const NOBODY = { invitation: null, outsideToken: null }
let db: TestDatabase
let world: World
beforeAll(async () => {
  db = await testDatabase()
  world = await openWorld(db.database)
})
afterAll(() => db?.close())

/** Rows in every table an account touches. */
async function footprint() {
  const [row] = await world.sql`select
    (select count(*) from accounts) as accounts, (select count(*) from devices) as devices,
    (select count(*) from device_locks) as locks, (select count(*) from device_sequences) as sequences,
    (select count(*) from keys.identities) as identities, (select count(*) from keys.devices) as key_devices,
    (select count(*) from keys.signed_prekeys) as signed, (select count(*) from keys.one_time_prekeys) as one_time,
    (select count(*) from keys.kyber_prekeys) as kyber, (select count(*) from invitations where used_by is not null) as used`
  return { ...row }
}

describe('registration', () => {
  test('makes user, device 1, queue and keys', async () => {
    const { enrolled, caller, device } = await world.register()
    expect(enrolled).toEqual({
      userId: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-4/),
      deviceId: 1,
      deviceSecret: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/),
    })
    const [queue] =
      await world.sql`select s.last, s.floor from device_locks l join device_sequences s using (device_key)
      where device_key = ${caller.deviceKey}`
    expect(queue).toEqual({ last: 0, floor: 0 })
    expect(await world.directory.identityOf(enrolled.userId)).toEqual(Buffer.from(device.identityKey))
    const counts = await world.directory.counts(caller.deviceKey)
    expect(counts).toMatchObject({ oneTime: { count: 1 }, kyberOneTime: { count: 1 }, lastResort: { keyId: 1 } })
  })

  test('the secret is stored as a hash only', async () => {
    const { enrolled, caller } = await world.register()
    const [row] = await world.sql`select secret_hash from devices where device_key = ${caller.deviceKey}`
    const digest = await crypto.subtle.digest('SHA-256', Buffer.from(enrolled.deviceSecret, 'base64url'))
    expect(row!.secret_hash).toEqual(Buffer.from(digest))
    const everything = JSON.stringify(await world.sql`select devices::text from devices`)
    expect(everything).not.toContain(enrolled.deviceSecret)
    expect(everything).not.toContain(Buffer.from(enrolled.deviceSecret, 'base64url').toString('hex'))
  })

  test('of the same identity again is a conflict, so a replayed proof is of no use', async () => {
    const request = enrolment(new TestDevice())
    await world.accounts.register(request, NOBODY, NOW)
    const before = await footprint()
    await expect(world.accounts.register(request, NOBODY, NOW + 1000)).rejects.toEqual(
      refusal('CONFLICT', /identity_key/),
    )
    expect(await footprint()).toEqual(before)
  })

  test('of one identity many times at once makes one account', async () => {
    const device = new TestDevice()
    const requests = [1, 2, 3, 4].map(() => enrolment(device))
    const tries = await Promise.allSettled(requests.map((each) => world.accounts.register(each, NOBODY, NOW)))
    expect(tries.filter((each) => each.status === 'fulfilled')).toHaveLength(1)
    for (const each of tries) if (each.status === 'rejected') expect(each.reason).toEqual(refusal('CONFLICT'))
  })

  test('with another user’s public keys is refused: only who holds the identity key can prove it', async () => {
    const victim = new TestDevice()
    const mallory = new TestDevice()
    const before = await footprint()
    const stolen = enrolment(victim, { signer: mallory.identity })
    await expect(world.accounts.register(stolen, NOBODY, NOW)).rejects.toEqual(
      refusal('INVALID_REQUEST', /identity_proof.signature/),
    )
    // The victim's own proof under mallory's identity, and mallory's keys under the victim's proof.
    const genuine = enrolment(victim)
    const own = enrolment(mallory)
    await expect(
      world.accounts.register({ ...genuine, identityKey: mallory.identityKey }, NOBODY, NOW),
    ).rejects.toEqual(refusal('INVALID_REQUEST', /identity_proof.signature/))
    await expect(world.accounts.register({ ...genuine, keys: own.keys }, NOBODY, NOW)).rejects.toEqual(
      refusal('INVALID_REQUEST', /identity_proof.signature/),
    )
    await expect(
      world.accounts.register({ ...genuine, registrationId: (genuine.registrationId % 16383) + 1 }, NOBODY, NOW),
    ).rejects.toEqual(refusal('INVALID_REQUEST', /identity_proof.signature/))
    expect(await footprint()).toEqual(before)
  })

  test('takes a proof for this realm and this purpose, within ten minutes, and no other', async () => {
    const device = new TestDevice()
    const bad = [
      [{ realm: 'https://other.test' }, /signature/],
      [{ purpose: 'link' as const }, /signature/],
      [{ purpose: 'identity' as const }, /signature/],
      [{ linkCode: 'x' }, /signature/],
      [{ timestampMs: NOW - 600_001 }, /600001 ms behind/],
      [{ timestampMs: NOW + 600_001 }, /600001 ms ahead/],
    ] as const
    for (const [options, message] of bad) {
      await expect(world.accounts.register(enrolment(device, options), NOBODY, NOW)).rejects.toEqual(
        refusal('INVALID_REQUEST', message),
      )
    }
    await world.accounts.register(enrolment(device, { timestampMs: NOW - 600_000 }), NOBODY, NOW)
  })

  test('with a bad key stores nothing', async () => {
    const before = await footprint()
    const request = enrolment(new TestDevice(), { oneTime: 3 })
    request.keys.oneTimeKyberPrekeys[2]!.signature[0]! ^= 1
    await expect(world.accounts.register(request, NOBODY, NOW)).rejects.toEqual(
      refusal('INVALID_REQUEST', /one_time_kyber_prekeys\[2\]\.signature/),
    )
    expect(await footprint()).toEqual(before)
  })

  test('with a signed prekey another device holds stores nothing', async () => {
    const holder = new TestDevice()
    const held = enrolment(holder)
    await world.accounts.register(held, NOBODY, NOW)
    const before = await footprint()
    const thief = new TestDevice()
    const { publicKey } = held.keys.signedPrekey
    const signedPrekey = { keyId: 1, publicKey, signature: thief.sign(publicKey) }
    const request = enrolment(thief, { signedPrekey })
    const stolen = { ...request, keys: { ...request.keys, signedPrekey } }
    await expect(world.accounts.register(stolen, NOBODY, NOW)).rejects.toEqual(refusal('CONFLICT', /signed_prekey/))
    expect(await footprint()).toEqual(before)
  })
})

describe('registration by invitation', () => {
  let invited: World
  beforeAll(async () => {
    invited = await openWorld(db.database, { registration: 'invite' })
  })
  const register = (
    invitation: string | null,
    nowMs = NOW,
    request = enrolment(new TestDevice(), { timestampMs: nowMs }),
  ) => invited.accounts.register(request, { invitation, outsideToken: null }, nowMs)

  test('lets each invitation in once, and only while it lives', async () => {
    const [first, second] = [await createInvitation(world.sql, NOW), await createInvitation(world.sql, NOW)]
    await register(first)
    const refusals = await Promise.all([null, '', 'guess', first].map((each) => register(each).catch((error) => error)))
    refusals.push(await register(second, NOW + INVITATION_TTL_MS).catch((error) => error))
    for (const each of refusals) expect(each).toEqual(refusal('FORBIDDEN'))
    expect(new Set(refusals.map((each) => each.message)).size).toBe(1)
    await register(second, NOW + INVITATION_TTL_MS - 1)
  })

  test('is not used up by a registration that fails', async () => {
    const taken = new TestDevice()
    await world.accounts.register(enrolment(taken), NOBODY, NOW)
    const invitation = await createInvitation(world.sql, NOW)
    await expect(register(invitation, NOW, enrolment(taken))).rejects.toEqual(refusal('CONFLICT'))
    await register(invitation)
  })

  test('goes to one of two who use it at once', async () => {
    const invitation = await createInvitation(world.sql, NOW)
    const tries = await Promise.allSettled([register(invitation), register(invitation), register(invitation)])
    expect(tries.filter((each) => each.status === 'fulfilled')).toHaveLength(1)
  })

  test('is stored hashed', async () => {
    const invitation = await createInvitation(world.sql, NOW)
    const rows = JSON.stringify(await world.sql`select invitations::text from invitations`)
    expect(rows).not.toContain(invitation)
    expect(rows).not.toContain(Buffer.from(invitation).toString('hex'))
  })
})

describe('over HTTP', () => {
  const post = (body: unknown) =>
    callRoute(accountRoutes({ accounts: world.accounts }), 'POST', '/v1/accounts', { body, nowMs: NOW })

  test('answers the secret once, uncached', async () => {
    const answer = await post(enrolmentJson(new TestDevice(), REALM, { nowMs: NOW, name: 'phone' }))
    expect(answer).toEqual({
      status: 201,
      headers: { 'Cache-Control': 'no-store' },
      body: { user_id: expect.any(String), device_id: 1, device_secret: expect.any(String) },
    })
  })

  test('keys that may be absent may be absent; a device without Kyber keys is let in', async () => {
    const request = enrolmentJson(new TestDevice(), REALM, { nowMs: NOW, kyber: false })
    const { identity_key, registration_id, signed_prekey, identity_proof } = request
    expect(await post({ identity_key, registration_id, signed_prekey, identity_proof })).toMatchObject({ status: 201 })
  })

  test('malformed bodies are refused', async () => {
    const good = enrolmentJson(new TestDevice(), REALM, { nowMs: NOW })
    const bad: unknown[] = [
      null,
      [],
      'x',
      { ...good, identity_key: undefined },
      { ...good, signed_prekey: undefined },
      { ...good, signed_prekey: null },
      { ...good, identity_proof: undefined },
      { ...good, registration_id: 0 },
      { ...good, registration_id: 16384 },
      { ...good, registration_id: 1.5 },
      { ...good, name: 'a\0b' },
      { ...good, name: 'x'.repeat(129) },
      { ...good, identity_key: `${good.identity_key}=` },
      { ...good, identity_proof: { ...good.identity_proof, timestamp_ms: '1' } },
      { ...good, identity_proof: { ...good.identity_proof, timestamp_ms: 1e300 } },
      { ...good, identity_proof: { ...good.identity_proof, signature: 'AA==' } },
      { ...good, signed_prekey: { ...good.signed_prekey, key_id: 2 ** 31 } },
    ]
    for (const each of bad) await expect(post(each)).rejects.toEqual(refusal('INVALID_REQUEST'))
    expect(await post(good)).toMatchObject({ status: 201 })
  })
})

describe('the token endpoint', () => {
  let userId: string
  let deviceSecret: string
  beforeEach(async () => {
    const { enrolled } = await world.register()
    userId = enrolled.userId
    deviceSecret = enrolled.deviceSecret
  })
  const ask = (body: Record<string, unknown>, authorization: string | null = null) =>
    callRoute(tokenRoutes(world), 'POST', '/oauth/token', { body, authorization, nowMs: NOW })
  const basic = (id: string, secret: string) => `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`
  const grant = { grant_type: 'client_credentials' }
  const NO_STORE = { 'Cache-Control': 'no-store', Pragma: 'no-cache' }

  test('trades the secret for a token of that device, in the body or by HTTP Basic', async () => {
    const id = `${userId}.1`
    for (const answer of [
      await ask({ ...grant, client_id: id, client_secret: deviceSecret }),
      await ask(grant, basic(id, deviceSecret)),
      await ask({ ...grant, client_id: id }, basic(id, deviceSecret).replace('Basic', 'bAsIc')),
      await ask({ ...grant, scope: 'x' }, basic(encodeURIComponent(id).replaceAll('-', '%2D'), deviceSecret)),
    ]) {
      expect(answer).toEqual({
        status: 200,
        headers: NO_STORE,
        body: { access_token: expect.any(String), token_type: 'Bearer', expires_in: 3600 },
      })
      const { access_token: token } = answer.body as { access_token: string }
      expect(await world.identity.authenticate(token, NOW)).toMatchObject({ userId, deviceId: 1 })
    }
  })

  test('an unknown device, a malformed id and a wrong secret are one answer', async () => {
    const wrong = Buffer.alloc(32, 7).toString('base64url')
    const pairs: [string, string][] = [
      [`${userId}.1`, wrong],
      [`${userId}.1`, ''],
      [`${userId}.1`, `${deviceSecret}=`],
      [`${userId}.1`, `${deviceSecret}A`],
      [`${userId}.1`, deviceSecret.slice(0, -1)],
      [`${userId}.2`, deviceSecret],
      [`${userId}.01`, deviceSecret],
      [`${userId}.1.0`, deviceSecret],
      [`${userId}.128`, deviceSecret],
      [`${userId}.`, deviceSecret],
      [userId, deviceSecret],
      [userId.toUpperCase().concat('.1'), deviceSecret],
      ['6f1f6d0e-6c1b-4f5e-9a0e-0d9a5f3f6b01.1', deviceSecret],
      ['', ''],
    ]
    for (const [id, secret] of pairs) {
      const inBody = await ask({ ...grant, client_id: id, client_secret: secret })
      expect(inBody, id).toEqual({ status: 401, headers: NO_STORE, body: { error: 'invalid_client' } })
      expect(await ask(grant, basic(id, secret)), id).toEqual({
        status: 401,
        headers: { ...NO_STORE, 'WWW-Authenticate': expect.stringMatching(/^Basic realm=/) },
        body: { error: 'invalid_client' },
      })
    }
    for (const header of [
      'Basic',
      'Basic !!!',
      'Basic QQ==',
      'Bearer x',
      `Basic ${Buffer.from('%:%').toString('base64')}`,
    ]) {
      expect(await ask(grant, header), header).toMatchObject({ status: 401, body: { error: 'invalid_client' } })
    }
    expect(await ask(grant)).toMatchObject({ status: 401, body: { error: 'invalid_client' } })
  })

  test('errors have the form of RFC 6749', async () => {
    const client = { client_id: `${userId}.1`, client_secret: deviceSecret }
    const cases: [Record<string, unknown>, string | null, string][] = [
      [client, null, 'invalid_request'],
      [{ ...client, grant_type: 'password' }, null, 'unsupported_grant_type'],
      [{ ...client, grant_type: ['client_credentials', 'client_credentials'] }, null, 'invalid_request'],
      [{ ...client, ...grant, client_id: [client.client_id, 'x'] }, null, 'invalid_request'],
      [{ ...client, ...grant }, basic(client.client_id, deviceSecret), 'invalid_request'],
      [{ ...grant, client_id: 'another' }, basic(client.client_id, deviceSecret), 'invalid_request'],
    ]
    for (const [body, authorization, error] of cases) {
      expect(await ask(body, authorization)).toMatchObject({ status: 400, headers: NO_STORE, body: { error } })
    }
  })

  test('publishes its keys', async () => {
    const answer = await callRoute(tokenRoutes(world), 'GET', '/.well-known/jwks.json', { nowMs: NOW })
    expect(answer).toMatchObject({ status: 200, body: { keys: [{ kty: 'OKP', alg: 'EdDSA' }] } })
    expect(JSON.stringify(answer.body)).not.toContain('"d"')
  })

  test('credentials end with their device', async () => {
    const primary = await world.register()
    const { enrolled, caller } = await world.link(primary)
    const id = `${enrolled.userId}.${enrolled.deviceId}`
    expect(await verifyCredentials(world.sql, id, enrolled.deviceSecret)).toMatchObject({
      deviceUuid: caller.deviceUuid,
    })
    await world.devices.unlink(primary.caller, enrolled.deviceId, NOW)
    expect(await verifyCredentials(world.sql, id, enrolled.deviceSecret)).toBeNull()
  })
})
