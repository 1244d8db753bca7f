// One's own devices that were unlinked: a relay restored from a backup may have them back, with whoever holds them. [K-9.1]
import { RelayError } from '../proto/errors.ts'
import type { Core } from './core.ts'
import type { Transaction, Writer } from './storage.ts'
import { Table } from './tables.ts'

const gone = new Table<1>('unlinked')

/** A device of one's own user was unlinked. */
export const noteUnlinked = (to: Writer, deviceId: number): void => gone.put(to, String(deviceId), 1)
/** Its number was given to a new device. */
export const noteLinked = (to: Writer, deviceId: number): void => gone.delete(to, String(deviceId))

const allGone = (tx: Transaction): number[] => gone.scan(tx).map(({ key }) => Number(key))

/** Unlinks again what is back; a linked device can only tell its user. @throws what HTTP throws. */
export async function unlinkAgain(core: Core): Promise<void> {
  const { http, self } = core.account
  const { devices } = await http.call<{ devices: { device_id: number }[] }>('GET', '/v1/devices')
  const known = new Set(core.storage.transaction(allGone))
  for (const { device_id } of devices) {
    if (!known.has(device_id)) continue
    core.events.emit('problem', { what: 'restored', detail: `device ${device_id}, which was unlinked, was back` })
    if (self.deviceId !== 1) continue
    await http.call('DELETE', `/v1/devices/${device_id}`).catch((error: unknown) => {
      if (!(error instanceof RelayError) || error.code !== 'NOT_FOUND') throw error
    })
  }
}
