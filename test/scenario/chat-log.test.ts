// A whole conversation, with everything that can go wrong in it, leaves nothing secret in the log or the metrics. I16
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidFromBytes, uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { deviceKeyOf } from '../support/backlog.ts'
import { Client, enrolmentJson, request } from '../support/client.ts'
import { TestDevice } from '../support/keys.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { upgrade } from '../support/upgrade.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

/** What must be nowhere, by name. */
const secrets = new Map<string, Uint8Array>()
const secret = (name: string, bytes = 48): Uint8Array => {
  const made = randomBytes(bytes)
  secrets.set(name, made)
  return made
}
const text = (name: string, value: string): string => {
  secrets.set(name, Buffer.from(value))
  return value
}

/** Forms a value could have in a line; long ones are looked for by a piece, since a line may cut them. */
function forms(value: Uint8Array): string[] {
  const bytes = Buffer.from(value)
  const piece = bytes.subarray(3, 27)
  const all = [bytes, piece].flatMap((each) => [
    each.toString('hex'),
    each.toString('latin1'),
    JSON.stringify([...each]),
  ])
  // Base64 of a piece depends on where it begins.
  for (const skip of [0, 1, 2]) {
    const middle = bytes.subarray(skip)
    all.push(middle.toString('base64').slice(0, 24), middle.toString('base64url').slice(0, 24))
  }
  if (bytes.length === 16) all.push(uuidFromBytes(bytes))
  return all.filter((each) => each.length >= 16)
}

it('no content, token, secret, key, link code, username hash or URL is logged or counted', async () => {
  const { sql } = relay.db.database
  const clients = await Promise.all(Array.from({ length: 3 }, () => Client.register(relay)))
  const [alice, bob, carol] = clients as [Client, Client, Client]
  for (const [i, each] of clients.entries()) {
    text(`token ${i}`, each.token.split('.')[2]!)
    text(`whole token ${i}`, each.token)
    secrets.set(`device secret ${i}`, Buffer.from(each.secret, 'base64url'))
    text(`device secret ${i} as sent`, each.secret)
    secrets.set(`identity private key ${i}`, each.device.identity.privateKey.serialize())
    secrets.set(`identity key ${i}`, each.device.identityKey)
  }

  // The conversation, live and from the queue.
  const group = await alice.group([bob, carol], text('group name', randomBytes(24).toString('hex')))
  const signedChange = Buffer.from(secret('signed change')).toString('base64')
  expect((await alice.patch(`/v1/conversations/${group}`, { name: 'n', signed_change: signedChange })).status).toBe(200)
  const [from, to] = [await alice.live(), await bob.live()]
  const url = text('attachment url', `https://files.example/${randomBytes(24).toString('hex')}`)
  const more = { attachmentUrl: url, thumbnailUrl: url }
  await from.send(group, [{ ...bob.to(secret('content')), iv: secret('iv') }, carol.to(secret('other content'))], more)
  await to.ack((await to.next('envelope')).messageId)
  await (await carol.connect()).drain()

  // Refusals of all kinds, with something secret in each.
  await from.send(group, [bob.to(secret('mismatched content'))])
  await from.send(uuidFromBytes(uuidToBytes(uuidV7(0))), [bob.to(secret('lost content'))])
  await from.ask({ reauthenticate: { token: text('bad token', randomBytes(48).toString('base64url')) } })
  from.ws.send(Buffer.concat([Buffer.from([0x08, 0x63, 0x22, 0x60]), secret('malformed frame')]))
  from.ws.send(Buffer.from(secret('text frame')).toString('hex'))
  await from.fence()
  const headers = { Authorization: `Bearer ${text('refused token', randomBytes(48).toString('base64url'))}` }
  expect((await upgrade(relay.socketUrl, { headers })).status).toBe(401)
  const subprotocols = ['sealpost.v1', `bearer.${text('refused subprotocol', randomBytes(48).toString('base64url'))}`]
  expect((await upgrade(relay.socketUrl, { subprotocols })).status).toBe(401)
  await upgrade(`${relay.socketUrl}?token=${text('query', randomBytes(24).toString('hex'))}`)
  await request(relay.url, 'GET', '/v1/devices', { headers })
  const hash = Buffer.from(secret('username hash', 32)).toString('base64url')
  await alice.get(`/v1/usernames/${hash}`)
  await alice.put('/v1/keys', {
    signed_prekey: { key_id: 5, public_key: text('bad key', randomBytes(33).toString('base64')) },
  })

  // Linking, and a registration that is refused.
  const { body } = await alice.post('/v1/devices/link-code')
  text('link code', body.link_code)
  await request(relay.url, 'POST', '/v1/devices', {
    json: {
      ...enrolmentJson(new TestDevice(), relay.realm, { linkCode: body.link_code }),
      user_id: alice.userId,
      link_code: 'x',
    },
  })
  const wrong = {
    ...enrolmentJson(new TestDevice(), 'https://elsewhere.test'),
    invitation: text('invitation', randomBytes(24).toString('hex')),
  }
  expect((await request(relay.url, 'POST', '/v1/accounts', { json: wrong })).status).toBe(400)
  const form = {
    grant_type: 'client_credentials',
    client_id: `${alice.userId}.1`,
    client_secret: text('wrong secret', randomBytes(32).toString('base64url')),
  }
  await request(relay.url, 'POST', '/oauth/token', {
    body: new URLSearchParams(form).toString(),
    headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
  })

  // The database's own errors quote rows and parameters.
  const key = await deviceKeyOf(sql, carol)
  const poisoned = [bob.to(secret('poisoned content')), carol.to(secret('other poisoned content'))]
  await sql.unsafe(
    `alter table message_deliveries_waiting add constraint poison check (device_key <> ${key}) not valid`,
  )
  expect((await from.send(group, poisoned, more)).error?.code).toBe(sealpost.v1.ErrorCode.ERROR_CODE_INVALID_REQUEST)
  await sql`alter table message_deliveries_waiting drop constraint poison`
  await sql`alter table messages rename to gone`
  const broken = [bob.to(secret('broken content')), carol.to(secret('other broken content'))]
  expect((await from.send(group, broken, more)).error?.code).toBe(sealpost.v1.ErrorCode.ERROR_CODE_INTERNAL)
  await sql`alter table gone rename to messages`
  await Promise.all([from.close(), to.close()])

  const metrics = (await request(relay.url, 'GET', '/metrics')).body as string
  const lines = [...relay.logged, metrics]
  // It did log: every kind of event, and the errors.
  for (const event of ['connect', 'disconnect', 'send', 'deliver', 'ack', 'refuse', 'unauthorized'])
    expect(
      relay.logged.some((line) => JSON.parse(line).event === event),
      event,
    ).toBe(true)
  expect(relay.logged.some((line) => line.includes('poison'))).toBe(true)
  expect(relay.logged.some((line) => line.includes('\\"messages\\" does not exist'))).toBe(true)

  expect(secrets.size).toBeGreaterThan(30)
  for (const [name, value] of secrets)
    for (const form of forms(value)) {
      const found = lines.find((line) => line.includes(form))
      expect(found && `${name} in ${found}`).toBe(undefined)
    }
})
