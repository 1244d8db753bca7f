// Clock and timers as one thing that is passed in, so that a test decides what time it is.

/** Everything features know of time. */
export type Time = {
  /** Unix milliseconds. */
  now(): number
  /** Calls once after so many milliseconds. @returns cancels it; harmless afterwards. */
  after(ms: number, call: () => void): () => void
}

/** The machine's timers with this clock. A timer keeps no process alive. */
export const systemTime = (clock: () => number = Date.now): Time => ({
  now: clock,
  after: (ms, call) => {
    const timer = setTimeout(call, ms).unref()
    return () => clearTimeout(timer)
  },
})
