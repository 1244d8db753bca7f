// Devices come and go, at two nodes in turn, in every way: no route, no presence, no channel, timer, file or memory stays. 300 times
// here; `npm run churn` does it 10,000 times. I10
import { expect, inject, it } from 'vitest'
import { type Churn, churn, SPARE_FILES } from '../support/churn.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** The long form; absent = the short one. */
    churn?: Churn
  }
}

const long = inject('churn')
const course: Churn = long ?? { cycles: 300, seed: 5 }
/** Heaps wobble, and a little may be code that got warm; a session that stays is some 10 KiB. */
const WOBBLE_BYTES = 3 * 1024 * 1024

it(`${course.cycles} connections come and go, seed ${course.seed}: nothing stays`, {
  // 10 s on a machine that does little else, and three times as long on a busy one.
  timeout: 60_000 + course.cycles * 200,
}, async () => {
  const { before, after, cycles, ends } = await churn(course)
  if (long) console.table({ before, after })
  if (long) console.log({ cycles, ends })
  expect(after.keys).toEqual([])
  expect(after.channels).toEqual([])
  expect([after.connections, after.watched]).toEqual([0, 0])
  expect(after.timers).toBeLessThanOrEqual(before.timers)
  expect(after.listeners).toBeLessThanOrEqual(before.listeners)
  expect(after.files).toBeLessThanOrEqual(before.files + SPARE_FILES)
  expect(after.heapBytes - before.heapBytes).toBeLessThan(WOBBLE_BYTES)
})
