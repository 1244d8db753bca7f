// Time that passes for a device whose connection lives: its own clock is the test's, and the relay is heard of every second.
import type { FakeTime } from './faketime.ts'
import type { Tamper } from './tamper.ts'

/** Moves the time; without a word of the relay the device would call the connection dead after 5 s. */
export function pass(time: FakeTime, wire: Tamper, ms: number): void {
  for (let left = ms; left > 0; left -= 1000) {
    time.advance(Math.min(left, 1000))
    wire.say({})
  }
}
