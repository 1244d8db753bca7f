// What a user shows of himself: reading and changing it, and that presence follows. [H-10] [G-2.3]
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openLocalHub } from '../../server/bus/local.ts'
import { openLocalPresence } from '../../server/bus/presence.ts'
import { Client, request, type Socket } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { inTime, pass, told, unasked, watch } from '../support/signals.ts'

const time = new FakeTime()
const shared = openLocalPresence()
const outside = shared()
const nodes = {
  bus: openLocalHub((error) => {
    throw error
  }),
  presence: shared,
}
let relay: TestRelay
let far: TestRelay
let [ann, bob]: Client[] = []
beforeAll(async () => {
  relay = await testRelay({ time, nodes })
  far = await testRelay({ time, nodes, db: relay.db })
})
afterAll(async () => {
  await far.close()
  await relay.close()
})
beforeEach(async () => {
  time.set(Date.now())
  ;[ann, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
})
const elsewhere = (client: Client | undefined): Client => Object.assign(Object.create(client!), { url: far.url })

describe('GET and PATCH /v1/settings', () => {
  const all = { read_receipts: true, presence: true }

  it('everything is on at first; a change names what it changes and is answered with all', async () => {
    expect(await ann!.get('/v1/settings')).toMatchObject({ status: 200, body: all })
    expect((await ann!.patch('/v1/settings', { presence: false })).body).toEqual({ ...all, presence: false })
    expect((await ann!.patch('/v1/settings', { read_receipts: false })).body).toEqual({
      read_receipts: false,
      presence: false,
    })
    expect((await ann!.patch('/v1/settings', {})).body).toEqual({ read_receipts: false, presence: false })
    expect((await ann!.patch('/v1/settings', all)).body).toEqual(all)
    expect((await ann!.get('/v1/settings')).body).toEqual(all)
    expect((await bob!.get('/v1/settings')).body).toEqual(all)
  })

  it('holds for all devices of the user', async () => {
    const second = await ann!.link()
    await second.patch('/v1/settings', { read_receipts: false })
    expect((await ann!.get('/v1/settings')).body.read_receipts).toBe(false)
  })

  it.each([
    [{ presence: 'no' }, /presence/],
    [{ presence: null }, /presence/],
    [{ typing: false }, /typing/],
    [{ 'read_receipts ': true }, /read_receipts /],
  ])('%j is INVALID_REQUEST naming the field, and changes nothing', async (json, named) => {
    const { status, body } = await ann!.patch('/v1/settings', json)
    expect([status, body.error.code]).toEqual([400, 'INVALID_REQUEST'])
    expect(body.error.message).toMatch(named)
    expect((await ann!.get('/v1/settings')).body).toEqual(all)
  })

  it('without a token it is UNAUTHENTICATED; too often RATE_LIMITED', async () => {
    expect((await request(relay.url, 'PATCH', '/v1/settings', { json: {} })).status).toBe(401)
    for (let i = 0; i < 20; i++) expect((await ann!.patch('/v1/settings', {})).status).toBe(200)
    const { status, body } = await ann!.patch('/v1/settings', {})
    expect([status, body.error.code, body.error.retry_after_ms]).toEqual([429, 'RATE_LIMITED', 10_000])
    expect((await ann!.get('/v1/settings')).status).toBe(200)
  })
})

describe('presence switched off [G-2.3]', () => {
  let sockets: Socket[]
  beforeEach(async () => {
    await ann!.direct(bob!)
    sockets = [await ann!.live(), await elsewhere(bob).live()]
    while ((await outside.online([ann!.userId, bob!.userId])).size < 2) await sockets[0]!.fence()
    return async () => {
      await Promise.all(sockets.map((each) => each.close()))
      await pass(time, 4_000)
    }
  })

  it('one is offline to everybody and everybody to oneself, at once and in both directions; and back', async () => {
    const [a, b] = sockets as [Socket, Socket]
    const [annIs, bobIs] = [ann!, bob!].map((who) => (isOnline: boolean) => ({ [who.userId]: isOnline }))
    expect(await watch(a, bob!, ann!)).toEqual({ ...bobIs!(true), ...annIs!(true) })
    expect(await watch(b, ann!)).toEqual(annIs!(true))
    // Of herself she learns from the presence store, of him from the database: in one frame or in two.
    const bothTold = async () => {
      const seen = await told(a)
      return Object.keys(seen).length > 1 ? seen : { ...seen, ...(await told(a)) }
    }
    await ann!.patch('/v1/settings', { presence: false })
    expect(await inTime(time, told(b))).toEqual(annIs!(false))
    expect(await inTime(time, bothTold())).toEqual({ ...bobIs!(false), ...annIs!(false) })
    expect(await watch(a, bob!, ann!)).toEqual({ ...bobIs!(false), ...annIs!(false) })
    expect(await watch(b, ann!)).toEqual(annIs!(false))
    await ann!.patch('/v1/settings', { presence: true })
    expect(await inTime(time, told(b))).toEqual(annIs!(true))
    expect(await inTime(time, bothTold())).toEqual({ ...bobIs!(true), ...annIs!(true) })
  })

  it('who hides and connects is not there, on whatever device', async () => {
    const [a, b] = sockets as [Socket, Socket]
    await ann!.patch('/v1/settings', { presence: false })
    while ((await outside.online([ann!.userId])).size) await a.fence()
    await watch(b, ann!)
    const second = await (await ann!.link()).live()
    sockets.push(second)
    await a.close()
    const third = await Client.register(relay)
    const c = await third.live()
    sockets.push(c)
    // Whoever came after her is there, so she would be.
    while (!(await outside.online([third.userId])).size) await c.fence()
    await pass(time, 5_000)
    expect((await outside.online([ann!.userId])).size).toBe(0)
    expect(await unasked(b, 'presence')).toEqual([])
  })

  it('switching it on and off and on again ends as it was said last', async () => {
    const [, b] = sockets as [Socket, Socket]
    await watch(b, ann!)
    for (const presence of [false, true, false, true, false]) await ann!.patch('/v1/settings', { presence })
    expect(await inTime(time, told(b))).toEqual({ [ann!.userId]: false })
    await pass(time, 5_000)
    expect(await unasked(b, 'presence')).toEqual([])
    expect((await outside.online([ann!.userId])).size).toBe(0)
  })
})
