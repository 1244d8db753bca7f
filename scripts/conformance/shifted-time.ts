// A clock for clients under test that runs like any other and can be pushed ahead. Timers that fall due go off, in order.
import type { Cancel, Time } from '../../client/index.ts'

type Plan = { atMs: number; call: () => void; timer: NodeJS.Timeout | null }

/** Now plus what it was pushed ahead. */
export class ShiftedTime implements Time {
  private aheadMs = 0
  private plans = new Set<Plan>()

  now(): number {
    return Date.now() + this.aheadMs
  }
  random(): number {
    return Math.random()
  }
  after(ms: number, call: () => void): Cancel {
    const plan: Plan = { atMs: this.now() + ms, call, timer: null }
    this.plans.add(plan)
    this.wind(plan)
    return () => this.drop(plan)
  }

  /** So many milliseconds pass at once. */
  advance(ms: number): void {
    const until = this.now() + ms
    for (;;) {
      const due = [...this.plans].filter(({ atMs }) => atMs <= until).sort((a, b) => a.atMs - b.atMs)[0]
      if (!due) break
      this.aheadMs += Math.max(0, due.atMs - this.now())
      this.drop(due)
      due.call()
    }
    this.aheadMs += Math.max(0, until - this.now())
    for (const plan of this.plans) this.wind(plan)
  }

  /** Nothing planned happens any more. */
  stop(): void {
    for (const plan of [...this.plans]) this.drop(plan)
  }

  private wind(plan: Plan): void {
    if (plan.timer) clearTimeout(plan.timer)
    plan.timer = setTimeout(
      () => {
        this.drop(plan)
        plan.call()
      },
      Math.max(0, plan.atMs - this.now()),
    )
  }
  private drop(plan: Plan): void {
    if (plan.timer) clearTimeout(plan.timer)
    this.plans.delete(plan)
  }
}
