// What the relay tells devices by itself, as the bytes that queues hold. Other frames are codec.ts's.
import { sealpost } from '../proto/generated/relay.js'
import { uuidToBytes } from '../proto/ids.ts'
import type { SystemEventBody } from './frames.ts'

const v1 = sealpost.v1

/** The stored form of a SystemEvent. [V-1] */
export function encodeSystemEvent(body: SystemEventBody): Uint8Array {
  if ('devicesChanged' in body) {
    const { change, deviceId, registrationId } = body.devicesChanged
    return v1.SystemEvent.encode({
      devicesChanged: { change: v1.DeviceChange[`DEVICE_CHANGE_${change}`], deviceId, registrationId },
    }).finish()
  }
  if ('identityChanged' in body) {
    const { userId, identityKey } = body.identityChanged
    return v1.SystemEvent.encode({ identityChanged: { userId: uuidToBytes(userId), identityKey } }).finish()
  }
  if ('memberAccepted' in body)
    return v1.SystemEvent.encode({ memberAccepted: { userId: uuidToBytes(body.memberAccepted.userId) } }).finish()
  const c = body.conversationChanged
  return v1.SystemEvent.encode({
    conversationChanged: {
      change: v1.ConversationChange[`CONVERSATION_CHANGE_${c.change}`],
      actorUserId: uuidToBytes(c.actorUserId),
      subjectUserIds: c.subjectUserIds.map(uuidToBytes),
      role:
        c.role === 'admin' ? v1.Role.ROLE_ADMIN : c.role === 'member' ? v1.Role.ROLE_MEMBER : v1.Role.ROLE_UNSPECIFIED,
      revision: c.revision,
      signedChange: c.signedChange,
    },
  }).finish()
}
