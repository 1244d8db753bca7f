// May this send happen, and to which queues does it go? Pure: decides on a roster, which append_batch later confirms under its locks.
import { type DeviceAddress, invalid, RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import type { Recipient, Send, Sender } from './frames.ts'
import { addressOf, type Roster, type RosterDevice } from './rosters.ts'

/** What a user is to a conversation; 'none' is also a conversation that does not exist (I13). 'active' also means pending. */
export type Membership = 'active' | 'invited' | 'former' | 'archived' | 'none'

/** One delivery row to be: a current device and what it gets. */
export type Addressed = { device: RosterDevice; recipient: Recipient }

/** The same for a conversation that does not exist and one the sender was never in (I13). [S-1] */
export const unknownConversation = (): RelayError => invalid('conversation_id names no conversation of yours')

/** How a user who is in no roster is answered. @param membership as conversation-reads.ts has it. I13 [S-9.1] [S-9.2] */
export function notMember(membership: Membership): RelayError {
  if (membership === 'former') return new RelayError('FORBIDDEN', 'you are no longer a member of the conversation')
  if (membership === 'invited') return new RelayError('FORBIDDEN', 'you have not accepted the invitation')
  if (membership === 'archived') return new RelayError('FORBIDDEN', 'the conversation is archived')
  // An active member whose device is in no roster: the device was unlinked.
  if (membership === 'active') return new RelayError('UNAUTHENTICATED', 'this device is no longer linked')
  return unknownConversation()
}

/**
 * Compares the addressed devices with the current ones. [S-4]
 * @throws RelayError INVALID_REQUEST (not a member), FORBIDDEN (archived), DEVICE_MISMATCH; nothing is stored.
 */
export function decide(sender: Sender, send: Send, roster: Roster): Addressed[] {
  if (!roster.byKey.has(sender.deviceKey)) throw unknownConversation()
  if (roster.archived) throw new RelayError('FORBIDDEN', 'the conversation is archived')

  const addressed: Addressed[] = []
  const extra: DeviceAddress[] = []
  const stale: DeviceAddress[] = []
  const named = new Set<number>([sender.deviceKey])
  for (const recipient of send.recipients) {
    const { userId, deviceId, registrationId } = recipient
    const device = roster.byAddress.get(addressOf(userId, deviceId))
    if (!device || device.deviceKey === sender.deviceKey) {
      extra.push({ userId, deviceId, registrationId })
      continue
    }
    named.add(device.deviceKey)
    if (device.registrationId !== registrationId) stale.push(toAddress(device))
    else addressed.push({ device, recipient })
  }
  const missing =
    send.scope === 'ALL' && named.size <= roster.devices.length
      ? roster.devices.filter((each) => !named.has(each.deviceKey)).map(toAddress)
      : []
  if (missing.length || extra.length || stale.length)
    throw new RelayError('DEVICE_MISMATCH', 'the addressed devices are not the current ones', {
      mismatch: { missing, extra, stale },
    })
  return addressed
}

/** Where a send goes: to queues, and to whom it is that does not want it, or has not been asked yet. */
export type Route = {
  rows: Addressed[]
  /** Devices of who blocks the sender, or to whom his devices may say nothing yet: addressed like any other, and given nothing. [V-6.3] [V-7.1] */
  suppressed: RosterDevice[]
  /** The pending member it is for: such messages are counted. [V-6.2] */
  asks: Uuid | null
  /** The sender was the pending member, and accepts by it. [V-6.1] */
  accepts: boolean
}

/** Decides, and sorts by who wants it. @throws as decide does: who is blocked cannot tell by a refusal. */
export function route(sender: Sender, send: Send, roster: Roster): Route {
  const addressed = decide(sender, send, roster)
  const { pendingUser, blockers } = roster
  const others = addressed.filter(({ device }) => device.userId !== sender.userId)
  const isPending = pendingUser === sender.userId
  // What devices send each other by themselves is SCOPE_SUBSET: only a message of the user to the other one is an answer, and before
  // it, what his devices say would tell the stranger that it was fetched. [V-6.3]
  const isTooEarly = isPending && send.scope === 'SUBSET'
  const isUnwanted = ({ device: { userId } }: Addressed) =>
    userId !== sender.userId && (isTooEarly || blockers.includes(userId))
  const isSuppressed = (isTooEarly || blockers.length > 0) && others.some(isUnwanted)
  return {
    rows: isSuppressed ? addressed.filter((each) => !isUnwanted(each)) : addressed,
    suppressed: isSuppressed ? others.filter(isUnwanted).map(({ device }) => device) : [],
    asks: pendingUser !== null && !isPending && others.length > 0 ? pendingUser : null,
    accepts: isPending && send.scope === 'ALL' && others.some(({ recipient }) => recipient.withheld === 0),
  }
}

const toAddress = (device: { userId: Uuid; deviceId: number; registrationId: number }): DeviceAddress => ({
  userId: device.userId,
  deviceId: device.deviceId,
  registrationId: device.registrationId,
})
