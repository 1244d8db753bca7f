// What answers at the relay's address and is none: a proxy's error page, a broken frame. Nothing of it ends a device for good.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { MemoryStorage } from '../../client/index.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, quiet, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

async function observed() {
  const [time, wire] = [new FakeTime(), new Tamper()]
  const it = await joined(relay, { time, transport: wire, storage: new MemoryStorage() })
  await quiet(it)
  return { it, time, wire }
}

it('bytes that are no frame end the connection, not the app, and the next one is good', async () => {
  const { it, time, wire } = await observed()
  wire.raw(Uint8Array.of(0xff, 0xff, 0xff))
  expect(it.state.name).toBe('offline')
  const back = until(it, 'state', ({ name }) => name === 'live')
  time.advance(1000)
  await back
  await it.close()
})

it.each([
  [401, '<html>who are you</html>'],
  [400, '{"error": "invalid_request"}'],
  [200, 'welcome to the hotel'],
  [200, 'null'],
])('a token endpoint that answers %i %s is away for now', async (status, body) => {
  const { it, time, wire } = await observed()
  wire.answers = (request, answer) => (request.url.endsWith('/oauth/token') ? { status, body } : answer)
  wire.cut(4401)
  const offline = until(it, 'state', ({ name }) => name !== 'connecting')
  time.advance(1000)
  expect((await offline).name).toBe('offline')
  wire.answers = null
  const back = until(it, 'state', ({ name }) => name === 'live')
  time.advance(30_000)
  await back
  await it.close()
})
