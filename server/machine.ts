// What runs in a process of the relay, and the way down: by a signal, a defect, or the end of what it needs. Once, in order, in time.
import type { Observe } from './observe.ts'
import type { Postgres } from './postgres.ts'

// npm passes Ctrl-C on although the terminal already sent it to everybody: two within this time are one, milliseconds.
const SAME_SIGNAL_MS = 500

type Closable = { close(): Promise<void> }

/** What runs in this process: taken down in order, once, whatever the reason. */
export class Machine {
  stopping = false
  #postgres: Promise<Postgres> | null = null
  #relay: Promise<Closable> | null = null
  #nodes: Promise<Closable> | null = null
  #stoppingSince = 0
  #wentWrong = false
  readonly #observe: Observe
  readonly #graceMs: number

  /** @param graceMs the process ends that long after the signal, whatever hangs. @param signals that end it. */
  constructor(observe: Observe, graceMs: number, signals: NodeJS.Signals[] = ['SIGINT', 'SIGTERM']) {
    this.#observe = observe
    this.#graceMs = graceMs
    for (const signal of signals) process.on(signal, () => this.#signalled(signal))
    for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
      process.on(event, (error: unknown) => {
        observe.log.fatal({ err: error }, 'the relay ends because of a defect')
        void this.#down(1)
      })
    }
  }

  /** @returns the URL once it is up. */
  async keep(starting: Promise<Postgres>): Promise<string> {
    this.#postgres = starting
    const { url, died } = await starting
    void died.then(() => {
      this.#observe.log.fatal('the embedded PostgreSQL ended by itself: see postgres.log in the data directory')
      void this.#down(1)
    })
    return url
  }

  join<Nodes extends Closable>(joining: Promise<Nodes>): Promise<Nodes> {
    this.#nodes = joining
    return joining
  }

  serve<Relay extends Closable>(starting: Promise<Relay>): Promise<Relay> {
    this.#relay = starting
    return starting
  }

  #signalled(signal: string): void {
    if (!this.stopping) {
      this.#observe.log.info({ signal }, 'stopping')
      void this.#down(0)
    } else if (Date.now() - this.#stoppingSince > SAME_SIGNAL_MS) {
      this.#exit(1)
    }
  }

  async #down(code: number): Promise<void> {
    if (this.stopping) return
    this.stopping = true
    this.#stoppingSince = Date.now()
    setTimeout(() => {
      this.#observe.log.error('not everything ended within the grace period')
      this.#exit(1)
    }, this.#graceMs)
    await this.release().catch((error: unknown) => this.#observe.log.error({ err: error }, 'stopping went wrong'))
    this.#exit(this.#wentWrong ? 1 : code)
  }

  /** PostgreSQL is not left behind: its guard sees this process end. */
  #exit(code: number): never {
    this.#observe.flush()
    process.exit(code)
  }

  /** Drains the relay, then leaves the other nodes and stops PostgreSQL; what is still starting is waited for. */
  async release(): Promise<void> {
    const relay = await this.#relay?.catch(() => null)
    await relay?.close().catch((error: unknown) => {
      this.#wentWrong = true
      this.#observe.log.error({ err: error }, 'draining went wrong')
    })
    const nodes = await this.#nodes?.catch(() => null)
    await nodes?.close()
    const postgres = await this.#postgres?.catch(() => null)
    await postgres?.stop()
  }
}
