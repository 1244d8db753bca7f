// After the relay's database was restored from a backup: what it had accepted and may have forgotten goes out again. [K-9.1]
import type { ErrorCode } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import type { Core } from './core.ts'
import { frameOf } from './delivery.ts'
import { FORGOTTEN, isForgotten } from './forgotten.ts'
import { changeMessage, findMessage, type Message } from './messages.ts'
import type { Recipient } from './mismatch.ts'
import { addFailed } from './outbox.ts'
import { LATER, refusalTo, rest } from './rest.ts'
import { allSent, removeSent, type SentRow } from './sentlog.ts'
import { idOf, nameOf, refusal, type ServerFrame } from './wire.ts'

/** [S-4.5] */
const MAX_ROUNDS = 5

/**
 * The same ids and bytes: whoever has them drops them. Devices that are gone or began anew are left out, those that came since were
 * not meant. What is FORBIDDEN because the other one's acceptance was forgotten is failed from now on, unless he is known to have it, and
 * so is what not everybody has of a conversation that was forgotten; what the relay refuses otherwise is left. @param isMember as the signed chain has it. @throws Disconnected, Unreachable: to be done
 * again, whole.
 */
export async function resendAll(core: Core, isMember: (id: Uuid, userId: Uuid) => boolean): Promise<void> {
  const { userId: senderUserId, deviceId: senderDeviceId } = core.account.self
  /** By conversation: whether it is one of the user's for the relay, too. */
  const accepted = new Map<Uuid, boolean>()
  const wrote = ({ recipients }: SentRow) => recipients.some((to) => to.userId !== senderUserId && !to.withheld)
  for (const row of core.storage.transaction(allSent)) {
    const { conversationId } = row
    const which = { senderUserId, senderDeviceId, id: row.clientMessageId }
    if (core.storage.transaction((tx) => isForgotten(tx, conversationId))) {
      failAfterAll(core, row, which, { failure: FORGOTTEN })
      continue
    }
    // Who wrote there had accepted it. What goes to some of the devices only, as below, accepts nothing. [V-6.1]
    if (!accepted.has(conversationId) && wrote(row) && isMember(conversationId, senderUserId))
      // Refused when its user is no member there any more, or it is archived.
      accepted.set(
        conversationId,
        (await refusalTo(core, 'POST', `/v1/conversations/${conversationId}/accept`)) === null,
      )
    const answer = await resend(core, row)
    // A message that was forgotten has another message_id now.
    if (typeof answer === 'object' && answer)
      core.storage.transaction((tx) => changeMessage(tx, which, { messageId: idOf(answer.messageId) }))
    // Otherwise the user left, or it was archived since: the message had arrived by then.
    else if (answer === 'FORBIDDEN' && accepted.get(conversationId))
      failAfterAll(core, row, which, { failure: answer, audience: 0, delivered: 0, read: 0 })
  }
}

/** It is the user's to send it again: once the other one has accepted [V-6.2], or in another conversation. */
function failAfterAll(
  core: Core,
  row: SentRow,
  which: Parameters<typeof changeMessage>[1],
  change: Partial<Message> & { failure: string },
): void {
  const changed = core.storage.transaction((tx) => {
    const message = findMessage(tx, which)
    // Delivered: nothing is lost.
    if (message?.state !== 'sent') return null
    removeSent(tx, row)
    const { clientMessageId, conversationId, body, recipients } = row
    addFailed(tx, {
      ...{ kind: 'message', clientMessageId, conversationId, body, recipients, failure: change.failure },
      ...{ queuedAtMs: message.sentAtMs, to: null, resendOf: '', plaintext: null, rounds: 0 },
    })
    return changeMessage(tx, which, { ...change, state: 'failed' })
  })
  if (changed) core.events.emit('message_changed', changed)
}

/** @returns the code of a refusal; null when it is left for another reason. */
async function resend(core: Core, row: SentRow): Promise<ServerFrame['messageAccepted'] | ErrorCode | null> {
  let recipients: Recipient[] = row.recipients
  let isSubset = false
  for (let rounds = 0; rounds < MAX_ROUNDS && recipients.length > 0; ) {
    const answer = await core.connection.ask(frameOf({ ...row, recipients, to: isSubset ? [] : null }))
    if (!answer.error) return answer.messageAccepted
    const { code, mismatch, retryAfterMs } = refusal(answer.error)
    if (LATER.includes(code)) await rest(core, Math.max(retryAfterMs, 500))
    else if (code !== 'DEVICE_MISMATCH' || !mismatch) return code
    else {
      const gone = new Set([...mismatch.extra, ...mismatch.stale].map(nameOf))
      recipients = recipients.filter((each) => !gone.has(nameOf(each)))
      isSubset = true
      rounds++
    }
  }
  return null
}
