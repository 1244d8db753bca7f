// Memory that stays, for tests that bound it: what nobody holds any more is taken away first, and waited for.
import { setTimeout as delay } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void

/** Looks in a row that found no less before what is found is what stays. */
const LOOKS = 4
const LOOK_MS = 25
/** Below this nothing happened, bytes. */
const NOISE_BYTES = 128 * 1024

/** Heap and buffers of this process now, bytes, behind a collection: what was just let go of may be in it. */
export function heldNow(): number {
  gc()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

/** The same once it falls no more: buffers are given back by another thread, some turns after they were collected. */
export async function heldBytes(): Promise<number> {
  let least = heldNow()
  for (let looks = 0; looks < LOOKS; looks++) {
    await delay(LOOK_MS)
    const now = heldNow()
    if (now < least - NOISE_BYTES) looks = 0
    least = Math.min(least, now)
  }
  return least
}
