// Repair of what could not be read: libsignal's retry receipt to the sender's device, and our answer to one: the session is ended if
// it is the broken one, and what the peer missed is sent to it again. Receipts are not signed: a relay can forge them, so they are
// bounded and cost no more than a session.
import { type Uuid, uuidV7 } from '../proto/ids.ts'
import { addressOf } from './book.ts'
import type { Core } from './core.ts'
import { type Incoming, keepUnreadable, unreadable } from './incoming.ts'
import { enqueue, hasRoom } from './outbox.ts'
import { takeForResend } from './sentlog.ts'
import type { Transaction } from './storage.ts'
import { Table } from './tables.ts'
import { CIPHERTEXT, nameOf } from './wire.ts'

/** A session is ended on a peer's word at most this often. */
const ARCHIVE_EVERY_MS = 60_000
const archived = new Table<number>('archived')

/** Asks the sender's device for this message once more: type 8, to it alone. Does nothing while the outbox is half full. */
export function complain(core: Core, tx: Transaction, incoming: Incoming): void {
  const { sender, conversationId, content, type, sentAtMs } = incoming
  if (!hasRoom(tx)) return
  let receipt: Uint8Array
  try {
    receipt = core.crypto.complain(content, type, sentAtMs, sender.deviceId)
  } catch {
    // Not even the outside of a ciphertext: there is nothing to name.
    return
  }
  const address = addressOf(core, tx, sender)
  const nowMs = core.account.now()
  enqueue(tx, {
    ...{ kind: 'complaint', clientMessageId: uuidV7(nowMs), conversationId, queuedAtMs: nowMs, resendOf: '' },
    ...{ to: [address], body: {} },
    recipients: [{ ...address, type: CIPHERTEXT.PLAINTEXT, content: receipt, withheld: null }],
  })
}

/** Conversations that the user has accepted, or written in. */
const spokenIn = new Table<true>('spoken_in')

/**
 * The user accepted the conversation, or wrote in it for the first time: what could not be read is complained of once more. Before,
 * the relay lets nothing through that devices say by themselves. [V-6.3] Again it does nothing.
 */
export function noteSpoken(core: Core, tx: Transaction, conversationId: Uuid): void {
  if (spokenIn.has(tx, conversationId)) return
  spokenIn.put(tx, conversationId, true)
  for (const { record } of unreadable.scan(tx))
    if (record.conversationId === conversationId && record.reason !== 'untrusted_identity') complain(core, tx, record)
}

/** A peer could not read what we sent. */
export function answerComplaint(core: Core, tx: Transaction, incoming: Incoming): void {
  const { sender, conversationId } = incoming
  const name = nameOf(sender)
  const nowMs = core.account.now()
  let complaint: ReturnType<Core['crypto']['readComplaint']>
  try {
    complaint = core.crypto.readComplaint(tx, sender, incoming.content)
  } catch {
    keepUnreadable(tx, incoming, 'unreadable')
    return
  }
  if (complaint.deviceId !== core.account.self.deviceId) return
  if (complaint.isAboutCurrentSession && nowMs - (archived.get(tx, name) ?? -Infinity) >= ARCHIVE_EVERY_MS) {
    core.crypto.archive(tx, sender)
    archived.put(tx, name, nowMs)
  }
  for (const row of takeForResend(tx, complaint.sentAtMs, name)) {
    if (row.conversationId !== conversationId || !hasRoom(tx)) continue
    enqueue(tx, {
      ...{ kind: 'resend', clientMessageId: uuidV7(nowMs), conversationId, queuedAtMs: nowMs },
      ...{ to: [addressOf(core, tx, sender)], body: row.body, resendOf: row.clientMessageId },
    })
  }
}
