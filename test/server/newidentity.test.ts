// Beginning anew: who may, what goes, what stays, and who is told. [I-6] [V-5]

import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { uuidToBytes } from '../../proto/ids.ts'
import { type Asking, beginAnew, begunAnew, newCode, refusalOf, storeCode, withCode } from '../support/anew.ts'
import { Client, enrolmentJson, request } from '../support/client.ts'
import { TestDevice } from '../support/keys.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { allRows, rowsAtRest } from '../support/rows.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

const begin = (userId: string, asking: Asking) => beginAnew(relay, userId, asking)
const rows = () => allRows(relay.db.database.sql)

describe('what authorises it [I-6.1]', () => {
  it('a recovery code, once; the answer is device 1 of the same user with another secret', async () => {
    const user = await Client.register(relay)
    const code = await withCode(user)
    const { answer } = await begin(user.userId, { code })
    expect(answer).toMatchObject({ status: 200, body: { user_id: user.userId, device_id: 1 } })
    expect(answer.body.device_secret).toMatch(/^[\w-]{43}$/)
    expect(answer.body.device_secret).not.toBe(user.secret)
    expect(refusalOf((await begin(user.userId, { code })).answer)).toEqual([403, 'FORBIDDEN'])
  })

  it('the present identity key; another key is of no use', async () => {
    const [user, other] = [await Client.register(relay), await Client.register(relay)]
    expect(refusalOf((await begin(user.userId, { oldKey: other.device })).answer)).toEqual([403, 'FORBIDDEN'])
    const { answer, device } = await begin(user.userId, { oldKey: user.device })
    expect(answer.status).toBe(200)
    // The former key is not the present one any more, the new one is. [I-6.7]
    expect(refusalOf((await begin(user.userId, { oldKey: user.device })).answer)).toEqual([403, 'FORBIDDEN'])
    expect((await begin(user.userId, { oldKey: device })).answer.status).toBe(200)
  })

  it('says the same of a wrong code, a former one, none, and a user who does not exist', async () => {
    const user = await Client.register(relay)
    const former = await withCode(user)
    await withCode(user)
    const before = await rowsAtRest(relay.db.database.sql)
    const bodies = await Promise.all(
      [
        begin(user.userId, { code: newCode() }),
        begin(user.userId, { code: former }),
        begin(user.userId, {}),
        begin(crypto.randomUUID(), { code: former }),
      ].map(async (each) => {
        const { answer } = await each
        return JSON.stringify([answer.status, answer.body])
      }),
    )
    expect(new Set(bodies).size).toBe(1)
    expect(bodies[0]).toContain('FORBIDDEN')
    expect(await rows()).toEqual(before)
  })

  it('an old signature means one key, one user and one moment', async () => {
    const [user, other] = [await Client.register(relay), await Client.register(relay)]
    const before = await rowsAtRest(relay.db.database.sql)
    const nowMs = Date.now()
    const refused = [
      // Signed a millisecond apart from the proof, for another key, by and for somebody else, for another realm.
      await begin(user.userId, { oldKey: user.device, nowMs, signedAtMs: nowMs + 1 }),
      await beginAnew({ ...relay, realm: 'https://other.test' }, user.userId, { oldKey: user.device }),
      await begin(other.userId, { oldKey: user.device }),
    ]
    for (const { answer } of refused) expect(refusalOf(answer)).toEqual([403, 'FORBIDDEN'])
    expect(await rows()).toEqual(before)
  })

  it('as old as the proof may be, ten minutes, and no older', async () => {
    const user = await Client.register(relay)
    const before = await rowsAtRest(relay.db.database.sql)
    for (const nowMs of [Date.now() - 660_000, Date.now() + 660_000])
      expect(refusalOf((await begin(user.userId, { oldKey: user.device, nowMs })).answer)).toEqual([
        400,
        'INVALID_REQUEST',
      ])
    expect(await rows()).toEqual(before)
    const { answer } = await begin(user.userId, { oldKey: user.device, nowMs: Date.now() - 540_000 })
    expect(answer.status).toBe(200)
  })

  it('a request that names nobody, or one user twice, is INVALID_REQUEST', async () => {
    const user = await Client.register(relay)
    const usernameHash = new Uint8Array(32)
    for (const [userId, asking] of [
      [null, { oldKey: user.device }],
      [user.userId, { oldKey: user.device, usernameHash }],
    ] as const)
      expect(refusalOf((await beginAnew(relay, userId, asking)).answer)).toEqual([400, 'INVALID_REQUEST'])
  })

  it('both at once are INVALID_REQUEST', async () => {
    const user = await Client.register(relay)
    const code = await withCode(user)
    expect(refusalOf((await begin(user.userId, { code, oldKey: user.device })).answer)).toEqual([
      400,
      'INVALID_REQUEST',
    ])
  })
})

describe('what is refused although it is authorised', () => {
  it('a proof for another code, a registration id that was device 1’s, a key that was given up; nothing changes', async () => {
    const user = await Client.register(relay)
    const code = await withCode(user)
    const before = await rowsAtRest(relay.db.database.sql)
    expect(refusalOf((await begin(user.userId, { code, proofOf: '' })).answer)).toEqual([400, 'INVALID_REQUEST'])
    const same = new TestDevice({ registrationId: user.device.registrationId })
    expect(refusalOf((await begin(user.userId, { code, device: same })).answer)).toEqual([400, 'INVALID_REQUEST'])
    const otherId = (user.device.registrationId % 16383) + 1
    const present = new TestDevice({ identity: user.device.identity, registrationId: otherId })
    expect(refusalOf((await begin(user.userId, { code, device: present })).answer)).toEqual([409, 'CONFLICT'])
    expect(await rows()).toEqual(before)
    expect((await begin(user.userId, { code })).answer.status).toBe(200)
    // [I-6.6] Given up for good, for everybody.
    const again = { json: enrolmentJson(new TestDevice({ identity: user.device.identity }), relay.realm) }
    expect(refusalOf(await request(relay.url, 'POST', '/v1/accounts', again))).toEqual([409, 'CONFLICT'])
  })

  it('more than five attempts that fail, but they never keep the user out [I-6.5]', async () => {
    const user = await Client.register(relay)
    const code = await withCode(user)
    for (let i = 0; i < 5; i++)
      expect(refusalOf((await begin(user.userId, { code: newCode() })).answer)).toEqual([403, 'FORBIDDEN'])
    const sixth = (await begin(user.userId, { code: newCode() })).answer
    expect(refusalOf(sixth)).toEqual([429, 'RATE_LIMITED'])
    expect(sixth.body.error.retry_after_ms).toBeGreaterThan(0)
    expect((await begin(user.userId, { code })).answer.status).toBe(200)
  })
})

describe('recovery codes [I-6.3]', () => {
  it('are stored by the primary alone, and under the identity key’s signature', async () => {
    const user = await Client.register(relay)
    const second = await user.link()
    expect(refusalOf(await storeCode(second, newCode()))).toEqual([403, 'FORBIDDEN'])
    const code = newCode()
    expect(refusalOf(await storeCode(user, code, { signer: new TestDevice() }))).toEqual([400, 'INVALID_REQUEST'])
    expect(refusalOf((await begin(user.userId, { code })).answer)).toEqual([403, 'FORBIDDEN'])
  })

  it('are stored at a time near the relay’s, and a signature for one says nothing of another', async () => {
    const user = await Client.register(relay)
    const code = newCode()
    for (const nowMs of [Date.now() - 660_000, Date.now() + 660_000])
      expect(refusalOf(await storeCode(user, code, { nowMs }))).toEqual([400, 'INVALID_REQUEST'])
    const other = await Client.register(relay)
    // The same words by another user’s key, under this user’s token.
    expect(refusalOf(await storeCode(user, code, { signer: other.device }))).toEqual([400, 'INVALID_REQUEST'])
    const removal = {
      recovery_code_hash: null,
      timestamp_ms: Date.now(),
      signature: Buffer.alloc(64).toString('base64'),
    }
    expect(refusalOf(await user.put('/v1/recovery-code', removal))).toEqual([400, 'INVALID_REQUEST'])
    expect((await storeCode(user, code)).status).toBe(204)
  })

  it('and what else is secret stand in no log line', async () => {
    const user = await Client.register(relay)
    const code = await withCode(user)
    await begin(user.userId, { code: newCode() })
    const next = await begunAnew(relay, user.userId, { code })
    const hash = createHash('sha256').update(code).digest()
    const log = relay.logged.join('\n')
    for (const secret of [code, hash.toString('base64'), hash.toString('hex'), next.secret])
      expect(log).not.toContain(secret)
  })

  it('are gone when they are removed, and with every new identity', async () => {
    const user = await Client.register(relay)
    const removed = await withCode(user)
    expect((await storeCode(user, null)).status).toBe(204)
    expect(refusalOf((await begin(user.userId, { code: removed })).answer)).toEqual([403, 'FORBIDDEN'])
    const code = await withCode(user)
    expect((await begin(user.userId, { oldKey: user.device })).answer.status).toBe(200)
    expect(refusalOf((await begin(user.userId, { code })).answer)).toEqual([403, 'FORBIDDEN'])
  })
})

it('former devices end: tokens, secrets, sockets, keys and queues; conversations stay [I-6.4]', async () => {
  const [user, peer] = [await Client.register(relay), await Client.register(relay)]
  const second = await user.link()
  const conversation = await user.direct(peer)
  const sockets = await Promise.all([user, second].map((each) => each.live()))
  const closed = Promise.all(sockets.map((each) => each.end()))
  const { answer, device } = await begin(user.userId, { oldKey: user.device })
  expect(await closed).toEqual([4401, 4401])
  for (const former of [user, second]) {
    expect((await former.get('/v1/devices')).status).toBe(401)
    await expect(former.refresh()).rejects.toThrow()
  }
  device.userId = user.userId
  const bundle = await peer.get(`/v1/keys/${user.userId}/*`)
  expect(bundle.body.identity_key).toBe(Buffer.from(device.identityKey).toString('base64'))
  expect(bundle.body.devices.map((each: { device_id: number }) => each.device_id)).toEqual([1])
  expect((await peer.get(`/v1/conversations/${conversation}`)).body.members).toHaveLength(2)
  const [queues] = await relay.db.database.sql`
    select count(*)::int as n from device_locks where device_key not in (select device_key from devices)`
  expect(queues!.n).toBe(0)
  expect(answer.status).toBe(200)
})

it('two with one code: one begins anew, the other is refused', async () => {
  const user = await Client.register(relay)
  const code = await withCode(user)
  const both = await Promise.all([begin(user.userId, { code }), begin(user.userId, { code })])
  expect(both.map(({ answer }) => answer.status).sort()).toEqual([200, 403])
})

describe('who is told [V-5]', () => {
  it('everybody who shares a conversation, once; nobody else', async () => {
    const [user, friend, stranger] = await Promise.all([1, 2, 3].map(() => Client.register(relay)))
    await user!.direct(friend!)
    await friend!.direct(stranger!)
    const [friends, strangers] = await Promise.all([friend!.live(), stranger!.live()])
    const { device } = await begin(user!.userId, { oldKey: user!.device })
    const { identityChanged } = (await friends.next('envelope')).systemEvent!
    expect(Buffer.from(identityChanged!.userId!)).toEqual(Buffer.from(uuidToBytes(user!.userId)))
    expect(Buffer.from(identityChanged!.identityKey!)).toEqual(Buffer.from(device.identityKey))
    await friends.fence()
    await strangers.fence()
    for (const each of [friends, strangers]) expect(each.envelopes()).toEqual([])
  })

  it('what a node left untold when it ended is told by the next that starts', async () => {
    const [user, friend] = await Promise.all([Client.register(relay), Client.register(relay)])
    await user!.direct(friend!)
    const socket = await friend!.live()
    await relay.db.database.sql`insert into identity_news (user_id, identity_key, changed_at)
      values (${user!.userId}, ${Buffer.from(user!.device.identityKey)}, now())`
    const next = await testRelay({ db: relay.db })
    // Its own node hears nothing of it, and looks again within 5 s.
    expect((await socket.next('envelope')).systemEvent!.identityChanged).toBeTruthy()
    await next.close()
  })
})
