// A program that is started again when it ends by itself, as an orchestrator would do it.
import { setTimeout as delay } from 'node:timers/promises'
import type { Child } from './child.ts'

/** Time to see that it is gone, and what the others make of it. */
const AGAIN_AFTER_MS = 3_000

export class Kept {
  readonly name: string
  private readonly begin: () => Promise<Child>
  private readonly say: (line: string) => void
  private readonly againAfterMs: number
  private child: Child | null = null
  private stopping: AbortController | null = new AbortController()
  private keeping: Promise<void> = Promise.resolve()

  /** @param againAfterMs from its end to its next start. */
  constructor(name: string, begin: () => Promise<Child>, say: (line: string) => void, againAfterMs = AGAIN_AFTER_MS) {
    this.name = name
    this.begin = begin
    this.say = say
    this.againAfterMs = againAfterMs
  }

  get pid(): number | null {
    return this.child?.pid ?? null
  }

  /** @throws what the first start throws; later ones are tried again. */
  async start(): Promise<void> {
    this.child = await this.begin()
    this.keeping = this.keep()
  }

  private async keep(): Promise<void> {
    for (;;) {
      if (this.child) {
        const how = await this.child.ended
        this.child = null
        if (this.stopping) this.say(`ended (${how}); it is started again in ${this.againAfterMs / 1000} s`)
      }
      if (!this.stopping) return
      await delay(this.againAfterMs, undefined, { signal: this.stopping.signal }).catch(() => {})
      if (!this.stopping) return
      try {
        this.child = await this.begin()
        this.say(`runs again, as process ${this.child.pid}`)
      } catch (error) {
        this.say(`does not start: ${(error as Error).message}`)
      }
    }
  }

  /** Ends it for good. */
  async stop(signal?: NodeJS.Signals): Promise<void> {
    const stopping = this.stopping
    this.stopping = null
    stopping?.abort()
    await this.child?.stop(signal)
    await this.keeping
    // Begun in the moment in which it was stopped.
    await (this.child as Child | null)?.stop(signal)
  }
}
