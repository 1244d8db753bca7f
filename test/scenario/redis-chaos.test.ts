// Redis killed, emptied, cut off for 30 s, its subscribers dropped, during traffic between three nodes: nothing is lost, nothing comes
// twice or in another order, and hints come again by themselves. Once each here; `npm run chaos:redis` is the long form, with
// Redis away for 30 s of the machine's time each. I11
import { expect, inject, it } from 'vitest'
import { CALAMITIES } from '../support/calamities.ts'
import { type Course, defy } from '../support/redis-chaos.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** The long form; absent = the short one. */
    redisChaos?: Course
  }
}

const long = inject('redisChaos')
// One node alone cut off is a story of cluster-nodes.test.ts.
const few = CALAMITIES.filter((each) => each !== 'one node cut off')
const course: Course = long ?? { seed: 7, calamities: few, burst: 10, awayMs: 30_000, real: false }

it(`Redis ${course.calamities.join(', ')}; seed ${course.seed}: everything arrives once, in order, and then as hints again`, {
  timeout: 30_000 + course.calamities.length * course.awayMs * (course.real ? 3 : 1),
}, async () => {
  const { phases, pairs, overruns, waiting, reported } = await defy(course)
  if (long) console.table(phases.map((each) => ({ ...each, slowestMs: Math.round(each.slowestMs) })))
  if (long) console.log({ accepted: pairs.map((each) => each.accepted.length), overruns, waiting })
  for (const { accepted, arrived } of pairs) {
    expect([...accepted].sort((a, b) => a - b)).toEqual(accepted.map((_, i) => i))
    expect(arrived).toEqual(accepted.map((_, i) => i))
  }
  expect(phases.map((each) => each.calamity).sort()).toEqual([...course.calamities].sort())
  // While Redis was away, hints did not come; whom nobody had cut off got some.
  for (const { calamity, sent, hinted } of phases)
    if (calamity === 'killed' || calamity === 'all nodes cut off') expect(hinted, calamity).toBeLessThan(sent)
  // One of each node, each time.
  expect(overruns).toBe(3 * course.calamities.filter((each) => each === 'overrun').length)
  expect(waiting).toBe(0)
  expect(reported).toEqual([])
})
