// How much is tried: a few seconds in `npm test`, minutes in `npm run fuzz`. A failure prints its seed and path; run again with them.
import { inject } from 'vitest'

declare module 'vitest' {
  interface ProvidedContext {
    /** Multiplies the runs of every property; absent = 1. */
    fuzzFactor?: number
  }
}

/** Parameters of fc.assert for a property that is tried so often in the short form. */
export const runs = (short: number): { numRuns: number; endOnFailure: boolean } => {
  const factor = inject('fuzzFactor') ?? 1
  // A long run reports the first counterexample as it is: each shrinking step is another conversation with the relay.
  return { numRuns: short * factor, endOnFailure: factor > 1 }
}

/** Time a test with that many runs may take, milliseconds. */
export const within = (shortMs: number): number => shortMs * (inject('fuzzFactor') ?? 1)
