// Whatever goes wrong for long ends in a state that can be read, not in a loop: attempts are counted over hours of the device's time.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Device, MemoryStorage, systemTime } from '../../client/index.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, linked, live, quiet, say, shown, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

const HOUR_MS = 3_600_000

let relay: TestRelay
let laterMs = 0
beforeAll(async () => {
  relay = await testRelay({ clock: () => Date.now() + laterMs })
})
afterAll(() => relay.close())

async function observed(): Promise<{ it: Device; time: FakeTime; wire: Tamper; storage: MemoryStorage }> {
  const [time, wire, storage] = [new FakeTime(Date.now() + laterMs), new Tamper(), new MemoryStorage()]
  const it = await joined(relay, { time, transport: wire, storage })
  await quiet(it)
  return { it, time, wire, storage }
}
/** An hour goes by for a device that does nothing of its own accord. */
async function pass(time: FakeTime): Promise<void> {
  for (let minute = 0; minute < 60; minute++) {
    time.advance(60_000)
    for (let i = 0; i < 3; i++) await new Promise(setImmediate)
  }
}
/** So many attempts to connect that fail, each as soon as the device wants it. @returns how long it waited before each. */
async function fail(it: Device, time: FakeTime, attempts: number): Promise<number[]> {
  const waits: number[] = []
  for (let attempt = 0; attempt < attempts; attempt++) {
    if (it.state.name !== 'offline') await until(it, 'state', ({ name }) => name === 'offline' || name === 'closed')
    if (it.state.name !== 'offline') throw new Error(`ended as ${JSON.stringify(it.state)}`)
    waits.push(it.state.retryInMs)
    time.advance(it.state.retryInMs)
  }
  if (it.state.name !== 'offline') await until(it, 'state', ({ name }) => name === 'offline')
  return waits
}
const tokensAsked = (wire: Tamper) => wire.requests.filter(({ url }) => url.endsWith('/oauth/token')).length

it('4400, our frames are malformed: closed for good', async () => {
  const { it, time, wire } = await observed()
  wire.cut(4400)
  expect(it.state).toEqual({ name: 'closed', reason: 'malformed' })
  await pass(time)
  expect([it.state, wire.tokens.length]).toEqual([{ name: 'closed', reason: 'malformed' }, 1])
  // Its app may try again.
  await live(it)
  await it.close()
})

it('unlinked: closed for good, and the token endpoint is left alone', async () => {
  const primary = await joined(relay)
  const [time, wire] = [new FakeTime(), new Tamper()]
  const laptop = await linked(primary, relay, { time, transport: wire })
  await quiet(laptop)
  const offline = until(laptop, 'state', ({ name }) => name === 'offline')
  await primary.unlink(laptop.deviceId)
  await offline
  const closed = until(laptop, 'state', ({ name }) => name === 'closed')
  time.advance(1000)
  expect(await closed).toEqual({ name: 'closed', reason: 'unlinked' })
  const [connects, asked] = [wire.tokens.length, tokensAsked(wire)]
  await pass(time)
  expect([wire.tokens.length, tokensAsked(wire)]).toEqual([connects, asked])
  // What is sent now waits, and is not lost when the app looks.
  expect(laptop.state).toEqual({ name: 'closed', reason: 'unlinked' })
  await primary.close()
})

it('the token ends while none can be had: 4401, then away until one can', async () => {
  const { it, time, wire } = await observed()
  wire.answers = (request, answer) => (request.url.endsWith('/oauth/token') ? { status: 503, body: '' } : answer)
  const ended = until(it, 'state', ({ name }) => name !== 'live')
  laterMs += 2 * HOUR_MS
  expect((await ended).name).toBe('offline')
  // Chance is one half here: of 1, 2, 4 … 30 s.
  expect(await fail(it, time, 9)).toEqual([500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000, 15_000])
  expect(wire.tokens).toHaveLength(1)
  wire.answers = null
  const back = until(it, 'state', ({ name }) => name === 'live')
  time.advance(15_000)
  await back
  expect(wire.tokens).toHaveLength(2)
  await it.close()
})

it('the token ends and another can be had: nobody notices', async () => {
  const { it, wire } = await observed()
  const states: string[] = []
  it.on('state', ({ name }) => states.push(name))
  const his = new Tamper()
  his.passes = ({ reauthenticate }) => !reauthenticate
  const bob = await joined(relay, { time: new FakeTime(Date.now() + laterMs), transport: his })
  const conversation = await it.conversations.direct(bob.userId)
  const before = tokensAsked(wire)
  // Asked for is not renewed: until the relay has the new token, the old one's end is the connection's.
  const renewed = new Promise<void>((resolve) => {
    wire.frames = (frame) => {
      if (frame.reauthenticated) resolve()
      return [frame]
    }
  })
  laterMs += HOUR_MS - 20_000
  await renewed
  // Whose token was not renewed is sent away, in the round that finds the other's good.
  const ended = until(bob, 'state', ({ name }) => name !== 'live')
  laterMs += 30_000
  await ended
  await say(it, conversation, 'still there')
  expect([states, wire.tokens.length, tokensAsked(wire) - before]).toEqual([[], 1, 1])
  await Promise.all([it.close(), bob.close()])
})

it('a relay that refuses every connection, with tokens it gave itself: offline, and asked ever less often', async () => {
  const { it, time, wire } = await observed()
  wire.route = (url) => (url.startsWith('ws') ? `${url}/nothing-here` : url)
  wire.cut(1001)
  expect(await fail(it, time, 8)).toEqual([500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000])
  wire.route = (url) => url
  const back = until(it, 'state', ({ name }) => name === 'live')
  it.retryNow()
  await back
  await it.close()
})

it('a restored relay is mended once: the next connections are like any other', async () => {
  const { it, storage } = await observed()
  const bob = await joined(relay, { time: new FakeTime(Date.now() + laterMs) })
  const conversation = await it.conversations.direct(bob.userId)
  await say(it, conversation, 'accepted')
  it.disconnect()
  const { sql } = relay.db.database
  const tables = await sql<
    { name: string }[]
  >`select table_name as name from information_schema.columns where column_name = 'epoch'`
  await sql.unsafe(`update ${tables[0]!.name} set epoch = gen_random_uuid()`)
  const restored = await testRelay({ db: relay.db, clock: () => Date.now() + laterMs })
  const wire = new Tamper()
  const problems: string[] = []
  for (let connection = 1; connection <= 3; connection++) {
    const again = device(restored, { storage, transport: wire, time: new FakeTime(Date.now() + laterMs) })
    again.on('problem', ({ what }) => problems.push(what))
    await live(again)
    await quiet(again)
    again.disconnect()
  }
  expect(problems).toEqual(['restored'])
  expect(wire.requests.filter(({ method, url }) => method === 'PUT' && url.endsWith('/v1/keys'))).toHaveLength(1)
  expect(wire.sent.filter(({ signalMessage }) => signalMessage)).toHaveLength(1)
  bob.disconnect()
  await restored.close()
})

it('a clock two hours wrong, whichever way: connects once, sends and reads, and renews its token in time', async () => {
  const storage = new MemoryStorage()
  // A relay under load asks for patience: whose clock is right has timers that run.
  const rightTime = { ...systemTime, now: () => Date.now() + laterMs }
  const right = await joined(relay, { storage, time: rightTime })
  const bob = await joined(relay, { time: rightTime })
  const conversation = await right.conversations.direct(bob.userId)
  right.disconnect()
  for (const wrongMs of [-2 * HOUR_MS, 2 * HOUR_MS]) {
    const [time, wire] = [new FakeTime(Date.now() + laterMs + wrongMs), new Tamper()]
    const it = await live(device(relay, { storage, time, transport: wire }))
    const problems: string[] = []
    it.on('problem', ({ what }) => problems.push(what))
    await say(it, conversation, `sent at ${wrongMs}`)
    await say(bob, conversation, `answered at ${wrongMs}`)
    const read = await shown(bob, conversation, `sent at ${wrongMs}`)
    await shown(it, conversation, `answered at ${wrongMs}`)
    expect(Math.abs(read.sentAtMs - (Date.now() + laterMs))).toBeLessThan(600_000)
    await quiet(it)
    // Asked for by how long the token lives, not by what time it is anywhere.
    const asked = tokensAsked(wire)
    const renewed = wire.asked(({ reauthenticate }) => !!reauthenticate)
    time.nowMs += HOUR_MS - 120_000
    time.advance(1000)
    await renewed
    expect([wire.tokens.length, tokensAsked(wire) - asked, problems]).toEqual([1, 1, []])
    it.disconnect()
  }
  bob.disconnect()
})
