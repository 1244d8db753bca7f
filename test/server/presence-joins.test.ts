// Who asks for somebody's presence is answered once changes come, too: otherwise one between the two is told to nobody. [G-2]
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Channel, OpenBus } from '../../server/bus/bus.ts'
import { openLocalHub } from '../../server/bus/local.ts'
import { openLocalPresence } from '../../server/bus/presence.ts'
import { Client } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { pass, watch } from '../support/signals.ts'

const time = new FakeTime()
const shared = openLocalPresence()
/** Asks the store as another node would. */
const outside = shared()
const hub = openLocalHub((error) => {
  throw error
})
/** Called with each channel that is joined, which waits for what it returns. */
let onJoin: (channel: Channel) => Promise<void> | null = () => null
const slowToJoin: OpenBus = (receive) => {
  const bus = hub(receive)
  const join = async (channel: Channel): Promise<void> => {
    await onJoin(channel)
    await bus.join(channel)
  }
  return { ...bus, join }
}

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay({ time, nodes: { bus: slowToJoin, presence: shared } })
})
afterAll(() => relay?.close())

it('the second who asks waits for what the first one waits for', async () => {
  const [ann, bob, cy] = await Promise.all([Client.register(relay), Client.register(relay), Client.register(relay)])
  await Promise.all([ann.direct(bob), cy.direct(bob)])
  const [a, b, c] = await Promise.all([ann.live(), bob.live(), cy.live()])
  const shown = async (): Promise<boolean> => (await outside.online([bob.userId])).size > 0
  while (!(await shown())) await b.fence()

  let release = (): void => {}
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  const reached = new Promise<void>((resolve) => {
    onJoin = (channel) => {
      if (channel !== `presence:${bob.userId}`) return null
      resolve()
      return released
    }
  })
  const first = watch(a, bob)
  await reached
  const second = watch(c, bob)
  // What was asked of the database before these is known by now, and an answer too early would be out.
  for (let i = 0; i < 5; i++) await c.ack(randomBytes(16))
  // He goes, and the hint of it comes to nobody here.
  await b.close()
  while (await shown()) await pass(time, 1_000)
  release()
  expect([await first, await second]).toEqual([{ [bob.userId]: false }, { [bob.userId]: false }])
  await Promise.all([a.close(), c.close()])
})
