// A relay on its way down, step by step: time stands still until the test moves it, sockets are real. [C-8]
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket as Tcp } from 'node:net'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { sealpost } from '../../proto/generated/relay.js'
import { holdLocks } from '../server/barrier.ts'
import { Client, type Socket } from '../support/client.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { FakeTime } from '../support/faketime.ts'
import { kinds, post, waitingPoll } from '../support/http-frames.ts'
import { pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { request } from '../support/request.ts'
import { pass } from '../support/signals.ts'

const { ErrorCode, GoingAwayReason } = sealpost.v1

let db: TestDatabase
beforeAll(async () => {
  db = await testDatabase()
})
afterAll(() => db?.close())

type Falling = { relay: TestRelay; time: FakeTime; close(): Promise<void>; isDown(): boolean }

/** A relay whose way down takes the time it is given. @param chances its random numbers, in turn. */
async function falling(drain: Partial<TestRelay['config']['drain']>, chances: number[] = []): Promise<Falling> {
  const time = new FakeTime()
  const all = { pauseMs: 0, perSecond: 1000, graceMs: 30_000, ...drain }
  const leaving = { time, random: () => chances.shift() ?? 0.5 }
  const relay = await testRelay({ db, config: { drain: all }, leaving })
  let isDown = false
  return {
    relay,
    time,
    isDown: () => isDown,
    close: () =>
      relay.close().then(() => {
        isDown = true
      }),
  }
}

/** Waits until it is down, and lets no more than so much time pass meanwhile; databases answer in their own. */
async function untilDown({ time, isDown }: Falling, mostMs: number): Promise<void> {
  for (let left = mostMs; !isDown(); ) {
    await new Promise((resolve) => setTimeout(resolve, 1))
    const next = time.nextMs()
    if (next > left) continue
    left -= next
    time.advance(next)
  }
}

const ready = async (relay: TestRelay) => {
  const answer = await fetch(`${relay.url}/readyz`, { headers: { Connection: 'close' } })
  return { status: answer.status, body: await answer.json() }
}
const toldToGo = (socket: Socket) => socket.frames.some((frame) => frame.goingAway)
const codeOf = (frame: { error?: { code?: number | null } | null }) => ErrorCode[frame.error?.code ?? 0]

it('is unready first while all goes on; then nobody comes in, and everybody is told and sent away', async () => {
  const down = await falling({ pauseMs: 5_000 }, [0.2, 0.8])
  const { relay, time } = down
  const { alice, bob, conversation } = await pair(relay)
  const [a, b] = [await alice.live(), await bob.live()]
  expect((await ready(relay)).status).toBe(200)
  const closed = down.close()

  expect(await ready(relay)).toEqual({ status: 503, body: { ready: false, missing: ['draining'] } })
  expect((await a.send(conversation, [bob.to()])).messageAccepted).toBeTruthy()
  await b.ack((await b.next('envelope')).messageId)
  const late = await Client.register(relay)
  const poll = waitingPoll(relay, await Client.register(relay))
  await poll
  const provisioning = new WebSocket(`${relay.url.replace('http', 'ws')}/v1/provisioning/${'A'.repeat(22)}`)
  await once(provisioning, 'open')
  const unlinked = once(provisioning, 'close')
  await a.fence()
  expect([toldToGo(a), a.closed]).toEqual([false, null])

  await pass(time, 5_000)
  for (const socket of [a, b]) {
    const { reason, retryAfterMs } = await socket.next('goingAway')
    expect(reason).toBe(GoingAwayReason.GOING_AWAY_REASON_SHUTDOWN)
    expect([1_000, 4_000, 2_500]).toContain(retryAfterMs)
    expect(await socket.end()).toBe(1001)
  }
  expect((await unlinked)[0]).toBe(1001)
  const { status, frames } = await (await poll).answer
  expect([status, kinds(frames), codeOf(frames.at(-1)!)]).toEqual([
    503,
    ['goingAway', 'error'],
    'ERROR_CODE_UNAVAILABLE',
  ])
  await expect(late.connect()).rejects.toThrow()
  await untilDown(down, 200)
  await closed
})

it('sends sockets away in groups, each with a hint of its own; whoever is not told yet is served', async () => {
  const down = await falling({ perSecond: 20 }, [0, 0.2, 0.4, 0.6, 0.8])
  const { relay, time } = down
  const { alice, bob, conversation } = await pair(relay)
  const others = [await Client.register(relay), await Client.register(relay), await Client.register(relay)]
  const sockets: Socket[] = []
  for (const client of [...others, alice, bob]) sockets.push(await client.live())
  // Nobody new is let in: what is asked by HTTP comes on a connection that is there, and those that nobody uses end after 4 s.
  await post(alice, { ack: { messageIds: [] } })
  const closed = down.close()
  const hints = async (from: number, to: number) =>
    Promise.all(sockets.slice(from, to).map(async (each) => (await each.next('goingAway')).retryAfterMs))
  const [, , , a, b] = sockets as [Socket, Socket, Socket, Socket, Socket]

  expect(await hints(0, 2)).toEqual([0, 1_000])
  await Promise.all(sockets.slice(2).map((each) => each.fence()))
  expect(sockets.slice(2).map(toldToGo)).toEqual([false, false, false])
  expect((await a.send(conversation, [bob.to()])).messageAccepted).toBeTruthy()
  await b.next('envelope')
  expect((await post(alice, { ack: { messageIds: [] } })).frame?.ackCommitted).toBeTruthy()

  await pass(time, 100)
  expect(await hints(2, 4)).toEqual([2_000, 3_000])
  await b.fence()
  expect(toldToGo(b)).toBe(false)
  await pass(time, 100)
  expect(await hints(4, 5)).toEqual([4_000])
  expect(await Promise.all(sockets.map((each) => each.end()))).toEqual([1001, 1001, 1001, 1001, 1001])
  await untilDown(down, 200)
  await closed
})

it('goes faster where half of the grace period would not suffice', async () => {
  const down = await falling({ perSecond: 10, graceMs: 1_000 })
  const { relay, time } = down
  const sockets: Socket[] = []
  for (let n = 0; n < 8; n++) sockets.push(await (await Client.register(relay)).live())
  const closed = down.close()
  // 400 ms of 1,000: four groups.
  await Promise.all(sockets.slice(0, 2).map((each) => each.next('goingAway')))
  await sockets[2]!.fence()
  expect(toldToGo(sockets[2]!)).toBe(false)
  await pass(time, 300)
  await Promise.all(sockets.slice(2).map((each) => each.next('goingAway')))
  await untilDown(down, 200)
  await closed
})

it('answers a send under way before its socket closes; what is asked after the goodbye is refused with a hint', async () => {
  const down = await falling({})
  const { relay } = down
  const { alice, bob, bobKey, conversation } = await pair(relay)
  const a = await alice.live()
  const held = await holdLocks(
    db.database.sql,
    (tx) => tx`select 1 from device_locks where device_key = ${bobKey} for update`,
  )
  const sent = a.send(conversation, [bob.to()])
  await held.waiting(1)
  const closed = down.close()
  await a.next('goingAway')
  const refused = await a.send(conversation, [bob.to()])
  expect([codeOf(refused), refused.error?.retryAfterMs]).toEqual(['ERROR_CODE_UNAVAILABLE', 1_000])
  expect(a.closed).toBeNull()
  await held.release()
  const { messageAccepted } = await sent
  expect(await a.end()).toBe(1001)
  await untilDown(down, 200)
  await closed
  const rows = await db.database.sql`select message_id from message_deliveries_waiting where device_key = ${bobKey}`
  expect(rows.map((row) => Buffer.from(row.message_id.replaceAll('-', ''), 'hex'))).toEqual([
    Buffer.from(messageAccepted!.messageId!),
  ])
})

/** 10 MB: more than two network buffers hold. */
const LARGE = 120

/** A client that opens a WebSocket and never says a word, also not when it is told goodbye. */
async function mute(relay: TestRelay, path: string, token = ''): Promise<Tcp> {
  const { hostname, port } = new URL(relay.url)
  const tcp = connect(Number(port), hostname)
  tcp.on('error', () => {})
  tcp.write(
    `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n` +
      `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${token && `Authorization: Bearer ${token}\r\n`}\r\n`,
  )
  await once(tcp, 'data')
  tcp.on('data', () => {})
  return tcp
}

it('waits for nobody who does not read, does not answer a close, or does not finish a request', async () => {
  const down = await falling({})
  const { relay, time } = down
  const { alice, bob, conversation } = await pair(relay)
  const silent = await mute(relay, '/v1/ws', (await Client.register(relay)).token)
  const waiting = await mute(relay, `/v1/provisioning/${'A'.repeat(22)}`)
  const [a, deaf] = [await alice.live(), await bob.live()]
  deaf.ws.pause()
  const large = () => a.send(conversation, [bob.to(randomBytes(90_000))])
  await Promise.all(Array.from({ length: LARGE }, large))
  // The network takes no more for the one who does not read.
  const { body } = await request(relay.url, 'GET', '/metrics')
  expect(Number(/^sealpost_deliveries_total (\d+)/m.exec(body)![1])).toBeLessThan(LARGE)
  const { hostname, port } = new URL(relay.url)
  const half = connect(Number(port), hostname)
  half.on('error', () => {})
  half.write('POST /v1/accounts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{')
  // The relay has what these wrote: another connection was served after them.
  await ready(relay)
  const closed = down.close()
  await pass(time, 1_000)
  expect(down.isDown()).toBe(false)
  // Requests get 5 s.
  await untilDown(down, 5_200)
  await closed
  deaf.ws.terminate()
  for (const tcp of [silent, waiting, half]) tcp.destroy()
})

it('ends when the grace period does, although a database hangs, and says what was not answered', async () => {
  const down = await falling({ graceMs: 10_000 })
  const { relay, time } = down
  const { alice, bob, bobKey, conversation } = await pair(relay)
  const a = await alice.live()
  const held = await holdLocks(
    db.database.sql,
    (tx) => tx`select 1 from device_locks where device_key = ${bobKey} for update`,
  )
  const sent = a.send(conversation, [bob.to()]).then(
    () => 'answered',
    () => 'cut off',
  )
  await held.waiting(1)
  const closed = down.close()
  await a.next('goingAway')
  await pass(time, 7_500)
  expect(a.closed).toBeNull()
  await pass(time, 500)
  expect(await a.end()).toBe(1001)
  await untilDown(down, 200)
  await closed
  expect(await sent).toBe('cut off')
  expect(relay.logged.join()).toMatch(/"connections":1,"msg":"the grace period is over/)
  await held.release()
})
