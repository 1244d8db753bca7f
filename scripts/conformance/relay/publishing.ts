// What the checks of uploads share: bodies of PUT /v1/keys by what they bring.
import { same } from '../check.ts'
import type { Device } from '../device.ts'
import { type Answer, ok, refused } from '../http.ts'
import { type PublicPrekey, prekeyJson } from '../keys.ts'

export const upload = (device: Device, json: object): Promise<Answer> => device.put('/v1/keys', json)
export const oneTime = (...keys: PublicPrekey[]) => ({ one_time_prekeys: keys.map(prekeyJson) })
export const kyberOneTime = (...keys: PublicPrekey[]) => ({ one_time_kyber_prekeys: keys.map(prekeyJson) })
export const signed = (key: PublicPrekey) => ({ signed_prekey: prekeyJson(key) })
export const lastResort = (key: PublicPrekey) => ({ last_resort_kyber_prekey: prekeyJson(key) })
export const stock = async (device: Device) => ok(await device.get('/v1/keys'), 200).body

/** Each is refused, and the stock is then what it was. */
export async function allRefused(
  device: Device,
  tries: Record<string, object>,
  code = 'INVALID_REQUEST',
): Promise<void> {
  const before = (await device.get('/v1/keys')).text
  for (const [what, json] of Object.entries(tries)) refused(await upload(device, json), code, what)
  same((await device.get('/v1/keys')).text, before, 'after the refusals, as stock')
}

/** A copy with some bits of one byte flipped. */
export const flip = (bytes: Uint8Array, at: number, mask = 1): Uint8Array => {
  const copy = Buffer.from(bytes)
  copy[at]! ^= mask
  return copy
}
