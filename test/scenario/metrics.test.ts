// What /metrics says after traffic: numbers of what really happened, told apart by kind. O2
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { openObserve } from '../../server/observe.ts'
import { sweep } from '../../server/sweep.ts'
import { Client, request } from '../support/client.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const DAY = 24 * 3600 * 1000
const TOKEN = randomBytes(16).toString('hex')
const config = { metricsToken: TOKEN, queue: { maxMessages: 10, ttlMs: 30 * DAY } }

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay({ config })
})
afterAll(() => relay?.close())

/** Samples of our own metrics by name and labels, without the sealpost_ before and the _total behind. */
async function read({ url }: TestRelay): Promise<Record<string, number>> {
  const { status, body } = await request(url, 'GET', '/metrics', { token: TOKEN })
  expect(status).toBe(200)
  const samples = [...String(body).matchAll(/^sealpost_(\w+?)(?:_total)?(\{.*\})? (\S+)$/gm)]
  return Object.fromEntries(samples.map(([, name, labels, value]) => [name + (labels ?? ''), Number(value)]))
}

test('without the token there is no such endpoint', async () => {
  expect((await request(relay.url, 'GET', '/metrics')).status).toBe(404)
})

test('a group with one who is offline: every number is what happened', async () => {
  const [alice, bob, carol] = await Promise.all([1, 2, 3].map(() => Client.register(relay)))
  const group = await alice!.group([bob!, carol!])
  // Its creation waits for everybody as an event.
  const [a, b] = [await alice!.live(), await bob!.live()]
  const before = await read(relay)
  expect(before).toMatchObject({ connections: 2, 'frames_out{kind="hello"}': 2, 'frames_in{kind="sync"}': 2, acks: 2 })

  // Carol's queue has room for ten messages; events do not count. Bob acks in between.
  const send = (more = {}) => a.send(group, [bob!.to(), carol!.to()], more)
  for (let i = 0; i < 10; i++) await send()
  const ten = []
  while (ten.length < 10) ten.push((await b.next('envelope')).messageId)
  // Each row ends once, however often it is named; an unknown id ends nothing.
  await b.ack(...ten, ten[0], randomBytes(16))
  await b.ack(ten[0])
  const clientMessageId = uuidToBytes(uuidV7(Date.now()))
  for (let i = 0; i < 3; i++) await send({ clientMessageId })
  await a.send(group, [bob!.to()])
  a.ws.send(Buffer.from('not a frame'))
  await a.next('error')
  await b.next('envelope')
  await b.fence()

  const after = await read(relay)
  const grown = Object.fromEntries(Object.entries(after).map(([name, value]) => [name, value - (before[name] ?? 0)]))
  expect(grown).toMatchObject({
    'frames_in{kind="send"}': 14,
    'frames_in{kind="ack"}': 3,
    'frames_in{kind="malformed"}': 1,
    'frames_out{kind="messageAccepted"}': 13,
    'frames_out{kind="envelope"}': 11,
    'frames_out{kind="ackCommitted"}': 3,
    'frames_out{kind="error"}': 2,
    'frames_refused{kind="send",code="DEVICE_MISMATCH"}': 1,
    'frames_refused{kind="malformed",code="INVALID_REQUEST"}': 1,
    ...{ messages_accepted: 11, messages_duplicate: 2, deliveries_skipped: 1 },
    ...{ deliveries: 11, acks: 10, connections: 0 },
  })
  expect(after.writer_queue_messages).toBe(0)
  await Promise.all([a.close(), b.close()])
  expect(await read(relay)).toMatchObject({ connections: 0 })

  // Carol never came: what waited for her a month later is counted by the node that sweeps it. Eleven of hers, one of Bob's.
  const observe = openObserve({ level: 'silent', format: 'json', write: () => {} })
  const { sql } = relay.db.database
  const swept = await sweep({ sql, observe, clock: () => Date.now() + 31 * DAY, ttlMs: 30 * DAY })
  expect(swept).toEqual({ expired: 12 })
  expect((await observe.exposition()).text).toContain('sealpost_deliveries_expired_total 12')
})

test('bundles are counted by the keys that left in them', async () => {
  const asking = await Client.register(relay)
  const [full, x3dh] = [await Client.register(relay, { oneTime: 1 }), await Client.register(relay, { kyber: false })]
  for (const { userId } of [full, full, full, x3dh]) await asking.get(`/v1/keys/${userId}/1`)
  await asking.post('/v1/keys/bundles', { targets: [{ user_id: x3dh.userId, device_id: 1 }] })
  expect(await read(relay)).toMatchObject({
    'bundles{ec="one_time",kyber="one_time"}': 1,
    'bundles{ec="none",kyber="one_time"}': 1,
    'bundles{ec="none",kyber="last_resort"}': 1,
    'bundles{ec="one_time",kyber="none"}': 2,
  })
})
