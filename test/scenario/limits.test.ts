// Limits as a client meets them: what is refused, for how long, what it costs, and what it never stops. [S-9.4] [C-1.3] [C-8]
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { openRedis } from '../../server/bus/redis.ts'
import type { Config } from '../../server/config.ts'
import { parseNetworks } from '../../server/forwarded.ts'
import { liftedRates, usualRates } from '../../server/limits.ts'
import { systemTime } from '../../server/time.ts'
import { Client, type ServerFrame, type Socket } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import { messageTo, post } from '../support/http-frames.ts'
import { type Pair, pair } from '../support/pair.ts'
import { populate } from '../support/population.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ErrorCode, Scope } = sealpost.v1
const SECOND = 1_000
const MINUTE = 60 * SECOND
const eight = randomBytes(8)
const newId = () => ({ clientMessageId: uuidToBytes(uuidV7(Date.now())) })
/** ok, or the refusal with its wait. */
const outcome = (frame: ServerFrame | null): string =>
  frame?.messageAccepted ? 'ok' : `${ErrorCode[frame?.error?.code ?? 0]} ${frame?.error?.retryAfterMs ?? 0}`
const LIMITED = (ms: number): string => `ERROR_CODE_RATE_LIMITED ${ms}`

const time = new FakeTime()
let relay: TestRelay
const open = async (limits: Partial<Config['limits']>, more: Partial<Config> = {}): Promise<TestRelay> =>
  testRelay({ time, db: relay.db, config: { limits: { ...liftedRates(), ...limits }, ...more } })
const at = (node: TestRelay, client: Client): Client => Object.assign(Object.create(client), { url: node.url })

let users: Pair
let socket: Socket
beforeAll(async () => {
  relay = await testRelay({ time, config: { limits: usualRates() } })
})
afterAll(() => relay?.close())
beforeEach(async () => {
  time.nowMs = Date.now()
  users = await pair(relay)
  socket = await users.alice.live()
})

const sendOne = async (from = socket, more: sealpost.v1.SignalMessage.$Properties = {}): Promise<string> =>
  outcome(await from.send(users.conversation, [users.bob.to(eight)], more))
async function sendMany(count: number, from = socket): Promise<string[]> {
  const answers: string[] = []
  for (let i = 0; i < count; i++) answers.push(await sendOne(from))
  return answers
}

describe('messages', () => {
  it('10 at once, then one each 100 ms; 100 at once, then one each 600 ms: both count, and the waits are exact', async () => {
    expect(await sendMany(12)).toEqual([...Array(10).fill('ok'), LIMITED(100), LIMITED(100)])
    time.advance(99)
    expect(await sendOne()).toBe(LIMITED(1))
    time.advance(1)
    expect(await sendMany(2)).toEqual(['ok', LIMITED(100)])
    for (let sent = 11; sent < 100; ) {
      time.advance(SECOND)
      const passed = (await sendMany(Math.min(10, 100 - sent))).filter((each) => each === 'ok').length
      expect(passed).toBe(Math.min(10, 100 - sent))
      sent += passed
    }
    // 9.1 seconds gave 15 more of the minute's, and a sixteenth soon.
    time.advance(SECOND)
    let more = 0
    while ((await sendOne()) === 'ok') {
      more++
      time.advance(100)
    }
    expect(more).toBeGreaterThan(15)
    expect(Number((await sendOne()).split(' ')[1])).toBeGreaterThan(100)
    time.advance(600)
    expect(await sendMany(2)).toEqual(['ok', expect.stringMatching(/RATE_LIMITED/)])
    time.advance(2 * MINUTE)
    expect(await sendMany(11)).toEqual([...Array(10).fill('ok'), LIMITED(100)])
  })

  it('of a user, whatever the device and the way: sockets and HTTP count together', async () => {
    const second = await (await users.alice.link()).live()
    const others = [users.bob.to(eight), users.alice.to(eight)]
    for (let i = 0; i < 5; i++) expect(outcome(await second.send(users.conversation, others))).toBe('ok')
    const subset = (client: Client) => messageTo(users.conversation, [client.to(eight)], { scope: Scope.SCOPE_SUBSET })
    for (let i = 0; i < 5; i++) expect(outcome((await post(users.alice, subset(users.bob))).frame)).toBe('ok')
    const answer = await post(users.alice, subset(users.bob))
    expect([answer.status, outcome(answer.frame), answer.headers.get('retry-after')]).toEqual([429, LIMITED(100), '1'])
    expect(await sendOne(second)).toBe(LIMITED(100))
    // Another user's are another's.
    expect(outcome(await (await users.bob.live()).send(users.conversation, others.slice(1)))).toMatch(/MISMATCH|ok/)
  })

  it('a refused send burns no id, and a repeat of an accepted one is never refused nor counted [S-2.1] [S-2.2]', async () => {
    const [first, late] = [newId(), newId()]
    const accepted = await socket.send(users.conversation, [users.bob.to(eight)], first)
    await sendMany(9)
    expect(await sendOne(socket, late)).toBe(LIMITED(100))
    for (let i = 0; i < 20; i++) {
      const { messageAccepted } = await socket.send(users.conversation, [users.bob.to(eight)], first)
      expect(messageAccepted?.duplicate).toBe(true)
      expect(messageAccepted?.messageId).toEqual(accepted.messageAccepted?.messageId)
    }
    time.advance(100)
    const { messageAccepted } = await socket.send(users.conversation, [users.bob.to(eight)], late)
    expect(messageAccepted?.duplicate ?? false).toBe(false)
    // Repeats while there is room are given back.
    time.advance(SECOND)
    for (let i = 0; i < 30; i++) expect(await sendOne(socket, first)).toBe('ok')
    expect(await sendMany(11)).toEqual([...Array(10).fill('ok'), LIMITED(100)])
  })

  it('acks, syncs and signals are not messages', async () => {
    await sendMany(10)
    expect(await sendOne()).toBe(LIMITED(100))
    await socket.fence()
    expect((await socket.sync()).messages ?? []).toEqual([])
    expect((await socket.ask({ statusRequest: { messageIds: [] } })).error).toBeNull()
  })

  it('a clock that goes back takes nothing away, one that jumps ahead gives no more than the burst', async () => {
    expect(await sendMany(11)).toEqual([...Array(10).fill('ok'), LIMITED(100)])
    time.nowMs -= MINUTE
    expect(await sendOne()).toBe(LIMITED(100))
    time.advance(100)
    expect(await sendMany(2)).toEqual(['ok', LIMITED(100)])
    time.advance(5 * MINUTE)
    expect(await sendMany(11)).toEqual([...Array(10).fill('ok'), LIMITED(100)])
  })
})

describe('deliveries', () => {
  it('a message to 499 others is 499: five thousand, then 500 a second; a mismatch gives them back', async () => {
    const node = await open({ deliveries: usualRates().deliveries })
    const people = await populate(relay.db.database.sql, 498)
    const group = await users.alice.group([users.bob, people[0]!])
    const ids = people.slice(1).map((each) => each.userId)
    await relay.db.database.sql`insert into conversation_members (conversation_id, user_id)
      select ${group}, u from unnest(${ids}::uuid[]) u`
    const content = randomBytes(4)
    const everybody = [
      ...people.map(({ userId, devices: [device] }) => ({
        ...{ userId: uuidToBytes(userId), deviceId: 1, registrationId: device!.registrationId },
        ...{ ciphertextType: 2, content },
      })),
      users.bob.to(content),
    ]
    expect(everybody).toHaveLength(499)
    const from = await at(node, users.alice).live()
    const send = async (recipients = everybody): Promise<string> => outcome(await from.send(group, recipients))
    for (let i = 0; i < 30; i++) expect(await send(everybody.slice(1))).toMatch(/DEVICE_MISMATCH/)
    for (let i = 0; i < 10; i++) expect(await send()).toBe('ok')
    // 5,000 − 4,990 are left; 489 more come in 978 ms.
    expect(await send()).toBe(LIMITED(978))
    time.advance(977)
    expect(await send()).toBe(LIMITED(1))
    time.advance(1)
    expect(await send()).toBe('ok')
    await from.close()
    await node.close()
  })

  it('one message above the burst passes when everything is there, and is owed', async () => {
    const node = await open({ deliveries: [{ burst: 1, everyMs: MINUTE }] })
    const three = await Promise.all([1, 2, 3].map(() => Client.register(relay)))
    const group = await users.alice.group(three)
    const from = await at(node, users.alice).live()
    const send = async (): Promise<string> =>
      outcome(
        await from.send(
          group,
          three.map((each) => each.to(eight)),
        ),
      )
    expect([await send(), await send()]).toEqual(['ok', LIMITED(3 * MINUTE)])
    await from.close()
    await node.close()
  })
})

describe('who goes on sending', () => {
  it('is told 1,000 times and a last one, and closed with 4429; nothing of it was stored', async () => {
    const node = await open({ messages: [{ burst: 1, everyMs: 30 * MINUTE }] })
    const from = await at(node, users.alice).live()
    expect(await sendOne(from)).toBe('ok')
    // Of one that is closed nothing comes back.
    const flood = (count: number): Promise<string[]> =>
      Promise.all(Array.from({ length: count }, () => sendOne(from).catch(() => 'closed')))
    const first = await flood(900)
    expect(first.every((each) => /RATE_LIMITED/.test(each))).toBe(true)
    expect(from.closed).toBeNull()
    // What it may be refused comes back with time, the machine's: one that is slow is told oftener.
    const last: string[] = []
    do last.push(...(await flood(400)))
    while (!from.closed)
    expect(await from.end()).toBe(4429)
    expect(last.filter((each) => /RATE_LIMITED/.test(each)).length).toBeGreaterThan(100)
    expect(last).toContain('closed')
    const waiting = await (await users.bob.connect()).drain()
    expect(waiting).toHaveLength(1)
    // It is no ban: the next connection is let in, and limited as before.
    const again = await at(node, users.alice).live()
    expect(await sendOne(again)).toMatch(/RATE_LIMITED/)
    await again.close()
    await node.close()
  })
})

describe('connections of one user', () => {
  it('are bounded on a node; one that ends makes room, other users are not concerned', async () => {
    const node = await open({}, { maxUserConnections: 2 })
    const [second, third] = [await users.alice.link(), await users.alice.link()]
    const sockets = [await at(node, users.alice).connect(), await at(node, second).connect()]
    const refused = await fetch(`${node.url}/v1/deliveries?wait_seconds=1`, {
      headers: { Authorization: `Bearer ${third.token}` },
    })
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '1'])
    await expect(at(node, third).connect()).rejects.toThrow(/429/)
    await (await at(node, users.bob).connect()).close()
    await sockets[0]!.close()
    await (await at(node, third).connect()).close()
    await sockets[1]!.close()
    await node.close()
  })
})

describe.skipIf(process.env.SEALPOST_TEST_WITHOUT_REDIS)('several nodes', () => {
  let redis: TestRedis
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.close())

  it('count one user together; with Redis gone each counts alone, and sends go on at once', async () => {
    const limits = { ...liftedRates(), messages: [{ burst: 4, everyMs: 30 * MINUTE }] }
    const join = async () => {
      const { urls, cluster } = redis
      // A Redis that waits for its turn counts, too.
      const waits = { patienceMs: 20_000, commandMs: 20_000, silenceMs: 20_000 }
      const nodes = await openRedis({ urls, cluster, time: systemTime(), report: () => {}, onLost: () => {}, ...waits })
      return { nodes, node: await testRelay({ time, db: relay.db, nodes, config: { limits } }) }
    }
    const [near, far] = [await join(), await join()]
    const phone = await at(near.node, users.alice).live()
    const laptop = await at(far.node, await users.alice.link()).live()
    const subset = { scope: Scope.SCOPE_SUBSET }
    const passed: string[] = []
    for (let i = 0; i < 6; i++) passed.push(await sendOne(i % 2 ? phone : laptop, subset))
    expect(passed.map((each) => each.split(' ')[0])).toEqual([
      ...Array(4).fill('ok'),
      ...Array(2).fill(LIMITED(0).split(' ')[0]),
    ])
    // Sent at once on both: in order on each, and none too many.
    await redis.kill()
    for (const from of [phone, laptop]) {
      const answers = await Promise.all(Array.from({ length: 6 }, () => sendOne(from, subset)))
      expect(answers.filter((each) => each === 'ok')).toHaveLength(4)
      expect(answers.slice(0, 4)).toEqual(Array(4).fill('ok'))
    }
    await redis.start()
    await Promise.all([phone.close(), laptop.close()])
    for (const { nodes, node } of [near, far]) {
      await node.close()
      await nodes.close()
    }
  })
})

it('what one address registers is bounded, the address behind a trusted proxy; this machine is not', async () => {
  const node = await open(
    { registrations: [{ burst: 2, everyMs: MINUTE }], recoveries: [{ burst: 1, everyMs: MINUTE }] },
    { trustedProxies: parseNetworks('127.0.0.1')! },
  )
  const ask = async (method: string, path: string, address: string | null): Promise<number> => {
    const headers = { 'Content-Type': 'application/json', ...(address && { 'X-Forwarded-For': address }) }
    return (await fetch(node.url + path, { method, headers, body: '{}' })).status
  }
  const register = (address: string | null) => ask('POST', '/v1/accounts', address)
  expect([await register('203.0.113.7'), await register('203.0.113.7')]).toEqual([400, 400])
  expect(await register('203.0.113.7')).toBe(429)
  expect(await register('203.0.113.8')).toBe(400)
  expect([await register('2001:db8::1'), await register('2001:db8::2')]).toEqual([400, 400])
  expect([await register('2001:db8::3'), await register('2001:db8:0:1::3')]).toEqual([429, 400])
  for (let i = 0; i < 5; i++) expect(await register(null)).toBe(400)
  const begin = (address: string) => ask('PUT', '/v1/identity', address)
  expect([await begin('203.0.113.7'), await begin('203.0.113.7'), await begin('203.0.113.9')]).toEqual([400, 429, 400])
  time.advance(MINUTE)
  expect([await register('203.0.113.7'), await register('203.0.113.7')]).toEqual([400, 429])
  await node.close()
})
