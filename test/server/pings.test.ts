// Signs of life are asked for by a time that only grows: a clock set back by an hour does not end them. [C-4]
import { randomUUID } from 'node:crypto'
import { expect, it } from 'vitest'
import { Queue } from '../../server/queue.ts'
import type { Session } from '../../server/session.ts'
import { Sessions } from '../../server/sessions.ts'

it('the clock is set back by an hour: the next ping goes out all the same', async () => {
  let [clockMs, passedMs, pings] = [1_800_000_000_000, 10_000, 0]
  let pinged = (): void => {}
  const next = (): Promise<void> =>
    new Promise((resolve) => {
      pinged = resolve
    })
  const ping = (): void => {
    pings++
    pinged()
  }
  // There is no database, and nobody is told of it: pings go out while it is away, too.
  const queue = new Queue(null as never)
  const sessions = new Sessions({ queue, clock: () => clockMs, monotonic: () => passedMs, report() {} })
  sessions.register({
    caller: { deviceKey: 1, userId: randomUUID() },
    state: 'live',
    connection: { ping },
    expiresAtMs: Number.POSITIVE_INFINITY,
  } as unknown as Session)
  const first = next()
  const watching = sessions.watch()
  await first
  const second = next()
  clockMs -= 3_600_000
  passedMs += 30_000
  await second
  watching.stop()
  expect(pings).toBe(2)
})
