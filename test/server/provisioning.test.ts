// The provisioning channel over real sockets: who waits, what is handed, once, and what is bounded. [I-5] [H-10]
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { openLocalMeters } from '../../keys/meter.ts'
import { CLOSE } from '../../server/connection.ts'
import { openProvisioning } from '../../server/provisioning.ts'
import { openRendezvous } from '../../server/rendezvous.ts'
import { sourceOf } from '../../server/source.ts'
import { Client, type HttpAnswer, request } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const PROVISION_MAX_BYTES = 65_536

let relay: TestRelay
const time = new FakeTime()
beforeAll(async () => {
  relay = await testRelay({ time })
})
afterAll(() => relay?.close())

const newAddress = (): string => randomBytes(16).toString('base64url')
const pathOf = (address: string): string => `/v1/provisioning/${address}`

type Waiter = { ws: WebSocket; messages: { data: Buffer; isBinary: boolean }[]; ended: Promise<number> }

const knock = (address: string, url = relay.url): WebSocket =>
  new WebSocket(`${url.replace(/^http/, 'ws')}${pathOf(address)}`, { perMessageDeflate: false })

/** A new device that waits at the address. @throws when it is refused. */
async function waitAt(address: string, url?: string): Promise<Waiter> {
  const ws = knock(address, url)
  const messages: Waiter['messages'] = []
  ws.on('message', (data: Buffer, isBinary) => messages.push({ data, isBinary }))
  const ended = new Promise<number>((resolve) => ws.on('close', resolve))
  await once(ws, 'open')
  ws.on('error', () => {})
  return { ws, messages, ended }
}

/** How the relay refuses the wait. */
async function refusedAt(address: string): Promise<{ status: number; code: string }> {
  const ws = knock(address)
  ws.on('error', () => {})
  const [, answer] = await once(ws, 'unexpected-response')
  const body = Buffer.concat(await answer.toArray()).toString()
  return { status: answer.statusCode, code: JSON.parse(body).error.code }
}

/** Everything the relay sent before now has arrived. */
async function fence({ ws }: Waiter): Promise<void> {
  const answered = once(ws, 'pong')
  ws.ping()
  await answered
}

const hand = (from: Client, address: string, sealed: Uint8Array): Promise<HttpAnswer> =>
  from.put(pathOf(address), { message: Buffer.from(sealed).toString('base64') })

const outcome = ({ status, body }: HttpAnswer) => [status, body?.error?.code ?? null]
const NOBODY = [404, 'NOT_FOUND']

describe('what is handed over', () => {
  test('arrives as it is, in one binary message, and ends the wait with 1000; a second time nobody is there', async () => {
    const alice = await Client.register(relay)
    const address = newAddress()
    const waiter = await waitAt(address)
    const sealed = randomBytes(300)
    expect(outcome(await hand(alice, address, sealed))).toEqual([204, null])
    expect(await waiter.ended).toBe(1000)
    expect(waiter.messages).toEqual([{ data: sealed, isBinary: true }])
    expect(outcome(await hand(alice, address, sealed))).toEqual(NOBODY)
  })

  test('reaches no other address, and nobody where nobody waits', async () => {
    const alice = await Client.register(relay)
    const waiter = await waitAt(newAddress())
    expect(outcome(await hand(alice, newAddress(), randomBytes(10)))).toEqual(NOBODY)
    await fence(waiter)
    expect(waiter.messages).toEqual([])
    waiter.ws.close()
    expect(await waiter.ended).toBe(1005)
  })

  test('by two at once, one of them does it', async () => {
    const [alice, bob] = [await Client.register(relay), await Client.register(relay)]
    const address = newAddress()
    const waiter = await waitAt(address)
    const sealed = [randomBytes(50), randomBytes(50)]
    const answers = await Promise.all([hand(alice, address, sealed[0]!), hand(bob, address, sealed[1]!)])
    expect(await waiter.ended).toBe(1000)
    const won = answers.findIndex(({ status }) => status === 204)
    expect(outcome(answers[1 - won]!)).toEqual(NOBODY)
    expect(waiter.messages.map(({ data }) => data)).toEqual([sealed[won]])
  })

  test('is at least a byte and at most 64 KiB; what is refused leaves the wait as it was', async () => {
    const alice = await Client.register(relay)
    const address = newAddress()
    const waiter = await waitAt(address)
    expect(outcome(await hand(alice, address, new Uint8Array(0)))).toEqual([400, 'INVALID_REQUEST'])
    expect(outcome(await hand(alice, address, randomBytes(PROVISION_MAX_BYTES + 1)))).toEqual([413, 'TOO_LARGE'])
    expect(outcome(await hand(alice, address, randomBytes(3 * PROVISION_MAX_BYTES)))).toEqual([413, 'TOO_LARGE'])
    expect(outcome(await alice.put(pathOf(address), { message: '?' }))).toEqual([400, 'INVALID_REQUEST'])
    expect(outcome(await alice.put(pathOf(address), {}))).toEqual([400, 'INVALID_REQUEST'])
    await fence(waiter)
    expect(waiter.messages).toEqual([])
    const most = randomBytes(PROVISION_MAX_BYTES)
    expect(outcome(await hand(alice, address, most))).toEqual([204, null])
    expect(await waiter.ended).toBe(1000)
    expect(waiter.messages[0]!.data.equals(most)).toBe(true)
  })

  test('comes from a device: without a token it is UNAUTHENTICATED', async () => {
    const address = newAddress()
    const waiter = await waitAt(address)
    const json = { message: randomBytes(8).toString('base64') }
    expect(outcome(await request(relay.url, 'PUT', pathOf(address), { json }))).toEqual([401, 'UNAUTHENTICATED'])
    await fence(waiter)
    expect(waiter.messages).toEqual([])
    waiter.ws.close()
  })

  test('10 times in a row, then one every 30 s', async () => {
    const alice = await Client.register(relay)
    for (let n = 0; n < 10; n++) expect(outcome(await hand(alice, newAddress(), Buffer.of(1)))).toEqual(NOBODY)
    const waiter = await waitAt(newAddress())
    const limited = await hand(alice, newAddress(), Buffer.of(1))
    expect(outcome(limited)).toEqual([429, 'RATE_LIMITED'])
    expect(limited.body.error.retry_after_ms).toBe(30_000)
    time.advance(30_000)
    expect(outcome(await hand(alice, newAddress(), Buffer.of(1)))).toEqual(NOBODY)
    expect(outcome(await hand(alice, newAddress(), Buffer.of(1)))).toEqual([429, 'RATE_LIMITED'])
    waiter.ws.close()
  })

  test('stands in no log line, nor does the address', async () => {
    const alice = await Client.register(relay)
    const address = newAddress()
    const sealed = randomBytes(64)
    const waiter = await waitAt(address)
    await refusedAt(address)
    await hand(alice, address, sealed)
    await waiter.ended
    await hand(alice, address, sealed)
    const lines = relay.logged.join('\n')
    expect(lines).toContain('/v1/provisioning/:address')
    for (const secret of [address, sealed.toString('base64'), sealed.toString('base64url'), sealed.toString('hex')])
      expect(lines.includes(secret)).toBe(false)
  })
})

describe('an address', () => {
  const address = newAddress()
  // The last of 22 characters carries two bits: any other than A, Q, g, w is another spelling of the same bytes.
  const bad = [
    address.slice(1),
    `${address}A`,
    `${address}==`,
    `${address.slice(0, -1)}B`,
    `${address.slice(0, -2)}+A`,
    `${address.slice(0, -3)}%41A`,
  ]
  test.each(bad.map((each) => [each]))('%s is none, on both sides', async (each) => {
    const alice = await Client.register(relay)
    expect(await refusedAt(each)).toEqual({ status: 400, code: 'INVALID_REQUEST' })
    expect(outcome(await hand(alice, each, Buffer.of(1)))).toEqual([400, 'INVALID_REQUEST'])
  })

  test('is waited at by one: the second is refused, and the first still gets what is his', async () => {
    const alice = await Client.register(relay)
    const waiter = await waitAt(address)
    expect(await refusedAt(address)).toEqual({ status: 409, code: 'CONFLICT' })
    expect(outcome(await hand(alice, address, Buffer.of(7)))).toEqual([204, null])
    await waiter.ended
    expect(waiter.messages.map(({ data }) => [...data])).toEqual([[7]])
  })

  test('is free again when its waiter left, has what he waited for, or broke off', async () => {
    const alice = await Client.register(relay)
    const left = await waitAt(address)
    left.ws.close()
    await left.ended
    expect(outcome(await hand(alice, address, Buffer.of(1)))).toEqual(NOBODY)
    const served = await waitAt(address)
    expect(outcome(await hand(alice, address, Buffer.of(2)))).toEqual([204, null])
    await served.ended
    const broke = await waitAt(address)
    broke.ws.terminate()
    // The relay hears of it in its own time; until then the address is taken.
    let again: Waiter | null = null
    while (!again) again = await waitAt(address).catch(() => null)
    expect(outcome(await hand(alice, address, Buffer.of(3)))).toEqual([204, null])
    await again.ended
    expect(again.messages.map(({ data }) => [...data])).toEqual([[3]])
  })
})

describe('a wait', () => {
  test('is pinged every 30 s and ends after 90 s with 1001, not before; a new one begins afresh', async () => {
    const alice = await Client.register(relay)
    const address = newAddress()
    const waiter = await waitAt(address)
    let pings = 0
    waiter.ws.on('ping', () => pings++)
    for (const seconds of [29, 1, 30, 29]) {
      time.advance(seconds * 1000)
      await fence(waiter)
      expect(waiter.ws.readyState).toBe(WebSocket.OPEN)
    }
    expect(pings).toBe(2)
    time.advance(1000)
    expect(await waiter.ended).toBe(1001)
    expect(waiter.messages).toEqual([])
    expect(outcome(await hand(alice, address, Buffer.of(1)))).toEqual(NOBODY)
    const again = await waitAt(address)
    time.advance(89_000)
    expect(outcome(await hand(alice, address, Buffer.of(1)))).toEqual([204, null])
    expect(await again.ended).toBe(1000)
  })

  test.each([
    ['binary', Buffer.of(1)],
    ['text', 'hello'],
  ])('ignores four %s messages and ends with 4400 at the fifth', async (_, message) => {
    const waiter = await waitAt(newAddress())
    for (let n = 0; n < 4; n++) waiter.ws.send(message)
    await fence(waiter)
    expect(waiter.ws.readyState).toBe(WebSocket.OPEN)
    waiter.ws.send(message)
    expect(await waiter.ended).toBe(CLOSE.MALFORMED)
    expect(waiter.messages).toEqual([])
  })

  test('gets its message although it spoke', async () => {
    const alice = await Client.register(relay)
    const address = newAddress()
    const waiter = await waitAt(address)
    waiter.ws.send('hello')
    await fence(waiter)
    expect(outcome(await hand(alice, address, Buffer.of(9)))).toEqual([204, null])
    expect(await waiter.ended).toBe(1000)
    expect(waiter.messages).toHaveLength(1)
  })

  test('ends with 1001 when the relay shuts down', async () => {
    const other = await testRelay()
    const waiter = await waitAt(newAddress(), other.url)
    await other.close()
    expect(await waiter.ended).toBe(1001)
  })
})

const uncounted = openLocalMeters(Date.now)({ name: 'linking', rates: [], whenGone: 'open' })

describe('too many', () => {
  const open = (waiting: number, perSource: number) => {
    const counts: number[] = []
    const deps = { rendezvous: openRendezvous(), clock: Date.now, opened: uncounted, draining: () => false }
    const { door } = openProvisioning({ ...deps, onWaiting: (n) => counts.push(n) }, { waiting, perSource })
    return { counts, admit: (address: string) => door.admit({ token: null, place: newAddress(), address }) }
  }

  test('in all are refused until one leaves', async () => {
    const { admit, counts } = open(2, 2)
    const first = await admit('203.0.113.1')
    await admit('203.0.113.2')
    await expect(admit('203.0.113.3')).rejects.toMatchObject({ code: 'OVERLOADED' })
    // Even a proxy on this machine.
    await expect(admit('127.0.0.1')).rejects.toMatchObject({ code: 'OVERLOADED' })
    first.abandoned()
    first.abandoned()
    await admit('203.0.113.3')
    await expect(admit('203.0.113.4')).rejects.toMatchObject({ code: 'OVERLOADED' })
    expect(counts).toEqual([1, 2, 1, 2])
  })

  test('from one place are refused, others are not, and this machine stands for everybody', async () => {
    const { admit } = open(100, 2)
    const first = await admit('203.0.113.1')
    await admit('203.0.113.1')
    await expect(admit('203.0.113.1')).rejects.toMatchObject({ code: 'OVERLOADED' })
    await admit('203.0.113.2')
    for (let n = 0; n < 5; n++) await admit('127.0.0.1')
    first.abandoned()
    await admit('203.0.113.1')
    await expect(admit('203.0.113.1')).rejects.toMatchObject({ code: 'OVERLOADED' })
  })

  test('from one /64 of IPv6 are from one place', async () => {
    const { admit } = open(100, 2)
    await admit('2001:db8:0:1::1')
    await admit('2001:0db8:0000:0001:ffff:0000:0000:0002')
    await expect(admit('2001:db8:0:1:abcd::')).rejects.toMatchObject({ code: 'OVERLOADED' })
    await admit('2001:db8:0:2::1')
  })

  test('a refused second waiter at an address takes no place', async () => {
    const deps = { rendezvous: openRendezvous(), clock: Date.now, opened: uncounted, draining: () => false }
    const { door } = openProvisioning(deps, { waiting: 2, perSource: 2 })
    const place = newAddress()
    const come = (at: string) => door.admit({ token: null, place: at, address: '203.0.113.1' })
    await come(place)
    for (let n = 0; n < 3; n++) await expect(come(place)).rejects.toMatchObject({ code: 'CONFLICT' })
    await expect(come('x')).rejects.toMatchObject({ code: 'INVALID_REQUEST' })
    await come(newAddress())
  })

  test.each([
    ['203.0.113.1', '203.0.113.1'],
    ['::ffff:203.0.113.1', '203.0.113.1'],
    ['0000:0000:0000:0000:0000:ffff:cb00:7101', '203.0.113.1'],
    ['2001:DB8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8::5', '2001:db8:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['', ''],
  ])('%s counts for %s', (address, source) => expect(sourceOf(address)).toBe(source))
})
