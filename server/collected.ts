// The way to a device through one HTTP request: frames are collected, and leave as the request's answer. [C-9]
import { RelayError } from '../proto/errors.ts'
import { encode } from './codec.ts'
import { CLOSE, type Connection } from './connection.ts'
import type { Outgoing } from './frames.ts'

/** What comes so soon after the first news goes along with it, milliseconds. */
const GATHER_MS = 5
const GOING_AWAY_RETRY_MS = 1_000
/** Of signals between two requests. I10 I12 */
const KEPT_MAX_BYTES = 16 * 1024

/** Of a single exchange: it holds what answers the frame. [C-9.1] */
export class Collected implements Connection {
  readonly address: string
  readonly frames: Outgoing[] = []

  constructor(address: string) {
    this.address = address
  }

  send(frame: Outgoing): boolean {
    this.frames.push(frame)
    return true
  }
  bufferedBytes(): number {
    return 0
  }
  ping(): void {}
  close(): void {}
}

/** How a poll ended. */
export type PollEnd = {
  /** What it brings, in order. */
  frames: Outgoing[]
  /** Null = all went well; otherwise the last frame says it. */
  refusal: RelayError | null
  /** As of a socket; 1000 = it brought what it came for. */
  code: number
}

/**
 * Of one request for deliveries: it ends with news, or when its time is over. [C-9.7] [C-9.8]
 *
 *   open      until the page was collected
 *   waiting   nothing came so far
 *   gathering something did
 *   over      nothing is taken any more; what was not, comes again (I3)
 *   resting   answered, and the next request is expected: signals are kept for it, which nobody would send again
 */
export class Poll implements Connection {
  readonly address: string
  readonly ended: Promise<PollEnd>
  private readonly wait: ((call: () => void) => () => void) | null
  private end!: (how: PollEnd) => void
  private frames: Outgoing[] = []
  private bytes = 0
  private state: 'open' | 'waiting' | 'gathering' | 'over' | 'resting' = 'open'
  private carried: Outgoing[] = []
  private dismiss: (code: number) => void = () => {}
  private hasNews = false
  private cancel: (() => void) | null = null

  /** @param wait calls back when the time is over, and returns what cancels it; null = it does not wait. */
  constructor(address: string, wait: ((call: () => void) => () => void) | null) {
    this.address = address
    this.wait = wait
    this.ended = new Promise((resolve) => {
      this.end = resolve
    })
  }

  send(frame: Outgoing): boolean {
    if (this.state === 'over') return false
    if (this.state === 'resting' && (frame.kind === 'envelope' || this.bytes > KEPT_MAX_BYTES)) return false
    this.frames.push(frame)
    this.bytes += frame.bytes.length
    if (this.state === 'resting') return true
    // Behind Hello. [C-3]
    if (frame.kind === 'hello') for (const each of this.carried) this.send(each)
    const { refusal } = frame
    // A close code that follows in this turn says more.
    if (refusal) setImmediate(() => this.finish(1000, refusal))
    else if (frame.kind === 'syncResponse') this.paged(frame)
    else if (!frame.quiet) this.news()
    return true
  }

  bufferedBytes(): number {
    return this.bytes
  }

  ping(): void {}

  close(code: number, reason: string): void {
    if (this.state === 'over') return
    if (this.state === 'resting') {
      this.state = 'over'
      this.dismiss(code)
      return
    }
    const said = this.frames.find((frame) => frame.refusal)?.refusal
    const refusal = said && code === CLOSE.GOING_AWAY ? said : refusalOf(code, reason)
    // A goodbye is told; the rest comes again, to whoever comes next. [C-9.9]
    this.frames = this.frames.filter((frame) => frame.kind === 'goingAway')
    this.frames.push(encode.error(0, refusal))
    this.finish(code, refusal)
  }

  /** After its answer: keeps what comes for the next one. @param dismiss told when it is closed. */
  rest(dismiss: (code: number) => void): void {
    this.frames = []
    this.bytes = 0
    this.state = 'resting'
    this.dismiss = dismiss
  }

  /** What was kept while it rested. */
  get kept(): Outgoing[] {
    return this.state === 'resting' ? this.frames : []
  }

  /** Brings these along: they come after Hello. */
  carry(frames: Outgoing[]): void {
    this.carried = frames
  }

  /** The client has gone. */
  abandon(): void {
    if (this.state !== 'over') this.finish(1006, null)
  }

  private paged(page: Outgoing): void {
    if (!page.quiet) this.hasNews = true
    if (this.hasNews || !this.wait) {
      // QueueEmpty follows in the same turn.
      this.state = 'gathering'
      setImmediate(() => this.finish(1000, null))
      return
    }
    this.state = 'waiting'
    this.cancel = this.wait(() => this.finish(1000, null))
  }

  private news(): void {
    this.hasNews = true
    if (this.state !== 'waiting') return
    this.state = 'gathering'
    setTimeout(() => this.finish(1000, null), GATHER_MS)
  }

  private finish(code: number, refusal: RelayError | null): void {
    if (this.state === 'over') return
    this.state = 'over'
    this.cancel?.()
    this.end({ frames: this.frames, refusal, code })
  }
}

/** What a socket is told by a close code. [C-8] */
function refusalOf(code: number, reason: string): RelayError {
  if (code === CLOSE.CREDENTIAL_GONE) return new RelayError('UNAUTHENTICATED', 'this device is no longer linked')
  if (code === CLOSE.CONNECTED_ELSEWHERE) return new RelayError('CONFLICT', reason)
  return new RelayError('UNAVAILABLE', reason, { retryAfterMs: GOING_AWAY_RETRY_MS })
}
