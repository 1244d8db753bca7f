// The device's queue as it comes: pages after each Hello, envelopes after that, one at a time, each acked once it is stored.
import { isSame } from './bytes.ts'
import { Disconnected } from './connection.ts'
import type { Core } from './core.ts'
import type { Receiver } from './receive.ts'
import { rest } from './rest.ts'
import { ordered, Table } from './tables.ts'
import { type Envelope, refusal } from './wire.ts'

/** A loss that was acked: for an app that was not there when it was told. */
export type Gap = { overflowed: number; expired: number; sinceMs: number }
const gaps = new Table<Gap>('gaps')

/** Losses, oldest first. */
export const allGaps = (core: Core): Gap[] =>
  core.storage.transaction((tx) => gaps.scan(tx)).map(({ record }) => record)

/** For one page, which may be of 1 MiB. */
const PAGE_WITHIN_MS = 30_000
/** Pages in a row that bring nothing and promise more. */
const EMPTY_MAX = 3

/** Works through what the connection brings. */
export class Inbox {
  private readonly core: Core
  private readonly receiver: Receiver
  private readonly fail: (error: unknown) => void
  private work: Promise<void> = Promise.resolve()
  /** Counts connections: a sync of an earlier one ends. */
  private round = 0
  private acks: Uint8Array[] = []

  /** @param fail told when the store fails. */
  constructor(core: Core, receiver: Receiver, fail: (error: unknown) => void) {
    this.core = core
    this.receiver = receiver
    this.fail = fail
  }

  /** After Hello. The queue is always synced: what waits, and what was acked into the void. */
  sync(): void {
    const round = ++this.round
    this.enqueue(() => this.pages(round))
  }

  /** An envelope that came by itself. */
  take(envelope: Envelope): void {
    this.enqueue(async () => {
      await this.receiver.take(envelope)
      this.acks.push(envelope.messageId!)
      this.flush()
    })
  }

  /** Everything before this was stored. */
  queueEmpty(): void {
    const { round } = this
    this.enqueue(async () => {
      if (round === this.round) this.core.connection.live()
    })
  }

  /** Resolves when what came until now is done. */
  idle(): Promise<void> {
    return this.work
  }

  private enqueue(step: () => Promise<void>): void {
    this.work = this.work.then(step).catch((error) => {
      if (!(error instanceof Disconnected)) this.fail(error)
    })
  }

  private async pages(round: number): Promise<void> {
    let lastMessageId: Uint8Array = new Uint8Array(0)
    let empty = 0
    for (let more = true; more && round === this.round; ) {
      const answer = await this.core.connection.askWithin(PAGE_WITHIN_MS, { syncRequest: { lastMessageId, limit: 0 } })
      if (answer.error) {
        await rest(this.core, Math.max(refusal(answer.error).retryAfterMs, 500))
        continue
      }
      const { messages = [], hasMore, gap } = answer.syncResponse ?? {}
      for (const envelope of messages ?? []) {
        await this.receiver.take(envelope)
        this.acks.push(envelope.messageId!)
      }
      if (gap?.gapId?.length) this.noteGap(gap)
      this.flush()
      const last = messages?.at(-1)?.messageId ?? lastMessageId
      empty = isSame(last, lastMessageId) ? empty + 1 : 0
      lastMessageId = last
      more = hasMore === true
      // Otherwise it would be asked for ever.
      if (more && empty >= EMPTY_MAX) return this.core.connection.lost()
    }
  }

  // An ack that is lost costs nothing: the envelope comes again, is known, and is acked again.
  private flush(): void {
    for (const messageIds = this.acks; messageIds.length > 0; )
      this.core.connection.post({ ack: { messageIds: messageIds.splice(0, this.core.connection.limits.ackIds) } })
  }

  private noteGap(wire: {
    gapId?: Uint8Array | null
    overflowed?: number | null
    expired?: number | null
    sinceMs?: number | null
  }): void {
    const gap: Gap = { overflowed: wire.overflowed ?? 0, expired: wire.expired ?? 0, sinceMs: wire.sinceMs ?? 0 }
    this.core.storage.transaction((tx) => gaps.put(tx, ordered(this.core.account.now()), gap))
    this.acks.push(wire.gapId!)
    this.core.events.emit('gap', gap)
  }
}
