// Group commit: sends queue up while a batch is being committed, and the next batch takes what has gathered. Batching is the speed:
// one transaction per message reaches about a sixth of it (docs/decisions/sequences.md).
//
// States of a lane: idle → (a send arrives) → gathering, until the event loop has read what is there → committing → gathering or idle.
import { RelayError } from '../proto/errors.ts'
import type { Entry } from './append.ts'
import { type BatchDeps, commitBatch, type Outcome, type Pending } from './batch.ts'

/** Messages and bytes in the pipeline before new sends are answered OVERLOADED. I10 */
const PIPELINE_MAX_MESSAGES = 10_000
const PIPELINE_MAX_BYTES = 64 * 1024 * 1024
/** One batch; more rows per lock period, but not so many that the others wait. 4 MiB blocked the loop for up to 160 ms, 1 MiB for 9. I14 */
const BATCH_MAX_ROWS = 2_000
const BATCH_MAX_BYTES = 1024 * 1024
const BATCH_MAX_MESSAGES = 500
/** Two lanes keep the database busy while the other one's answer is on its way; four gained nothing. */
const LANES = 2
const OVERLOADED_RETRY_MS = 500

type Queued = Pending & { bytes: number }

/** Told of every committed batch, and of how many messages wait. Must not throw. */
export type WriterMeter = {
  batch(messages: number, rows: number, seconds: number): void
  depth(messages: number): void
}

/** Lane of a conversation: all its sends take the same one, so their order holds. */
const laneOf = (conversationId: string): number => Number.parseInt(conversationId.slice(-2), 16) % LANES

export class Writer {
  private readonly deps: BatchDeps
  private readonly meter: WriterMeter
  /** Per lane one queue per priority, high first. */
  private readonly lanes = Array.from({ length: LANES }, () => ({ queues: [[], [], []] as Queued[][], busy: false }))
  private messages = 0
  private bytes = 0
  private idle: (() => void)[] = []

  constructor(deps: BatchDeps, meter: WriterMeter) {
    this.deps = deps
    this.meter = meter
  }

  /**
   * Commits a decided send. When it resolves, a crash loses nothing (I1); order within (conversation, priority) is the order of calls.
   * @throws RelayError OVERLOADED at once when the pipeline is full, or what the batch found (batch.ts); nothing is stored then.
   */
  append(entry: Entry): Promise<Outcome> {
    const bytes = entry.rows.reduce(
      (sum, { recipient }) => sum + recipient.content.length + recipient.iv.length + 100,
      300,
    )
    if (this.messages >= PIPELINE_MAX_MESSAGES || this.bytes + bytes > PIPELINE_MAX_BYTES)
      throw new RelayError('OVERLOADED', 'too many messages on their way', { retryAfterMs: OVERLOADED_RETRY_MS })
    this.messages++
    this.bytes += bytes
    const lane = laneOf(entry.send.conversationId)
    return new Promise<Outcome>((resolve, reject) => {
      this.lanes[lane]!.queues[entry.send.priority - 1]!.push({ ...entry, bytes, resolve, reject })
      this.wake(lane)
    }).finally(() => {
      this.messages--
      this.bytes -= bytes
    })
  }

  /** Resolves when nothing is on its way any more. */
  async drained(): Promise<void> {
    if (this.lanes.some((lane) => lane.busy)) await new Promise<void>((resolve) => this.idle.push(resolve))
  }

  private wake(index: number): void {
    const lane = this.lanes[index]!
    if (lane.busy) return
    lane.busy = true
    setImmediate(() => void this.run(lane))
  }

  private async run(lane: (typeof this.lanes)[number]): Promise<void> {
    for (let batch = take(lane.queues); batch.length > 0; batch = take(lane.queues)) {
      this.meter.depth(this.messages)
      const began = performance.now()
      await commitBatch(batch, this.deps)
      const rows = batch.reduce((sum, each) => sum + each.rows.length, 0)
      this.meter.batch(batch.length, rows, (performance.now() - began) / 1000)
    }
    this.meter.depth(this.messages)
    lane.busy = false
    if (this.lanes.every((each) => !each.busy)) for (const resolve of this.idle.splice(0)) resolve()
  }
}

/** The next batch: high before normal before low, at least one send. */
function take(queues: Queued[][]): Queued[] {
  const batch: Queued[] = []
  let rows = 0
  let bytes = 0
  for (const queue of queues) {
    let taken = 0
    for (const each of queue) {
      rows += each.rows.length
      bytes += each.bytes
      if (
        batch.length > 0 &&
        (rows > BATCH_MAX_ROWS || bytes > BATCH_MAX_BYTES || batch.length >= BATCH_MAX_MESSAGES)
      ) {
        queue.splice(0, taken)
        return batch
      }
      batch.push(each)
      taken++
    }
    queue.splice(0, taken)
  }
  return batch
}
