// Time that stands still until a test moves it. Real sockets go on meanwhile.
import type { Cancel, Time } from '../../client/index.ts'

export class FakeTime implements Time {
  nowMs: number
  chance = 0.5
  private plans: { atMs: number; call: () => void }[] = []

  constructor(nowMs = Date.now()) {
    this.nowMs = nowMs
  }
  now(): number {
    return this.nowMs
  }
  /** As when a clock is set: what was planned comes in as long as before. */
  set(nowMs: number): void {
    for (const plan of this.plans) plan.atMs += nowMs - this.nowMs
    this.nowMs = nowMs
  }
  random(): number {
    return this.chance
  }
  after(ms: number, call: () => void): Cancel {
    const plan = { atMs: this.nowMs + ms, call }
    this.plans.push(plan)
    return () => {
      this.plans = this.plans.filter((each) => each !== plan)
    }
  }
  /** How long until something falls due; Infinity = nothing is planned. */
  nextMs(): number {
    return Math.min(...this.plans.map(({ atMs }) => atMs)) - this.nowMs
  }
  /** Runs what falls due, in order. */
  advance(ms: number): void {
    const until = this.nowMs + ms
    for (;;) {
      const due = this.plans.filter(({ atMs }) => atMs <= until).sort((a, b) => a.atMs - b.atMs)[0]
      if (!due) break
      this.plans = this.plans.filter((each) => each !== due)
      this.nowMs = Math.max(this.nowMs, due.atMs)
      due.call()
    }
    this.nowMs = until
  }
}
