// SystemEvents: what the relay itself puts into devices' queues, inside the transaction that makes it true. [V-1]
import { type Uuid, uuidV7 } from '../proto/ids.ts'
import type { Transaction } from './database.ts'
import { encodeSystemEvent } from './event-codec.ts'
import type { Committed, SystemEventBody } from './frames.ts'

export type SystemEventInput = {
  /** Null for events that belong to no conversation. */
  conversationId: Uuid | null
  event: SystemEventBody
  /** Distinct; their device_locks rows are locked by this transaction, ascending. I4 */
  deviceKeys: number[]
  nowMs: number
}

/**
 * Adds one event to the queues of these devices, as part of `tx`. Not subject to the queue quota.
 * @returns what to hand to the fan-out once the transaction has committed; best effort, the queues already hold it.
 */
export async function enqueueEvent(tx: Transaction, input: SystemEventInput): Promise<Committed[]> {
  if (input.deviceKeys.length === 0) return []
  const messageId = uuidV7(input.nowMs)
  const content = encodeSystemEvent(input.event)
  const rows = await tx<{ device_key: number; sequence: number }[]>`
    select * from enqueue_event(${input.deviceKeys}::bigint[], ${messageId}, ${input.conversationId}, ${content}, ${new Date(input.nowMs)})`
  return rows.map((row) => ({
    deviceKey: row.device_key,
    delivery: {
      sequence: row.sequence,
      messageId,
      conversationId: input.conversationId,
      sentAtMs: input.nowMs,
      sender: null,
      messageType: 1,
      ciphertextType: 0,
      withheld: 0,
      content,
      iv: new Uint8Array(0),
      replyToMessageId: null,
      attachmentUrl: null,
      thumbnailUrl: null,
      urgent: false,
    },
  }))
}
