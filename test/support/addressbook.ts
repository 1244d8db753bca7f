// Which devices a client addresses: what it was told of members and their devices, corrected by each DEVICE_MISMATCH.
import type { sealpost } from '../../proto/generated/relay.js'
import { uuidFromBytes } from '../../proto/ids.ts'

export type Address = { userId: string; deviceId: number; registrationId: number }

/** What a mismatch said. [S-4.3] */
export type Mismatch = { missing: Address[]; extra: Address[]; stale: Address[] }

const addressOf = (each: sealpost.v1.DeviceAddress.$Properties): Address => ({
  userId: uuidFromBytes(each.userId!),
  deviceId: each.deviceId!,
  registrationId: each.registrationId!,
})

export const readMismatch = (wire: sealpost.v1.DeviceMismatch.$Properties): Mismatch => ({
  missing: (wire.missing ?? []).map(addressOf),
  extra: (wire.extra ?? []).map(addressOf),
  stale: (wire.stale ?? []).map(addressOf),
})

export class AddressBook {
  /** User id → device id → registration id. */
  private readonly devices = new Map<string, Map<number, number>>()
  /** Conversation id → user ids. */
  private readonly members = new Map<string, Set<string>>()

  knows(conversationId: string): boolean {
    return this.members.has(conversationId)
  }

  knowsUser(userId: string): boolean {
    return this.devices.has(userId)
  }

  addConversation(conversationId: string, userIds: string[]): void {
    this.members.set(conversationId, new Set(userIds))
  }

  addUser(userId: string, devices: { deviceId: number; registrationId: number }[]): void {
    this.devices.set(userId, new Map(devices.map((each) => [each.deviceId, each.registrationId])))
  }

  /** Every known device of a conversation. */
  of(conversationId: string): Address[] {
    return [...(this.members.get(conversationId) ?? [])].flatMap((userId) =>
      [...(this.devices.get(userId) ?? [])].map(([deviceId, registrationId]) => ({ userId, deviceId, registrationId })),
    )
  }

  /** The address of one device. @throws when it is unknown. */
  find(userId: string, deviceId: number): Address {
    const registrationId = this.devices.get(userId)?.get(deviceId)
    if (registrationId === undefined) throw new Error('nothing is known of that device')
    return { userId, deviceId, registrationId }
  }

  /** [S-4.4] */
  correct(conversationId: string, { missing, extra, stale }: Mismatch): void {
    for (const each of extra) this.devices.get(each.userId)?.delete(each.deviceId)
    for (const { userId, deviceId, registrationId } of [...missing, ...stale]) {
      this.members.get(conversationId)?.add(userId)
      if (!this.devices.has(userId)) this.devices.set(userId, new Map())
      this.devices.get(userId)!.set(deviceId, registrationId)
    }
  }
}
