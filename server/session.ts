// One connected device: what was sent to it, what it has yet to get, what it has not acked.
//
//   starting   registered, its first read is under way; what arrives is only noted
//   held       something waited at connect: nothing is sent until a SyncRequest
//   syncing    from the first SyncRequest until the page with has_more = false
//   live       envelopes are sent as they commit
//   closed     nothing is sent any more
//
// One rule gives order, no gap and bounded memory: an envelope is sent only if its sequence is sent + 1; anything else is only
// remembered as `heard`, and while heard > sent the pump reads rows after `sent` from the database. A short page proves that
// nothing at or below its tail is left, because sequences are given out in commit order (I4).

import type { Uuid } from '../proto/ids.ts'
import { BUFFERED_MAX_BYTES, PAGE_MAX_MESSAGES, WINDOW_MAX_MESSAGES } from '../proto/limits.ts'
import type { Caller } from '../proto/route.ts'
import { encode } from './codec.ts'
import { CLOSE, type Connection } from './connection.ts'
import type { Delivery, Outgoing } from './frames.ts'
import type { Page, Queue, Start } from './queue.ts'
import { UnderWay } from './underway.ts'

/** starting → held or live; held or live → syncing → live; closed is the end. */
export type SessionState = 'starting' | 'held' | 'syncing' | 'live' | 'closed'

/** An envelope that left for the device. @property senderId the other user who sent it; null = its ack tells nobody anything. [G-3] */
export type Sent = {
  deviceKey: number
  sequence: number
  messageId: Uuid
  senderId: Uuid | null
  conversationId: Uuid | null
}

export type SessionDeps = {
  queue: Queue
  /** An envelope left for the device. */
  onDelivered(session: Session, delivery: Delivery): void
  /** A signal of this kind was left out. */
  onLeftOut(kind: string): void
  /** A read failed; the next re-poll tries again. */
  report(error: unknown): void
}

/** A gap is waited for this long before the database is asked: lanes commit side by side and answer in any order. */
const GAP_WAIT_MS = 5
/** Envelopes kept while a gap before them is waited for. */
const EARLY_MAX = 64
const EARLY_MAX_BYTES = 4096
/** With less room in the window than this the pump waits a little for more acks: a read for one row costs as much as for many. */
const ROOM_WORTH_A_READ = 64
/** With more than this unsent in the buffer signals are left out: they are the first to go. I12 */
const SIGNALS_MAX_BYTES = BUFFERED_MAX_BYTES / 4
/** Un-acked ids remembered; beyond it acks find their row by walking the queue. I10 */
const UNACKED_MAX = 2048

export class Session {
  readonly caller: Caller
  readonly connection: Connection
  /** When its token ends, Unix milliseconds; moved by Reauthenticate. */
  expiresAtMs: number
  state: SessionState = 'starting'
  /** Order among the connections of this device; 0 until known. I6 */
  epoch = 0
  /** Of the database in which that was given out; '' until known. */
  history = ''
  /** Settles when its first read is over, and those of its predecessors here: epochs come in the order of connections. */
  reading: Promise<unknown> = Promise.resolve()
  /** What of its own has to be answered before it is sent away: its greeting, sends and acks. */
  readonly underWay = new UnderWay()
  /** It is being sent away: what it asks from now on is not begun. [C-8] */
  leaving = false

  private readonly deps: SessionDeps
  /** Everything at or below it was sent on this connection or needs no sending. */
  private sent = 0
  /** Highest epoch of another connection heard of before its own was known. */
  private rival = 0
  /** Highest sequence known to exist; Infinity = unknown, look. */
  private heard = 0
  private readonly unacked = new Map<Uuid, Sent>()
  private readonly early = new Map<number, Delivery>()
  private pumping = false
  private pumpTimer: NodeJS.Timeout | null = null

  constructor(caller: Caller, connection: Connection, expiresAtMs: number, deps: SessionDeps) {
    this.caller = caller
    this.connection = connection
    this.expiresAtMs = expiresAtMs
    this.deps = deps
  }

  /**
   * The first read of a session that is already registered, so nothing committed from now on is missed.
   * @param isConsumer false: it only reads, and has no epoch.
   * @returns begun: Hello was sent. over: it was closed meanwhile. gone: the device has no queue any more. elsewhere: a newer
   * connection is the consumer. I6
   */
  async start(hello: (start: Start) => Outgoing, isConsumer = true): Promise<'begun' | 'over' | 'gone' | 'elsewhere'> {
    await this.reading
    if (this.state !== 'starting') return 'over'
    const { deviceKey } = this.caller
    const asked = this.deps.queue.start(deviceKey, isConsumer)
    this.reading = asked.catch(() => {})
    const start = await asked
    if (this.state !== 'starting') {
      if (start?.epoch) await this.deps.queue.giveBack(deviceKey, start.epoch).catch(this.deps.report)
      return 'over'
    }
    if (!start) return 'gone'
    if (isConsumer && (start.epoch === null || start.epoch < this.rival)) return 'elsewhere'
    this.epoch = start.epoch ?? 0
    this.history = start.history
    this.connection.send(hello(start))
    if (start.waiting) {
      this.state = 'held'
    } else {
      this.sent = start.tail
      this.goLive()
    }
    return 'begun'
  }

  /** Another connection of the device has this epoch. @returns true when this one is over now: the newer wins. I6 */
  yieldTo(epoch: number): boolean {
    if (this.state === 'closed') return false
    if (this.epoch === 0) this.rival = Math.max(this.rival, epoch)
    if (this.epoch === 0 || this.epoch >= epoch) return false
    this.displaced()
    return true
  }

  /** A row of this device's queue was committed. Late, doubled and reordered calls are harmless. */
  offer(delivery: Delivery): void {
    const { sequence } = delivery
    if (this.state === 'closed' || sequence <= this.sent) return
    if (sequence > this.heard) this.heard = sequence
    if (this.state !== 'live') return
    if (!this.windowOpen()) return
    if (sequence !== this.sent + 1) {
      if (this.early.size < EARLY_MAX && delivery.content.length <= EARLY_MAX_BYTES) this.early.set(sequence, delivery)
      this.pumpSoon()
      return
    }
    this.transmit(delivery)
    for (let next = this.early.get(this.sent + 1); next && this.windowOpen(); next = this.early.get(this.sent + 1))
      this.transmit(next)
  }

  /** Rows may exist that nobody announced, up to this sequence; Infinity = any. */
  hear(sequence: number): void {
    if (sequence > this.heard) this.heard = sequence
    this.pump()
  }

  /** Sequence up to which nothing is left to send. */
  get sentUpTo(): number {
    return this.sent
  }

  /** Whether some of its queue was heard of and not sent. */
  get behind(): boolean {
    return this.heard > this.sent
  }

  /** Sends what the database holds after `sent`, while the window allows. One at a time; call it freely. */
  pump(): void {
    if (this.pumping || this.state !== 'live' || !this.behind || !this.windowOpen()) return
    this.pumping = true
    this.catchUp().then(
      () => {
        this.pumping = false
        // Whoever wanted a pump while this one was at its end was turned away.
        this.pump()
      },
      (error: unknown) => {
        this.pumping = false
        this.heard = Number.POSITIVE_INFINITY
        this.deps.report(error)
      },
    )
  }

  private async catchUp(): Promise<void> {
    while (this.state === 'live' && this.behind && this.windowOpen()) {
      const room = Math.min(WINDOW_MAX_MESSAGES - this.unacked.size, PAGE_MAX_MESSAGES)
      const unknown = this.heard === Number.POSITIVE_INFINITY
      if (unknown) this.heard = this.sent
      const page = await this.deps.queue.page(this.caller.deviceKey, this.sent, room, BUFFERED_MAX_BYTES)
      if (this.state !== 'live') {
        if (unknown) this.heard = Number.POSITIVE_INFINITY
        return
      }
      this.hearTail(page)
      for (const delivery of page.deliveries) {
        // offer() may have sent some of them while the page was read.
        if (delivery.sequence <= this.sent) continue
        if (!this.windowOpen()) return
        this.transmit(delivery)
      }
      if (!page.hasMore) this.settle(page.tail)
    }
  }

  /** A page of a sync leaves: its rows count as sent, and live goes on when nothing was left behind. */
  sendPage(requestId: number, page: Page): void {
    this.connection.send(encode.syncResponse(requestId, page))
    this.hearTail(page)
    for (const delivery of page.deliveries) {
      this.remember(delivery)
      if (delivery.sequence > this.sent) this.sent = delivery.sequence
      this.deps.onDelivered(this, delivery)
    }
    if (page.hasMore) return
    this.settle(page.tail)
    this.connection.send(encode.queueEmpty())
    this.goLive()
  }

  /** Sequences of those ids this connection has outstanding; the rest is returned as unknown. */
  outstanding(messageIds: Uuid[]): { rows: Sent[]; unknown: Uuid[] } {
    const rows: Sent[] = []
    const unknown: Uuid[] = []
    for (const id of messageIds) {
      const sent = this.unacked.get(id)
      if (sent === undefined) unknown.push(id)
      else rows.push(sent)
    }
    return { rows, unknown }
  }

  /** Their acks are committed: slots of the window are free again. */
  acked(messageIds: Uuid[]): void {
    for (const id of messageIds) this.unacked.delete(id)
    if (WINDOW_MAX_MESSAGES - this.unacked.size >= ROOM_WORTH_A_READ) this.pump()
    else if (this.behind) this.pumpSoon()
  }

  /** Sequence of an envelope sent on this connection and not acked, or undefined. */
  sequenceOf(messageId: Uuid): number | undefined {
    return this.unacked.get(messageId)?.sequence
  }

  /**
   * Sends a frame that nobody misses when it is left out: typing, presence, status. I12
   * @returns false when it was: before Hello, after the end, and while much lies unsent.
   */
  signal(frame: Outgoing): boolean {
    if (this.takesSignals) return this.connection.send(frame)
    if (this.state !== 'closed') this.deps.onLeftOut(frame.kind)
    return false
  }

  /** Whether `signal` would send one now. */
  get takesSignals(): boolean {
    if (this.state === 'closed' || this.state === 'starting') return false
    return this.connection.bufferedBytes() <= SIGNALS_MAX_BYTES
  }

  /** Ends the session; nothing is sent after the close frame. */
  close(code: number, reason: string): void {
    if (this.state === 'closed') return
    this.over()
    this.connection.close(code, reason)
  }

  /** Says that the relay goes, answers what is under way, closes. Behind Hello in any case. Resolves with the end. [C-3] [C-8] */
  async leave(retryAfterMs: number): Promise<void> {
    if (this.state === 'closed' || this.leaving) return
    this.leaving = true
    if (this.state === 'starting') await this.underWay.over()
    this.connection.send(encode.goingAway('SHUTDOWN', retryAfterMs))
    await this.underWay.over()
    this.close(CLOSE.GOING_AWAY, 'going away')
  }

  /** Its device has stopped listening for a moment: signals are taken for it, envelopes wait in the queue. [C-9.8] */
  rest(): void {
    if (this.state !== 'closed') this.state = 'held'
  }

  /** The newer connection wins. [C-5] */
  displaced(): void {
    this.close(CLOSE.CONNECTED_ELSEWHERE, 'connected elsewhere')
  }

  /** The socket is gone. */
  over(): void {
    this.state = 'closed'
    if (this.pumpTimer) clearTimeout(this.pumpTimer)
    this.early.clear()
    this.unacked.clear()
  }

  private goLive(): void {
    this.state = 'live'
    this.pump()
  }

  private pumpSoon(): void {
    this.pumpTimer ??= setTimeout(() => {
      this.pumpTimer = null
      this.pump()
    }, GAP_WAIT_MS)
  }

  private hearTail(page: Page): void {
    if (page.tail > this.heard) this.heard = page.tail
  }

  /** Nothing at or below the tail is left to send. */
  private settle(tail: number): void {
    if (tail > this.sent) this.sent = tail
    for (const sequence of this.early.keys()) if (sequence <= this.sent) this.early.delete(sequence)
  }

  private windowOpen(): boolean {
    return this.unacked.size < WINDOW_MAX_MESSAGES && this.connection.bufferedBytes() < BUFFERED_MAX_BYTES
  }

  private transmit(delivery: Delivery): void {
    this.early.delete(delivery.sequence)
    if (!this.connection.send(encode.envelope(delivery))) return
    this.sent = delivery.sequence
    this.remember(delivery)
    this.deps.onDelivered(this, delivery)
  }

  private remember(delivery: Delivery): void {
    const { messageId, sequence, sender, ciphertextType, conversationId } = delivery
    const { deviceKey, userId } = this.caller
    // Not what the relay made, what was withheld, or what one's own other device sent.
    const counts = sender !== null && ciphertextType !== 0 && sender.userId !== userId
    this.unacked.set(messageId, {
      deviceKey,
      sequence,
      messageId,
      senderId: counts ? sender.userId : null,
      conversationId,
    })
    if (this.unacked.size <= UNACKED_MAX) return
    for (const oldest of this.unacked.keys()) {
      this.unacked.delete(oldest)
      return
    }
  }
}
