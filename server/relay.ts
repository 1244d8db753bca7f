// The straight line of a frame: decode → authorize → append → ack the sender → fan out. Everything it calls is one hop away; what is
// neither send, ack nor sync is a feature's (features/).
import { type LocalMeter, openLocalMeters } from '../keys/meter.ts'
import { RelayError } from '../proto/errors.ts'
import { BUFFERED_MAX_BYTES, FRAME_MAX_BYTES, PAGE_MAX_BYTES } from '../proto/limits.ts'
import type { Acks } from './acks.ts'
import { BadFrame, type ClientFrame, decodeClientFrame, encode, peekRequestId } from './codec.ts'
import { CLOSE } from './connection.ts'
import { toRelayError } from './errors.ts'
import type { Features } from './features/feature.ts'
import type { Committed, Send } from './frames.ts'
import type { Mailbox } from './mailbox.ts'
import type { Observe } from './observe.ts'
import type { Reach } from './reach.ts'
import type { Session } from './session.ts'
import type { Sync } from './sync.ts'

export type RelayDeps = {
  mailbox: Mailbox
  acks: Acks
  reach: Reach
  features: Features
  observe: Observe
  /** Bytes of sends being worked on; one for all connections. */
  load: { bytes: number }
  /** At the end of the relay's way down: what is in the pipeline commits, nothing new gets in. */
  draining(): boolean
}

/** Malformed frames in a row before the socket closes. [C-7] */
const MALFORMED_MAX = 5
/** Sends of one connection that may be refused with RATE_LIMITED: as many as may be under way when the limit is met. [S-9.4] */
const REFUSED_SENDS = { name: 'refused', rates: [{ burst: 1_000, everyMs: 100 }], whenGone: 'open' } as const
/** Frames of one socket being worked on; beyond it the answer is OVERLOADED. I10 */
const IN_WORK_MAX = 1_000
/** Bytes of sends being worked on, over all connections: they wait here while the database does not answer. I10 */
export const IN_WORK_MAX_BYTES = 64 * 1024 * 1024
/** Of that, one connection's share: who floods must not take everybody's place. */
const CONNECTION_MAX_BYTES = 8 * 1024 * 1024
/** Answers and pages buffered for one connection before it is closed. I10 */
const ANSWERS_MAX_BYTES = BUFFERED_MAX_BYTES + PAGE_MAX_BYTES + 128 * 1024
/** Rows told to their devices in one turn of the event loop. */
const FAN_OUT_SLICE = 250
/** As long as a client stays away after 4429. [C-8] */
const FLOODED_RETRY_MS = 30_000
/** By then another node, or this one's successor, answers. */
const GOING_AWAY_RETRY_MS = 1_000

/** What happens to the frames of one session. */
export class Line {
  private readonly session: Session
  private readonly sync: Sync
  private readonly deps: RelayDeps
  private readonly holder: () => Session
  private malformed = 0
  /** Null until there is one. */
  private refusedSends: LocalMeter | null = null
  private flooded = false
  private inWork = 0
  private inWorkBytes = 0
  /** Sends of a session are decided one after the other, so their order holds. [S-8] */
  private turn: Promise<void> | null = null
  /** Acks on their way to commit; a sync waits for them. */
  private acking: Promise<unknown> = Promise.resolve()

  /** @param holder whose slots of the window acks free; the session itself, unless it is nobody's connection. [C-9.3] */
  constructor(session: Session, sync: Sync, deps: RelayDeps, holder = () => session) {
    this.session = session
    this.sync = sync
    this.deps = deps
    this.holder = holder
  }

  /** Takes one binary frame. Never throws: whatever is wrong is answered on the connection, which stays usable. [E-2] */
  frame(bytes: Uint8Array): void {
    // Thrown out: the close frame is on its way, and what came behind is not looked at.
    if (this.malformed >= MALFORMED_MAX || this.flooded) return
    // Whoever asks on and on without reading the answers is not listening.
    if (this.session.connection.bufferedBytes() > ANSWERS_MAX_BYTES) {
      this.session.close(CLOSE.FLOODING, 'answers are not read')
      return
    }
    try {
      if (bytes.length > FRAME_MAX_BYTES)
        throw new BadFrame('TOO_LARGE', `the frame exceeds ${FRAME_MAX_BYTES} bytes`, peekRequestId(bytes), true)
      void this.take(decodeClientFrame(bytes), bytes.length)
    } catch (error) {
      this.bad(error)
    }
  }

  /** Takes a frame of so many bytes. Resolves when it was answered, or needs no answer; never rejects. */
  async take(frame: ClientFrame, bytes: number): Promise<void> {
    this.malformed = 0
    this.deps.observe.metrics.framesIn.inc({ kind: frame.kind })
    const { load } = this.deps
    // Only sends hold much; acks and syncs, which drain, are never refused for the sake of others.
    const weight = frame.kind === 'send' ? bytes : 0
    if (
      this.inWork >= IN_WORK_MAX ||
      (this.inWork > 0 && this.inWorkBytes + weight > CONNECTION_MAX_BYTES) ||
      load.bytes + weight > IN_WORK_MAX_BYTES
    ) {
      const busy = new RelayError('OVERLOADED', 'too many requests at once', { retryAfterMs: 1000 })
      this.refuse(frame.kind, frame.requestId, busy)
      return
    }
    this.inWork++
    // A page waits for a client that reads, so nobody waits for a page.
    const counts = frame.kind === 'send' || frame.kind === 'ack'
    if (counts) this.session.underWay.count(1)
    this.inWorkBytes += weight
    load.bytes += weight
    await this.work(frame)
      .catch((error: unknown) => this.refuse(frame.kind, frame.requestId, error))
      .finally(() => {
        this.inWork--
        if (counts) this.session.underWay.count(-1)
        this.inWorkBytes -= weight
        load.bytes -= weight
      })
  }

  /** A text frame: there are none in the protocol. [C-2] */
  text(): void {
    this.bad(new BadFrame('INVALID_REQUEST', 'frames are binary', 0, false))
  }

  private async work(frame: ClientFrame): Promise<void> {
    switch (frame.kind) {
      case 'send':
        return this.send(frame.requestId, frame.send)
      case 'ack':
        return this.ack(frame.requestId, frame.messageIds)
      case 'sync':
        await this.sync.page(frame.requestId, frame.lastMessageId, frame.limit, this.acking)
        // Behind its page: what comes from now on is not in it.
        return this.deps.observe.events.subscribe({ ...this.session.caller, how: 'sync' })
      default:
        return this.deps.features.handle(this.session, frame)
    }
  }

  private async send(requestId: number, send: Send): Promise<void> {
    if (this.session.leaving || this.deps.draining())
      throw new RelayError('UNAVAILABLE', 'going away', { retryAfterMs: GOING_AWAY_RETRY_MS })
    const { caller, connection } = this.session
    const { mailbox, observe } = this.deps
    const next = this.turn && (await this.queueBehind(this.turn))
    let appended: ReturnType<Mailbox['append']>
    try {
      if (this.flooded) throw new RelayError('RATE_LIMITED', 'flooding', { retryAfterMs: FLOODED_RETRY_MS })
      appended = mailbox.append(caller, send)
    } catch (error) {
      next?.()
      throw error
    }
    const { submitted, outcome } = appended
    if (!next) this.turn = submitted && this.until(submitted)
    else if (submitted) void submitted.then(next)
    else next()
    // Committed from here on: only now is the sender told. I1
    const result = await outcome

    connection.send(encode.accepted(requestId, result))
    await this.fanOut(result.committed)

    observe.metrics[result.duplicate ? 'duplicate' : 'accepted'].inc()
    if (!result.duplicate) observe.metrics.skipped.inc(result.skipped.length)
    observe.events.send({
      userId: caller.userId,
      deviceId: caller.deviceId,
      messageId: result.messageId,
      conversationId: send.conversationId,
      devices: result.committed.length,
      duplicate: result.duplicate,
    })
  }

  /** Takes the place behind the last one, and resolves when that one is done. @returns what lets the next one go. */
  private async queueBehind(last: Promise<void>): Promise<() => void> {
    let next!: () => void
    this.turn = this.until(
      new Promise<void>((resolve) => {
        next = resolve
      }),
    )
    await last
    return next
  }

  /** A turn that is nobody's any more once it is over, unless somebody queued behind it. */
  private until(over: Promise<void>): Promise<void> {
    const turn = over.then(() => {
      if (this.turn === turn) this.turn = null
    })
    return turn
  }

  /** In slices: a full group has 5,000 devices, each with a frame of its own. I14 */
  private async fanOut(rows: Committed[]): Promise<void> {
    for (let at = 0; at < rows.length; at += FAN_OUT_SLICE) {
      if (at > 0) await new Promise((resolve) => setImmediate(resolve))
      this.deps.reach.committed(rows.length <= FAN_OUT_SLICE ? rows : rows.slice(at, at + FAN_OUT_SLICE))
    }
  }

  private async ack(requestId: number, messageIds: string[]): Promise<void> {
    const { session, deps } = this
    const { deviceKey, userId, deviceId } = session.caller
    const holder = this.holder()
    const { rows, unknown } = holder.outstanding(messageIds)
    const ended = Promise.all([deps.acks.end(rows), deps.acks.endByIds(deviceKey, unknown)])
    // Without its result, which would hold on to all results before it.
    this.acking = Promise.allSettled([this.acking, ended]).then(() => undefined)
    const [, earlier] = await ended
    holder.acked(messageIds)
    session.connection.send(encode.ackCommitted(requestId))
    deps.features.acked(session, rows, earlier)
    deps.observe.events.ack({ userId, deviceId, count: messageIds.length })
  }

  /** Answers what could not be read. */
  bad(error: unknown): void {
    const frame = error instanceof BadFrame ? error : null
    this.deps.observe.metrics.framesIn.inc({ kind: 'malformed' })
    this.refuse('malformed', frame?.requestId ?? 0, error)
    if (frame?.wellFormed) this.malformed = 0
    else if (++this.malformed >= MALFORMED_MAX) this.session.close(CLOSE.MALFORMED, 'malformed frames')
  }

  private refuse(kind: ClientFrame['kind'] | 'malformed', requestId: number, error: unknown): void {
    const { observe } = this.deps
    const { userId, deviceId } = this.session.caller
    const refusal = toRelayError(error, (unknown) => observe.log.error({ err: unknown }, 'frame failed'))
    observe.metrics.framesRefused.inc({ kind, code: refusal.code })
    observe.events.refuse({ userId, deviceId, code: refusal.code })
    this.session.connection.send(encode.error(requestId, refusal))
    if (kind === 'send' && refusal.code === 'RATE_LIMITED' && !this.flooded) this.countRefused()
  }

  /** Whoever goes on sending does not listen. [S-9.4] [C-8] */
  private countRefused(): void {
    this.refusedSends ??= openLocalMeters(
      () => performance.now(),
      1,
    )({ ...REFUSED_SENDS, rates: [...REFUSED_SENDS.rates] })
    if (this.refusedSends.take('', 1) === 0) return
    this.flooded = true
    this.session.close(CLOSE.FLOODING, 'flooding')
  }
}
