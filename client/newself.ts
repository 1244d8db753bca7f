// What becomes of everything stored when this device begins anew: one transaction after which it is device 1 of its user, with other
// keys. Messages, conversations and what is known of others stay; sessions, and what was said in them between devices, go.
import { forgetDevices } from './book.ts'
import type { Core } from './core.ts'
import type { MadeKeys, Slot } from './crypto.ts'
import { noteUndiscovered } from './discovery.ts'
import type { Enrolled } from './introduction.ts'
import { changeMessage, type Message, moveMessage } from './messages.ts'
import { restartOutbox } from './outbox.ts'
import { published, publishedFrom } from './prekeys.ts'
import { forgetCode } from './recovery.ts'
import { forgetSent } from './sentlog.ts'
import { Stage } from './stage.ts'
import type { Transaction } from './storage.ts'
import { forgetPending } from './upkeep.ts'
import { noteUsername } from './usernames.ts'

/** @param also what else is to be stored. @param username '' = none; null = as it was. */
export async function startAnew(
  core: Core,
  answer: Enrolled,
  { slot, registrationId, keys }: { slot: Slot; registrationId: number; keys: MadeKeys },
  username: string | null,
  also: (tx: Transaction) => void,
): Promise<void> {
  const { crypto, account, storage, events } = core
  await core.mutex.run(() => {
    const { user_id: userId, device_id: deviceId, device_secret: secret } = answer
    const former = account.isEnrolled ? account.self.deviceId : null
    const stage = new Stage(storage)
    crypto.trust(stage, userId, crypto.ownIdentity(stage, slot))
    const changed: (Message | null)[] = []
    account.become({ userId, deviceId, registrationId }, secret, (tx) => {
      stage.apply(tx)
      crypto.adoptIdentity(tx, slot, keys)
      published.put(tx, 'self', publishedFrom(keys, account.now()))
      forgetPending(tx)
      forgetDevices(tx, userId)
      forgetSent(tx)
      forgetCode(tx)
      if (username !== null) noteUsername(tx, username)
      if (former === null) noteUndiscovered(tx)
      else changed.push(...moveOutbox(tx, { userId, former, deviceId }))
      also(tx)
    })
    for (const each of changed) if (each) events.emit('message_changed', each)
  })
}

/**
 * Under the same number a repeated message is known to whoever has it; under another it would be shown twice, so its user decides.
 * @returns what changed for the eye.
 */
function moveOutbox(
  tx: Transaction,
  { userId, former, deviceId }: { userId: string; former: number; deviceId: number },
): (Message | null)[] {
  const { kept, failed } = restartOutbox(tx, former === deviceId)
  for (const id of kept) moveMessage(tx, { senderUserId: userId, senderDeviceId: former, id }, deviceId)
  return failed.map((id) => {
    const which = { senderUserId: userId, senderDeviceId: deviceId, id }
    return changeMessage(tx, which, { state: 'failed', failure: 'began_anew' })
  })
}
