// After the relay's database was restored from a backup: what it had accepted and may have forgotten goes out again. [K-9.1]
import type { Core } from './core.ts'
import { frameOf } from './delivery.ts'
import { changeMessage } from './messages.ts'
import { allSent } from './sentlog.ts'
import { idOf } from './wire.ts'

/** The same ids and bytes: whoever has them drops them. What the relay refuses is left: its devices are others now. @throws Disconnected. */
export async function resendAll(core: Core): Promise<void> {
  const { userId: senderUserId, deviceId: senderDeviceId } = core.account.self
  for (const row of core.storage.transaction(allSent)) {
    const { messageAccepted } = await core.connection.ask(frameOf({ ...row, to: null }))
    const which = { senderUserId, senderDeviceId, id: row.clientMessageId }
    // A message that was forgotten has another message_id now.
    if (messageAccepted)
      core.storage.transaction((tx) => changeMessage(tx, which, { messageId: idOf(messageAccepted.messageId) }))
  }
}
