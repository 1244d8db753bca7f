// Clock, chance and timers as one thing that is passed in, so that a test decides what time it is.

/** Cancels what was planned; harmless afterwards. */
export type Cancel = () => void

/** Everything the SDK knows of time and chance. Secrets never come from here. */
export interface Time {
  /** Unix milliseconds of this device's clock, which may be wrong. */
  now(): number
  /** 0 up to, not including, 1. */
  random(): number
  /** Calls once after so many milliseconds. */
  after(ms: number, call: () => void): Cancel
}

/** The platform's own. */
export const systemTime: Time = {
  now: () => Date.now(),
  random: () => Math.random(),
  after: (ms, call) => {
    const timer = setTimeout(call, ms)
    return () => clearTimeout(timer)
  },
}
