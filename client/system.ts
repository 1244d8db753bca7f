// What the relay itself tells through the queue: changes of conversations, of one's own devices, of others' identity keys. [V-1]
import type { Uuid } from '../proto/ids.ts'
import { dropDevice, noteDevice } from './book.ts'
import { noteSpoken } from './complaints.ts'
import type { Conversations } from './conversations.ts'
import type { Core } from './core.ts'
import { CHANGE, type ChangeName } from './roster.ts'
import type { Transaction } from './storage.ts'
import { noteLinked, noteUnlinked } from './unlinked.ts'
import { DeviceChange, type Envelope, idOf, Role } from './wire.ts'

const nameOfChange = (value: number): ChangeName | undefined =>
  (Object.keys(CHANGE) as ChangeName[]).find((name) => CHANGE[name] === value)

/** unsettled: a chain must be fetched. renewed: a user is said to have another identity key. queued: something may wait in its outbox. */
export type SystemHooks = {
  unsettled(conversationId: Uuid): void
  renewed(userId: Uuid): void
  queued(conversationId: Uuid): void
}

/** @param telling events to raise after the commit. */
export function takeSystemEvent(
  core: Core,
  conversations: Conversations,
  tx: Transaction,
  envelope: Envelope,
  telling: (() => void)[],
  hooks: SystemHooks,
): void {
  const { conversationChanged, devicesChanged, identityChanged, memberAccepted } = envelope.systemEvent ?? {}
  const conversationId = idOf(envelope.conversationId)
  if (conversationChanged && conversationId) {
    const change = nameOfChange(conversationChanged.change ?? 0)
    // A kind of change from a later protocol: the chain goes on without it being understood.
    const fits =
      change !== undefined &&
      conversations.addLink(tx, conversationId, {
        ...{ revision: conversationChanged.revision ?? 0, change, actor: idOf(conversationChanged.actorUserId) },
        subjects: (conversationChanged.subjectUserIds ?? []).map(idOf),
        role: change !== 'role_changed' ? null : conversationChanged.role === Role.ROLE_ADMIN ? 'admin' : 'member',
        signedChange: Uint8Array.from(conversationChanged.signedChange ?? []),
        verifiedUnder: null,
      })
    telling.push(() => {
      if (fits) core.events.emit('conversation', { conversationId })
      else hooks.unsettled(conversationId)
    })
  }
  if (devicesChanged) {
    const deviceId = devicesChanged.deviceId ?? 0
    const change = devicesChanged.change === DeviceChange.DEVICE_CHANGE_LINKED ? 'linked' : 'unlinked'
    const { userId } = core.account.self
    if (change === 'unlinked') {
      dropDevice(tx, { userId, deviceId })
      noteUnlinked(tx, deviceId)
    } else {
      noteDevice(tx, { userId, deviceId, registrationId: devicesChanged.registrationId ?? 0 })
      noteLinked(tx, deviceId)
    }
    telling.push(() => core.events.emit('own_devices', { change, deviceId }))
  }
  if (memberAccepted && conversationId) {
    const userId = idOf(memberAccepted.userId)
    if (userId === core.account.self.userId) noteSpoken(core, tx, conversationId)
    telling.push(() => {
      core.events.emit('member_accepted', { conversationId, userId })
      hooks.queued(conversationId)
    })
  }
  // [V-5] A reason to look, and nothing else.
  if (identityChanged) telling.push(() => hooks.renewed(idOf(identityChanged.userId)))
}
