// SyncRequest: one page of the queue, when the network has taken what went before.
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { BUFFERED_MAX_BYTES, PAGE_MAX_BYTES } from '../proto/limits.ts'
import type { Delivery } from './frames.ts'
import type { Page, Queue } from './queue.ts'
import type { Session } from './session.ts'

/** Bytes of a delivery on the wire besides its content and URLs. */
const OVERHEAD_BYTES = 200

/** The syncs of one session: at most one at a time. */
export class Sync {
  private readonly session: Session
  private readonly queue: Queue
  private busy = false
  /** Where the last page ended: its last id is a cursor even after it was acked. */
  private last: { messageId: Uuid; sequence: number } | null = null
  private drained: (() => void) | null = null

  constructor(session: Session, queue: Queue) {
    this.session = session
    this.queue = queue
  }

  /**
   * Answers with one page; live envelopes are paused from now until a page with has_more = false.
   * @param lastMessageId paging cursor, never an ack; null or unknown = from the start.
   * @param settled acks received before this request; rows they end are not read again.
   * @throws RelayError CONFLICT while another is being answered.
   */
  async page(requestId: number, lastMessageId: Uuid | null, limit: number, settled: Promise<unknown>): Promise<void> {
    if (this.busy) throw new RelayError('CONFLICT', 'another SyncRequest is being answered')
    if (this.session.state === 'closed') return
    if (this.session.state === 'starting') throw new RelayError('CONFLICT', 'Hello has not been sent yet')
    this.busy = true
    try {
      this.session.state = 'syncing'
      await settled
      await this.roomForPage()
      const { deviceKey } = this.session.caller
      const after = lastMessageId ? await this.cursor(deviceKey, lastMessageId) : 0
      const page = cut(await this.queue.page(deviceKey, after, limit, PAGE_MAX_BYTES))
      if (this.session.state !== 'syncing') return
      const end = page.deliveries.at(-1)
      if (end) this.last = { messageId: end.messageId, sequence: end.sequence }
      this.session.sendPage(requestId, page)
    } finally {
      this.busy = false
    }
  }

  /** The network has taken buffered bytes, or the connection is over. */
  wake(): void {
    this.drained?.()
    this.drained = null
  }

  private async roomForPage(): Promise<void> {
    while (this.session.state === 'syncing' && this.session.connection.bufferedBytes() >= BUFFERED_MAX_BYTES)
      await new Promise<void>((resolve) => {
        this.drained = resolve
      })
  }

  private async cursor(deviceKey: number, messageId: Uuid): Promise<number> {
    if (this.last?.messageId === messageId) return this.last.sequence
    return this.session.sequenceOf(messageId) ?? (await this.queue.sequenceOf(deviceKey, messageId)) ?? 0
  }
}

/** Shortens a page whose clear-text fields make it larger than a frame may be; always keeps one row. */
function cut(page: Page): Page {
  let bytes = 0
  const size = (each: Delivery): number =>
    OVERHEAD_BYTES +
    each.content.length +
    each.iv.length +
    (each.attachmentUrl?.length ?? 0) * 3 +
    (each.thumbnailUrl?.length ?? 0) * 3
  const fits = page.deliveries.findIndex((each, i) => {
    bytes += size(each)
    return i > 0 && bytes > PAGE_MAX_BYTES
  })
  return fits === -1 ? page : { ...page, deliveries: page.deliveries.slice(0, fits), hasMore: true }
}
