// How a device stays connected: what it does when connections end, break, or go silent, and when it stays away.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Backoff } from '../../client/backoff.ts'
import { type Device, MemoryStorage, type Transport } from '../../client/index.ts'
import { wsTransport } from '../../client/node.ts'
import { FakeTime } from '../support/faketime.ts'
import { openLatecomer } from '../support/latecomer.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, directory, joined, linked, live, quiet, say, shown, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

async function observed(): Promise<{ it: Device; time: FakeTime; wire: Tamper; storage: MemoryStorage }> {
  const [time, wire, storage] = [new FakeTime(), new Tamper(), new MemoryStorage()]
  const it = await joined(relay, { time, transport: wire, storage })
  await quiet(it)
  return { it, time, wire, storage }
}

describe('backoff', () => {
  const ending = { code: 1001, openMs: 60_000, retryAfterMs: null }

  it('is 1, 2, 4 … 30 s at most, anything below by chance, and begins anew when all is well', () => {
    const time = new FakeTime()
    time.chance = 0.999_999
    const backoff = new Backoff(time)
    const waits = Array.from({ length: 7 }, () => Math.round(backoff.after(ending) / 1000))
    expect(waits).toEqual([1, 2, 4, 8, 16, 30, 30])
    time.chance = 0
    expect(backoff.after(ending)).toBe(0)
    backoff.reset()
    time.chance = 0.5
    expect(backoff.after(ending)).toBe(500)
  })

  it('is at least 30 s after 1006 twice within 10 s of connecting, but not when nobody answered', () => {
    const backoff = new Backoff(new FakeTime())
    const soon = { code: 1006, openMs: 300, retryAfterMs: null }
    expect(backoff.after(soon)).toBeLessThan(30_000)
    expect(backoff.after(soon)).toBeGreaterThanOrEqual(30_000)
    expect(backoff.after(ending)).toBeLessThan(30_000)
    const away = { code: 1006, openMs: null, retryAfterMs: null }
    for (let i = 0; i < 3; i++) expect(backoff.after(away)).toBeLessThan(30_000)
    expect(new Backoff(new FakeTime()).after({ ...ending, code: 4429 })).toBeGreaterThanOrEqual(30_000)
  })
})

it('a silent loss is noticed within 5 s, and the device comes back by itself', async () => {
  const { it, time, wire } = await observed()
  wire.hole = true
  time.advance(5000)
  expect(it.state.name).toBe('offline')
  wire.hole = false
  const back = until(it, 'state', ({ name }) => name === 'live')
  time.advance(1000)
  await back
  await it.close()
})

it('a connection that is only quiet is kept: the relay answers when asked', async () => {
  const { it, time, wire } = await observed()
  for (let i = 0; i < 6; i++) {
    const heard = wire.heard()
    time.advance(2000)
    await heard
  }
  expect(it.state.name).toBe('live')
  expect(wire.tokens).toHaveLength(1)
  await it.close()
})

it('GoingAway says when to come back', async () => {
  const { it, time, wire } = await observed()
  wire.say({ goingAway: { reason: 1, retryAfterMs: 7000 } })
  wire.cut(1001)
  expect(it.state).toEqual({ name: 'offline', retryInMs: 7500 })
  time.advance(7499)
  expect(wire.tokens).toHaveLength(1)
  const back = until(it, 'state', ({ name }) => name === 'live')
  time.advance(1)
  await back
  await it.close()
})

it('4401 gets a new token and goes on', async () => {
  const { it, time, wire } = await observed()
  time.advance(1000)
  const asked = () => wire.requests.filter(({ url }) => url.endsWith('/oauth/token')).length
  const before = asked()
  wire.cut(4401)
  const back = until(it, 'state', ({ name }) => name === 'live')
  time.advance(1000)
  await back
  expect(asked()).toBe(before + 1)
  await it.close()
})

it('a token is renewed on the open connection before it ends', async () => {
  const { it, wire } = await observed()
  wire.say({ goingAway: { reason: 2, retryAfterMs: 30_000 } })
  await wire.heard()
  expect(it.state.name).toBe('live')
  expect(wire.tokens).toHaveLength(1)
  await it.close()
})

it('4409 stops for good: the newer connection of the same device is left alone', async () => {
  const { it, time, wire, storage } = await observed()
  const closed = until(it, 'state', ({ name }) => name === 'closed')
  const newer = await live(device(relay, { storage }))
  expect(await closed).toEqual({ name: 'closed', reason: 'connected_elsewhere' })
  time.advance(600_000)
  expect(wire.tokens).toHaveLength(1)
  expect(newer.state.name).toBe('live')
  await newer.close()
})

it('an attempt that was given up and arrives late displaces its successor once: the device comes back, and stays away from others', async () => {
  const [time, wire, storage] = [new FakeTime(), new Tamper(), new MemoryStorage()]
  const it = device(relay, { time, transport: wire, storage })
  await it.register()
  const late = await openLatecomer(relay.url)
  wire.route = (url) => url.replace(relay.socketUrl, `${late.url.replace('http', 'ws')}/v1/ws`)
  it.connect()
  await late.held
  // Nobody answers for 15 s; the next attempt is let in at once.
  time.advance(15_000)
  expect(it.state.name).toBe('offline')
  const second = until(it, 'state', ({ name }) => name === 'live')
  time.advance(1000)
  await second
  // Now the first one arrives, and the relay cannot know that nobody is there any more.
  const displaced = until(it, 'state', ({ name }) => name !== 'live')
  expect((await late.letThrough()).toString()).toContain('101 Switching Protocols')
  expect((await displaced).name).toBe('offline')
  const third = until(it, 'state', ({ name }) => name === 'live')
  time.advance(1000)
  await third
  expect(wire.tokens).toHaveLength(3)
  // What displaces it now is another process, within the same minute or not.
  const closed = until(it, 'state', ({ name }) => name === 'closed')
  const newer = await live(device(relay, { storage }))
  expect(await closed).toEqual({ name: 'closed', reason: 'connected_elsewhere' })
  time.advance(600_000)
  expect(wire.tokens).toHaveLength(3)
  await newer.close()
  await late.close()
})

it('another deployment at the same address is not spoken to', async () => {
  const storage = new MemoryStorage()
  const it = await joined(relay, { storage })
  it.disconnect()
  const other = await testRelay({ db: relay.db, config: { realm: 'https://other.test' } })
  const again = device({ url: other.url, realm: relay.realm }, { storage })
  const closed = until(again, 'state', ({ name }) => name === 'closed')
  again.connect()
  expect(await closed).toEqual({ name: 'closed', reason: 'wrong_realm' })
  await other.close()
})

it('a clock two hours wrong: registration says so, and what a registered device sends is readable', async () => {
  const wrong = new FakeTime(Date.now() + 2 * 3_600_000)
  await expect(device(relay, { time: wrong }).register()).rejects.toMatchObject({ code: 'INVALID_REQUEST' })
  const [storage, bob] = [new MemoryStorage(), await joined(relay)]
  const right = await joined(relay, { storage })
  const conversation = await right.conversations.direct(bob.userId)
  right.disconnect()
  const late = await live(device(relay, { storage, time: wrong }))
  await say(late, conversation, 'what time is it?')
  const read = await shown(bob, conversation, 'what time is it?')
  expect(Math.abs(read.sentAtMs - Date.now())).toBeLessThan(600_000)
  await Promise.all([late.close(), bob.close()])
})

it('a device that is closed in the middle of something says nothing more, and its file can be opened at once', async () => {
  const [wire, bob, files] = [new Tamper(), await joined(relay), directory()]
  let open = () => {}
  const barrier = new Promise<void>((resolve) => {
    open = resolve
  })
  let asked = () => {}
  const isAsking = new Promise<void>((resolve) => {
    asked = resolve
  })
  const slow: Transport = {
    open: wire.open.bind(wire),
    request: async (request) => {
      if (request.url.endsWith('/v1/keys/bundles')) {
        asked()
        await barrier
      }
      return wire.request(request)
    },
  }
  const it = await joined(relay, { transport: slow, storage: files.sqlite('closed.db') })
  const conversation = await it.conversations.direct(bob.userId)
  const laptop = await linked(bob, relay)
  const problems: unknown[] = []
  it.on('problem', (problem) => problems.push(problem))
  it.send(conversation, { text: 'not yet' })
  await isAsking
  await it.close()
  const again = await live(device(relay, { storage: files.sqlite('closed.db') }))
  open()
  for (const each of [bob, laptop]) await shown(each, conversation, 'not yet')
  await quiet(again)
  expect(problems).toEqual([])
  await Promise.all([again, bob, laptop].map((each) => each.close()))
  files.end()
})

it('an attempt that is given up never opens: it would displace the one that follows it', async () => {
  const tokens: string[] = []
  const wire = new Tamper()
  const it = await joined(relay, { transport: wire })
  tokens.push(...wire.tokens)
  const ended = new Promise<boolean>((resolve) => {
    let isOpen = false
    const socket = wsTransport().open(relay.socketUrl, tokens[0]!, {
      opened: () => {
        isOpen = true
      },
      frame: () => {},
      closed: () => resolve(isOpen),
    })
    socket.close()
  })
  expect(await ended).toBe(false)
  await say(it, await it.conversations.direct((await joined(relay)).userId), 'still connected')
  expect(it.state.name).toBe('live')
  await it.close()
})
