// Signals between people: the shape they all have, and how they ask. None is an envelope; one that is lost costs time and nothing else. [G]
import { RelayError } from '../proto/errors.ts'
import { Disconnected } from './connection.ts'
import type { Core } from './core.ts'
import { LATER, rest } from './rest.ts'
import { type ClientBody, refusal, type ServerFrame } from './wire.ts'

/** One kind of signal. */
export interface Signal {
  /** The connection became live. */
  live(): void
  /** It ended, or never came; may be said more than once. */
  lost(): void
  /** A frame that answers nothing. */
  take(frame: ServerFrame): void
  /** Resolves when nothing is under way. */
  idle(): Promise<void>
}

const WAIT_AT_LEAST_MS = 500

/** Asks again for as long as the relay says later. @returns null once it is not wanted any more. @throws RelayError, Disconnected. */
export async function askPatiently(core: Core, body: ClientBody, isWanted: () => boolean): Promise<ServerFrame | null> {
  while (isWanted()) {
    const answer = await core.connection.ask(body)
    if (!answer.error) return isWanted() ? answer : null
    const error = refusal(answer.error)
    if (!LATER.includes(error.code)) throw error
    await rest(core, Math.max(error.retryAfterMs, WAIT_AT_LEAST_MS))
  }
  return null
}

/** Work over the connection of which only the latest matters. */
export class Errand {
  private readonly fail: (error: unknown) => void
  private round = 0
  private running: Promise<unknown> = Promise.resolve()

  /** @param fail told when the store fails; a refusal or a broken connection ends the work and nothing else. */
  constructor(fail: (error: unknown) => void) {
    this.fail = fail
  }

  /** Begins, and makes what runs unwanted. */
  begin(work: (isWanted: () => boolean) => Promise<void>): void {
    const round = ++this.round
    const run = work(() => round === this.round).catch((error) => {
      if (!(error instanceof Disconnected) && !(error instanceof RelayError)) this.fail(error)
    })
    this.running = Promise.all([this.running, run])
  }
  /** What runs is not wanted any more. */
  end(): void {
    this.round++
  }
  async idle(): Promise<void> {
    await this.running
  }
}
