// A device that was unlinked is back in a restored relay: the primary unlinks it again. [K-9.1]
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, linked, live, quiet, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

it('what was unlinked before the restore is unlinked again, and nothing else is', async () => {
  const wire = new Tamper()
  const primary = await joined(relay, { transport: wire })
  const [lost, kept] = [await linked(primary, relay), await linked(primary, relay)]
  const gone = until(primary, 'own_devices', ({ change }) => change === 'unlinked')
  const number = lost.deviceId
  await primary.unlink(number)
  await gone
  await quiet(primary)
  wire.requests.splice(0)
  // As after a restore: another epoch, and the device in the list.
  wire.frames = (frame) => {
    if (frame.hello) frame.hello.epoch = new Uint8Array(16).fill(7)
    return [frame]
  }
  wire.answers = ({ method, url }, answer) => {
    if (method !== 'GET' || !url.endsWith('/v1/devices')) return answer
    const { devices } = JSON.parse(answer.body)
    return { ...answer, body: JSON.stringify({ devices: [...devices, { ...devices[0], device_id: number }] }) }
  }
  const told = until(primary, 'problem', ({ detail }) => detail.includes(`device ${number}`))
  primary.disconnect()
  await live(primary)
  expect((await told).what).toBe('restored')
  await quiet(primary)
  const deleted = wire.requests.filter(({ method }) => method === 'DELETE').map(({ url }) => url)
  expect(deleted).toEqual([`${relay.url}/v1/devices/${number}`])
  await Promise.all([primary, lost, kept].map((each) => each.close()))
})
