// After the relay's database was restored from a backup: what it had accepted and may have forgotten goes out again. [K-9.1]
import type { Core } from './core.ts'
import { frameOf } from './delivery.ts'
import { changeMessage } from './messages.ts'
import type { Recipient } from './mismatch.ts'
import { rest } from './rest.ts'
import { allSent, type SentRow } from './sentlog.ts'
import { idOf, nameOf, refusal, type ServerFrame } from './wire.ts'

/** [S-4.5] */
const MAX_ROUNDS = 5
/** [S-9.5] Nothing is decided by these. */
const LATER = ['RATE_LIMITED', 'OVERLOADED', 'UNAVAILABLE']

/**
 * The same ids and bytes: whoever has them drops them. Devices that are gone or began anew are left out, those that came since were
 * not meant. What the relay refuses is left. @throws Disconnected: to be done again, whole.
 */
export async function resendAll(core: Core): Promise<void> {
  const { userId: senderUserId, deviceId: senderDeviceId } = core.account.self
  for (const row of core.storage.transaction(allSent)) {
    const accepted = await resend(core, row)
    const which = { senderUserId, senderDeviceId, id: row.clientMessageId }
    // A message that was forgotten has another message_id now.
    if (accepted) core.storage.transaction((tx) => changeMessage(tx, which, { messageId: idOf(accepted.messageId) }))
  }
}

async function resend(core: Core, row: SentRow): Promise<ServerFrame['messageAccepted'] | null> {
  let recipients: Recipient[] = row.recipients
  let isSubset = false
  for (let rounds = 0; rounds < MAX_ROUNDS && recipients.length > 0; ) {
    const answer = await core.connection.ask(frameOf({ ...row, recipients, to: isSubset ? [] : null }))
    if (!answer.error) return answer.messageAccepted
    const { code, mismatch, retryAfterMs } = refusal(answer.error)
    if (LATER.includes(code)) await rest(core, Math.max(retryAfterMs, 500))
    else if (code !== 'DEVICE_MISMATCH' || !mismatch) return null
    else {
      const gone = new Set([...mismatch.extra, ...mismatch.stale].map(nameOf))
      recipients = recipients.filter((each) => !gone.has(nameOf(each)))
      isSubset = true
      rounds++
    }
  }
  return null
}
