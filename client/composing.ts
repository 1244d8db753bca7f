// Messages of one's own from the app's call to the outbox, and back again when they failed. Getting them to the relay is in delivery.ts.
import { type Uuid, uuidV7 } from '../proto/ids.ts'
import type { Body } from './content.ts'
import type { Core } from './core.ts'
import { addMessage, changeMessage, type Message } from './messages.ts'
import { enqueue, OUTBOX_MAX_AGE_MS, removeRow, requeue, rowOf } from './outbox.ts'

/** Stores a new one as `sending`. @throws OutboxFull. */
export function compose(core: Core, conversationId: Uuid, body: Body): Message {
  const { userId, deviceId } = core.account.self
  const nowMs = core.account.now()
  const clientMessageId = uuidV7(nowMs)
  const message: Message = {
    ...{ id: clientMessageId, messageId: '', conversationId, senderUserId: userId, senderDeviceId: deviceId },
    ...{ sentAtMs: nowMs, state: 'sending', failure: '', body, withheld: false },
    ...{ audience: 0, delivered: 0, read: 0 },
  }
  core.storage.transaction((tx) => {
    const row = { clientMessageId, conversationId, queuedAtMs: nowMs, body }
    enqueue(tx, { ...row, kind: 'message', to: null, resendOf: '' })
    addMessage(tx, message)
  })
  core.events.emit('message', message)
  return message
}

/** A failed one is to be sent again: the same bytes under the same id. @throws Error when it did not fail, or is too old for that. */
export function recompose(core: Core, id: Uuid): void {
  const { userId, deviceId } = core.account.self
  const changed = core.storage.transaction((tx) => {
    const row = rowOf(tx, id)
    if (!row?.failure) throw new Error('this message did not fail, or is too old to be sent again')
    if (core.account.now() - row.queuedAtMs > OUTBOX_MAX_AGE_MS)
      throw new Error('this message is too old to be sent under its id')
    requeue(tx, row)
    return changeMessage(tx, { senderUserId: userId, senderDeviceId: deviceId, id }, { state: 'sending', failure: '' })
  })
  if (changed) core.events.emit('message_changed', changed)
}

/** Gives a failed one up; it stays shown as failed. */
export function giveUp(core: Core, id: Uuid): void {
  core.storage.transaction((tx) => {
    const row = rowOf(tx, id)
    if (row?.failure) removeRow(tx, row)
  })
}
