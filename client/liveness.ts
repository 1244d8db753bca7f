// Whether a silent connection still lives. Browsers cannot send WebSocket pings, so an empty Ack asks: the cheapest frame that is answered.
import type { Cancel, Time } from './time.ts'

/** Silence, in ticks of a second, after which to ask, and after which nobody is there: a loss is noticed within 5 s. [C-4.1] */
const TICK_MS = 1000
const ASK_AT = 2
const DEAD_AT = 5

/** Asks when nothing was heard for 2 s and gives up after 5 s. Costs an idle device one small frame each way every 2 s. */
export class Liveness {
  private readonly time: Time
  private readonly ask: () => void
  private readonly dead: () => void
  private silent = 0
  private cancel: Cancel | null = null

  constructor(time: Time, ask: () => void, dead: () => void) {
    this.time = time
    this.ask = ask
    this.dead = dead
  }

  start(): void {
    this.silent = 0
    this.stop()
    this.cancel = this.time.after(TICK_MS, () => this.tick())
  }
  stop(): void {
    this.cancel?.()
    this.cancel = null
  }
  /** A frame came, whichever. */
  heard(): void {
    this.silent = 0
  }

  private tick(): void {
    this.silent++
    if (this.silent >= DEAD_AT) {
      this.stop()
      this.dead()
      return
    }
    if (this.silent === ASK_AT) this.ask()
    this.cancel = this.time.after(TICK_MS, () => this.tick())
  }
}
