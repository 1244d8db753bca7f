// Who begins anew without a device: named by a username, or by the subject at an outside issuer; and how often one may try.
// [I-6.1] [I-6.5] [I-6.8] [T-5]
import { randomBytes, randomUUID } from 'node:crypto'
import { usernames } from '@signalapp/libsignal-client'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Asking, beginAnew, begunAnew, newCode, refusalOf, storeCode, withCode } from '../support/anew.ts'
import { Client, enrolmentJson, request } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import { TestDevice } from '../support/keys.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { startOutsideIssuer } from './outside-issuer.ts'

const FORBIDDEN = [403, 'FORBIDDEN']
const RATE_LIMITED = [429, 'RATE_LIMITED']
const MINUTE = 60_000

const time = new FakeTime()
let issuer: Awaited<ReturnType<typeof startOutsideIssuer>>
let relay: TestRelay
beforeAll(async () => {
  issuer = await startOutsideIssuer(time.nowMs)
  relay = await testRelay({ time, config: { registration: 'issuer', issuer: issuer.config } })
})
afterAll(async () => {
  await relay.close()
  issuer.close()
})

const outside = (sub: string) => issuer.sign({ sub, exp: time.nowMs / 1000 + 300 })
/** A registered user and the subject he registered as. */
async function person() {
  const subject = randomUUID()
  const user = await Client.register(relay, { bearer: await outside(subject), nowMs: time.nowMs })
  return { user, subject, token: () => outside(subject) }
}
const begin = async (userId: string | null, asking: Asking) =>
  (await beginAnew(relay, userId, { nowMs: time.nowMs, ...asking })).answer
const refusalFor = async (userId: string | null, asking: Asking) => refusalOf(await begin(userId, asking))

describe('an outside issuer’s token', () => {
  it('is enough by itself, with the user id or without: the subject names the user', async () => {
    const { user, token } = await person()
    expect(await begin(user.userId, { bearer: await token() })).toMatchObject({
      status: 200,
      body: { user_id: user.userId, device_id: 1 },
    })
    expect(await begin(null, { bearer: await token() })).toMatchObject({
      status: 200,
      body: { user_id: user.userId, device_id: 1 },
    })
  })

  it('speaks for its own subject only, and every token that does not is FORBIDDEN alike', async () => {
    const [{ user }, { token: another }] = [await person(), await person()]
    const answers = [
      await begin(user.userId, { bearer: await another() }),
      await begin(user.userId, { bearer: await outside('nobody') }),
      await begin(null, { bearer: await outside('nobody') }),
      await begin(user.userId, { bearer: user.token }),
      await begin(user.userId, { bearer: 'x.y.z' }),
      await begin(null, { bearer: 'x.y.z' }),
      await begin(randomUUID(), { bearer: await another() }),
      await begin(user.userId, {}),
    ]
    for (const answer of answers) expect(refusalOf(answer)).toEqual(FORBIDDEN)
    expect(new Set(answers.map((each) => JSON.stringify(each.body))).size).toBe(1)
    expect((await user.get('/v1/devices')).status).toBe(200)
  })

  it('is not looked at beside a code: one of them decides', async () => {
    const { user, token } = await person()
    expect(await refusalFor(user.userId, { code: newCode(), bearer: await token() })).toEqual(FORBIDDEN)
    expect((await user.get('/v1/devices')).status).toBe(200)
  })

  it('still links a device afterwards, under the new identity key and no other', async () => {
    const { user, token } = await person()
    const next = await begunAnew(relay, user.userId, { bearer: await token(), nowMs: time.nowMs })
    const link = async (identity: TestDevice) => {
      const device = new TestDevice({ identity: identity.identity })
      const json = enrolmentJson(device, relay.realm, { linkCode: '', nowMs: time.nowMs })
      return request(relay.url, 'POST', '/v1/devices', { json, token: await token() })
    }
    expect(refusalOf(await link(user.device))).toEqual([400, 'INVALID_REQUEST'])
    expect((await link(next.device)).status).toBe(201)
  })
})

describe('a username in place of the user id [I-6.8]', () => {
  let user: Client
  let hash: Uint8Array
  beforeEach(async () => {
    user = (await person()).user
    const made = usernames.fromParts(`n${randomBytes(6).toString('hex')}`, '42', 3, 32)
    hash = made.hash
    const claim = { username_hash: hash, proof: usernames.generateProof(made.username) }
    const body = Object.entries(claim).map(([name, bytes]) => [name, Buffer.from(bytes).toString('base64')])
    expect((await user.put('/v1/username', Object.fromEntries(body))).status).toBe(204)
  })

  it('names its holder, with a recovery code, and stays his', async () => {
    const code = await withCode(user, time.nowMs)
    const answer = await begin(null, { code, usernameHash: hash })
    expect(answer).toMatchObject({ status: 200, body: { user_id: user.userId, device_id: 1 } })
    const { user: other } = await person()
    const found = await other.get(`/v1/usernames/${Buffer.from(hash).toString('base64url')}`)
    expect(found.body).toEqual({ user_id: user.userId })
  })

  it('names him in the old key’s signature, too', async () => {
    const { answer, device } = await beginAnew(relay, null, {
      ...{ oldKey: user.device, usernameHash: hash, nowMs: time.nowMs },
    })
    expect([answer.status, answer.body.user_id]).toEqual([200, user.userId])
    expect((await begin(user.userId, { oldKey: device })).status).toBe(200)
  })

  it('that nobody holds is FORBIDDEN like a wrong code, and so is one that was released', async () => {
    const code = await withCode(user, time.nowMs)
    const wrong = await begin(null, { code: newCode(), usernameHash: hash })
    const unknown = await begin(null, { code, usernameHash: randomBytes(32) })
    expect((await user.delete('/v1/username')).status).toBe(204)
    const released = await begin(null, { code, usernameHash: hash })
    for (const each of [wrong, unknown, released]) {
      expect(refusalOf(each)).toEqual(FORBIDDEN)
      expect(each.body).toEqual(wrong.body)
    }
    expect((await begin(user.userId, { code })).status).toBe(200)
  })
})

describe('attempts [I-6.5]', () => {
  it.each([
    ['of a user', async () => ({ userId: (await person()).user.userId })],
    ['of nobody', async () => ({ userId: randomUUID() })],
    ['of a username nobody holds', async () => ({ userId: null, usernameHash: randomBytes(32) })],
  ])('%s: five are refused, the sixth is told to wait until the next is due', async (_of, make) => {
    const { userId, ...named }: { userId: string | null; usernameHash?: Uint8Array } = await make()
    const attempt = () => begin(userId, { ...named, code: newCode() })
    for (let i = 0; i < 5; i++) expect(refusalOf(await attempt())).toEqual(FORBIDDEN)
    const sixth = await attempt()
    expect(refusalOf(sixth)).toEqual(RATE_LIMITED)
    expect(sixth.body.error.retry_after_ms).toBe(12 * MINUTE)
    time.advance(12 * MINUTE - 1)
    expect(refusalOf(await attempt())).toEqual(RATE_LIMITED)
    time.advance(1)
    expect(refusalOf(await attempt())).toEqual(FORBIDDEN)
    expect(refusalOf(await attempt())).toEqual(RATE_LIMITED)
  })

  it('that are refused count against nobody else, and never against those that are authorised', async () => {
    const [{ user }, { user: other }] = [await person(), await person()]
    const code = await withCode(user, time.nowMs)
    for (let i = 0; i < 7; i++) await begin(user.userId, { code: newCode() })
    expect(await refusalFor(other.userId, { code: newCode() })).toEqual(FORBIDDEN)
    expect((await begin(user.userId, { code })).status).toBe(200)
  })

  it('that are authorised are five as well, then one every 12 minutes', async () => {
    const { user } = await person()
    let current = user
    const again = async () => {
      const { answer, device } = await beginAnew(relay, user.userId, { oldKey: current.device, nowMs: time.nowMs })
      if (answer.status === 200) current = await Client.enrolled(relay, device, answer)
      return answer
    }
    for (let i = 0; i < 5; i++) expect((await again()).status).toBe(200)
    expect(refusalOf(await again())).toEqual(RATE_LIMITED)
    time.advance(12 * MINUTE)
    expect((await again()).status).toBe(200)
    expect(refusalOf(await again())).toEqual(RATE_LIMITED)
    expect((await storeCode(current, newCode(), { nowMs: time.nowMs })).status).toBe(204)
  })
})
