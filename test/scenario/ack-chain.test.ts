// A connection that acks for long: what the relay remembers of it does not grow with the acks. I10
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Pair, pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void

let relay: TestRelay
let users: Pair
beforeAll(async () => {
  relay = await testRelay()
  users = await pair(relay)
})
afterAll(() => relay.close())

const heapBytes = (): number => {
  gc()
  return process.memoryUsage().heapUsed
}

it('30,000 acks on one connection leave nothing behind', async () => {
  const socket = await users.bob.live()
  const acks = async (count: number): Promise<void> => {
    for (let done = 0; done < count; done += 500) {
      for (let i = 0; i < 500; i++) socket.write({ ack: {} })
      await socket.fence()
      socket.frames.length = 0
      relay.logged.length = 0
    }
  }
  await acks(20_000)
  const before = heapBytes()
  await acks(30_000)
  const perAck = (heapBytes() - before) / 30_000
  await socket.close()
  expect(perAck).toBeLessThan(50)
}, 60_000)
