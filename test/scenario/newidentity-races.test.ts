// A new identity beside sends, links, uploads, registrations and another new identity: each sees the old user or the new one,
// nothing between. The barrier is a lock held by somebody else; what runs into it gets it in its order. [I-6] I8 I9
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import type { Transaction } from '../../server/database.ts'
import { holdLocks } from '../server/barrier.ts'
import { beginAnew, begunAnew, newCode, refusalOf, storeCode, withCode } from '../support/anew.ts'
import { deviceKeyOf, waitingFor } from '../support/backlog.ts'
import { Client, enrolmentJson, idOf, request, type ServerFrame, type Socket } from '../support/client.ts'
import { prekeyJson } from '../support/enrolment.ts'
import { TestDevice } from '../support/keys.ts'
import { queueFaults } from '../support/node.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { allRows } from '../support/rows.ts'

const { ErrorCode } = sealpost.v1

let relay: TestRelay
let alice: Client
let bob: Client
let phone: Client
let carol: Client
let from: Socket
let direct: string
let group: string
beforeAll(async () => {
  relay = await testRelay({ lockMs: 60_000 })
})
beforeEach(async () => {
  ;[alice, bob, carol] = await Promise.all([Client.register(relay), Client.register(relay), Client.register(relay)])
  phone = await bob.link()
  ;[direct, group] = [await alice.direct(bob), await alice.group([bob, carol])]
  from = await alice.live()
  // The roster is cached from here on: what is decided on it is stale in every race below.
  expect((await from.send(direct, [bob.to(), phone.to()])).messageAccepted).toBeTruthy()
  expect((await from.send(group, [bob.to(), phone.to(), carol.to()])).messageAccepted).toBeTruthy()
})
afterEach(async () => {
  await from.close()
  // What is left to tell is told after the answer: it would run into the next story's lock, and change rows that are compared. [V-5]
  while ((await relay.db.database.sql`select 1 from identity_news`).length > 0);
  expect(await queueFaults(relay.db.database.sql)).toEqual([])
})
afterAll(() => relay?.close())

const begin = (oldKey = bob.device) => beginAnew(relay, bob.userId, { oldKey })

/** All run into what is locked, in this order. */
async function inOrder<const Steps extends (() => Promise<unknown>)[]>(
  hold: (tx: Transaction) => Promise<unknown>,
  ...steps: Steps
): Promise<{ [At in keyof Steps]: Awaited<ReturnType<Steps[At]>> }> {
  const held = await holdLocks(relay.db.database.sql, hold)
  const begun: Promise<unknown>[] = []
  for (const step of steps) {
    begun.push(step())
    await held.waiting(begun.length)
  }
  await held.release()
  return Promise.all(begun) as never
}
const queueOf = (client: Client) => async (tx: Transaction) => {
  const key = await deviceKeyOf(relay.db.database.sql, client)
  await tx`select 1 from device_locks where device_key = ${key} for no key update`
}
const accountOf = (client: Client) => (tx: Transaction) =>
  tx`select 1 from accounts where user_id = ${client.userId} for update`
/** Where a new identity stands with all of its writes done but the last. */
const lastStep = (tx: Transaction) => tx`lock table identity_news in exclusive mode`

const ids = (list: sealpost.v1.DeviceAddress.$Properties[] | null | undefined) =>
  (list ?? []).map((each) => `${idOf(each.userId)}.${each.deviceId}`).sort()
const sent = async () => {
  const [row] = await relay.db.database.sql`select count(*)::int as n from messages where sender_type = 1`
  return row!.n as number
}

describe('a send and its recipient’s new identity', () => {
  it('new identity first: device 1 is stale, the other is extra, nothing is stored; addressed anew it arrives', async () => {
    const before = await sent()
    const [{ answer, device }, refused] = await inOrder(queueOf(bob), begin, () =>
      from.send(group, [bob.to(), phone.to(), carol.to()]),
    )
    expect(refused.error?.code).toBe(ErrorCode.ERROR_CODE_DEVICE_MISMATCH)
    const { missing, extra, stale } = refused.error!.deviceMismatch!
    expect([ids(missing), ids(extra), ids(stale)]).toEqual([[], [`${bob.userId}.2`], [`${bob.userId}.1`]])
    expect(stale![0]!.registrationId).toBe(device.registrationId)
    expect(await sent()).toBe(before)
    const next = await Client.enrolled(relay, device, answer)
    const accepted = await from.send(group, [next.to(Buffer.from('anew')), carol.to()])
    const socket = await next.connect()
    const arrived = await socket.drain()
    expect(arrived.map((each) => each.ciphertext?.content?.toString())).toEqual(['anew'])
    expect(arrived[0]).toMatchObject({ sequence: 1, messageId: accepted.messageAccepted!.messageId })
    await socket.close()
  })

  it('sent first: accepted for the devices of then, and gone with them; others have it', async () => {
    const [answer, { answer: begun, device }] = await inOrder(
      queueOf(bob),
      () => from.send(group, [bob.to(), phone.to(), carol.to()]),
      begin,
    )
    expect(answer.messageAccepted).toBeTruthy()
    expect(await waitingFor(relay.db.database.sql, carol)).toContain(idOf(answer.messageAccepted!.messageId))
    const next = await Client.enrolled(relay, device, begun)
    const socket = await next.connect()
    expect(await socket.drain()).toEqual([])
    await socket.close()
  })

  it('the sender’s own, first: UNAUTHENTICATED or a closed socket, and nothing is stored', async () => {
    const before = await sent()
    const [, refused] = await inOrder(
      queueOf(alice),
      () => beginAnew(relay, alice.userId, { oldKey: alice.device }),
      // The socket may be closed before the refusal is written: either way there is no MessageAccepted.
      () => from.send(direct, [bob.to(), phone.to()]).catch((): ServerFrame | null => null),
    )
    if (refused) expect(refused.error?.code).toBe(ErrorCode.ERROR_CODE_UNAUTHENTICATED)
    expect(await from.end()).toBe(4401)
    expect(await sent()).toBe(before)
  })
})

describe('a link and a new identity', () => {
  const asking = async () => {
    const { body } = await bob.post('/v1/devices/link-code')
    const device = new TestDevice({ identity: bob.device.identity })
    const json = enrolmentJson(device, relay.realm, { linkCode: body.link_code, userId: bob.userId })
    return () => request(relay.url, 'POST', '/v1/devices', { json })
  }
  const devicesOf = async () => {
    const { sql } = relay.db.database
    const rows = await sql`select device_id from devices where user_id = ${bob.userId} order by device_id`
    return rows.map((row) => row.device_id)
  }

  it('linked first: the device goes with the others', async () => {
    const link = await asking()
    const [linked, { answer }] = await inOrder(queueOf(bob), link, begin)
    expect([linked.status, answer.status]).toEqual([201, 200])
    expect(await devicesOf()).toEqual([1])
    const form = new URLSearchParams({ grant_type: 'client_credentials', client_secret: linked.body.device_secret })
    form.set('client_id', `${bob.userId}.${linked.body.device_id}`)
    const headers = { 'Content-Type': 'application/x-www-form-urlencoded' }
    const token = await request(relay.url, 'POST', '/oauth/token', { body: form.toString(), headers })
    expect([token.status, token.body.error]).toEqual([401, 'invalid_client'])
    // Nor does its code let it in once more. [I-4.5]
    expect(refusalOf(await link())).toEqual([403, 'FORBIDDEN'])
  })

  it('new identity first: the code of the former primary lets nobody in', async () => {
    const link = await asking()
    const [{ answer }, linked] = await inOrder(queueOf(bob), begin, link)
    expect([answer.status, ...refusalOf(linked)]).toEqual([200, 403, 'FORBIDDEN'])
    expect(await devicesOf()).toEqual([1])
  })
})

describe('two new identities at once', () => {
  it('with one recovery code: the first has it, the second finds it used', async () => {
    const code = await withCode(bob)
    const again = () => beginAnew(relay, bob.userId, { code })
    const [first, second] = await inOrder(accountOf(bob), again, again)
    expect(first.answer.status).toBe(200)
    expect(refusalOf(second.answer)).toEqual([403, 'FORBIDDEN'])
    expect((await Client.enrolled(relay, first.device, first.answer)).token).not.toBe('')
  })

  it('against one old key: the first replaces it, the second is signed by nobody’s', async () => {
    const [first, second] = await inOrder(accountOf(bob), begin, begin)
    expect(first.answer.status).toBe(200)
    expect(refusalOf(second.answer)).toEqual([403, 'FORBIDDEN'])
  })
})

describe('while a new identity is about to commit', () => {
  it('its former key is taken by nobody [I-6.6]', async () => {
    const thief = new TestDevice({ identity: bob.device.identity })
    const [{ answer }, taken] = await inOrder(lastStep, begin, () =>
      request(relay.url, 'POST', '/v1/accounts', { json: enrolmentJson(thief, relay.realm) }),
    )
    expect([answer.status, ...refusalOf(taken)]).toEqual([200, 409, 'CONFLICT'])
  })

  it('a former device uploads no keys', async () => {
    const upload = () => bob.put('/v1/keys', { signed_prekey: prekeyJson(bob.device.makeSignedPrekey(2)) })
    const [{ answer }, uploaded] = await inOrder(lastStep, begin, upload)
    expect([answer.status, ...refusalOf(uploaded)]).toEqual([200, 404, 'NOT_FOUND'])
  })

  it('the former primary prepares no way back for itself [I-6.3]', async () => {
    const [{ answer, device }, stored] = await inOrder(lastStep, begin, () => storeCode(bob, newCode()))
    expect([answer.status, ...refusalOf(stored)]).toEqual([200, 401, 'UNAUTHENTICATED'])
    const { sql } = relay.db.database
    const [row] = await sql`select recovery_code_hash from accounts where user_id = ${bob.userId}`
    expect(row).toEqual({ recovery_code_hash: null })
    expect((await Client.enrolled(relay, device, answer)).deviceId).toBe(1)
  })

  it('and makes no code for a further device', async () => {
    const [{ answer }, code] = await inOrder(lastStep, begin, () => bob.post('/v1/devices/link-code'))
    expect([answer.status, ...refusalOf(code)]).toEqual([200, 401, 'UNAUTHENTICATED'])
  })
})

describe('a new identity that fails changes nothing', () => {
  it('cut off in its last step: every row, every socket, and the code are as they were', async () => {
    const { sql } = relay.db.database
    const code = await withCode(bob)
    const socket = await bob.connect()
    await from.send(direct, [bob.to(), phone.to()])
    const before = await allRows(sql)
    expect(before['public.message_deliveries_waiting']!.length).toBeGreaterThan(3)
    const held = await holdLocks(sql, lastStep)
    const cut = beginAnew(relay, bob.userId, { code })
    const [pid] = await held.waiting(1)
    // All its other writes are done, and nobody sees them.
    expect(await allRows(sql)).toEqual(before)
    await sql`select pg_terminate_backend(${pid!})`
    expect((await cut).answer.status).toBe(503)
    await held.release()
    expect(await allRows(sql)).toEqual(before)
    expect((await socket.drain()).filter((each) => each.ciphertext)).toHaveLength(3)
    expect((await phone.get('/v1/devices')).status).toBe(200)
    const next = await begunAnew(relay, bob.userId, { code })
    expect(await socket.end()).toBe(4401)
    expect(next.deviceId).toBe(1)
  })

  it('refused late, by a key that another device published: every row is as it was', async () => {
    const before = await allRows(relay.db.database.sql)
    const device = new TestDevice()
    const taken = carol.device.makeSignedPrekey(2)
    expect((await carol.put('/v1/keys', { signed_prekey: prekeyJson(taken) })).status).toBe(200)
    // The new device brings Carol's signed prekey, under its own signature.
    device.makeSignedPrekey = (keyId) => ({
      keyId,
      publicKey: taken.publicKey,
      signature: device.sign(taken.publicKey),
    })
    const published = await allRows(relay.db.database.sql)
    expect(published).not.toEqual(before)
    const { answer } = await beginAnew(relay, bob.userId, { oldKey: bob.device, device })
    expect(refusalOf(answer)).toEqual([409, 'CONFLICT'])
    expect(await allRows(relay.db.database.sql)).toEqual(published)
    expect((await bob.get('/v1/devices')).body.devices).toHaveLength(2)
  })
})
