// The way back when every device is lost, or a key is in wrong hands; and what a peer sees of it.
import { type Device, InvalidRecoveryCode, RelayError } from '../index.ts'

/** On the primary, early: a code to be written down. Whoever has it has the user. @param show puts it before its user, once. */
export async function prepare(device: Device, show: (code: string) => void): Promise<void> {
  if (device.recovery.madeAtMs === null) show(await device.recovery.makeCode())
}

/** On a device with an empty store. @param code as it was typed. @returns false when name or code are not right. */
export async function comeBack(device: Device, username: string, code: string): Promise<boolean> {
  try {
    // After anything but a refusal the same call may be made again: it finds out what became of the first.
    await device.recover({ username, code, name: 'new phone' })
  } catch (error) {
    const isWrong = error instanceof InvalidRecoveryCode || (error instanceof RelayError && error.code === 'FORBIDDEN')
    if (isWrong) return false
    throw error
  }
  device.connect()
  return true
}

/** In groups whose changes were signed by a key that is gone, the user looks once who is in them. @param isRight asks. */
export async function lookAtGroups(device: Device, isRight: (userIds: string[]) => Promise<boolean>): Promise<void> {
  for (const { id, unconfirmed } of device.conversations.list()) {
    if (!unconfirmed) continue
    const userIds = unconfirmed.members.map(({ userId }) => userId)
    if (await isRight(userIds)) device.confirmMembers(id, unconfirmed.revision)
  }
}

/** On a peer's device. @param isSame asks its user to compare 60 digits with the other's, in person or by voice. */
export function watchIdentities(device: Device, isSame: (digits: string) => Promise<boolean>): void {
  device.on('identity_changed', async ({ userId }) => {
    const digits = device.offeredSafetyNumber(userId)
    if (digits && (await isSame(digits))) await device.acceptIdentity(userId)
  })
}
