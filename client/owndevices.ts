// The devices of one's own user, as the relay lists them, and the end of one. [I-3]
import type { Core } from './core.ts'

/** A device of one's own user; name by its own word. */
export type OwnDevice = { deviceId: number; name: string; createdAtMs: number }

type DeviceJson = { device_id: number; name: string; created_at_ms: number }

/** @throws RelayError. */
export async function listDevices({ account }: Core): Promise<OwnDevice[]> {
  const { devices } = await account.http.call<{ devices: DeviceJson[] }>('GET', '/v1/devices')
  return devices.map(({ device_id: deviceId, name, created_at_ms: createdAtMs }) => ({ deviceId, name, createdAtMs }))
}

/** @throws RelayError FORBIDDEN, NOT_FOUND. */
export const unlinkDevice = ({ account }: Core, deviceId: number): Promise<void> =>
  account.http.call('DELETE', `/v1/devices/${deviceId}`)
