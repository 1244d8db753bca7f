// A subject of an outside issuer: what his token opens, and what it must not touch. [T-5] [I-4.4]
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startOutsideIssuer } from '../server/outside-issuer.ts'
import { Client, enrolmentJson, request } from '../support/client.ts'
import { TestDevice } from '../support/keys.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

let issuer: Awaited<ReturnType<typeof startOutsideIssuer>>
let relay: TestRelay
beforeAll(async () => {
  issuer = await startOutsideIssuer(Date.now())
  relay = await testRelay({ config: { registration: 'issuer', issuer: issuer.config } })
})
afterAll(async () => {
  await relay.close()
  issuer.close()
})

it("another subject's token neither waits for a user's locks nor takes them (I13)", async () => {
  const victim = await Client.register(relay, { bearer: await issuer.sign({ sub: 'victim' }) })
  const token = await issuer.sign({ sub: 'mallory' })
  const link = (userId: string) =>
    request(relay.url, 'POST', '/v1/devices', {
      json: { ...enrolmentJson(new TestDevice(), relay.realm, { linkCode: '' }), user_id: userId },
      token,
    })
  await relay.db.database.sql.begin(async (tx) => {
    await tx`set local idle_in_transaction_session_timeout = 0`
    await tx`select 1 from accounts where user_id = ${victim.userId} for share`
    const [known, unknown] = await Promise.all([link(victim.userId), link(randomUUID())])
    expect([known.status, known.body]).toEqual([unknown.status, unknown.body])
  })
})

it('a registration whose answer was lost is found again by its subject, with the identity key', async () => {
  const device = new TestDevice()
  const token = await issuer.sign({ sub: 'unlucky' })
  const json = enrolmentJson(device, relay.realm)
  expect((await request(relay.url, 'POST', '/v1/accounts', { json, token })).status).toBe(201)
  expect((await request(relay.url, 'POST', '/v1/accounts', { json, token })).status).toBe(409)
  const again = new TestDevice({ identity: device.identity })
  const linked = enrolmentJson(again, relay.realm, { linkCode: '' })
  expect((await request(relay.url, 'POST', '/v1/devices', { json: linked, token })).status).toBe(201)
})
