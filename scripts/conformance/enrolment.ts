// The body that brings a device to a relay, for the first time, by linking, or with a new identity. [H-4] [H-5] [I-6]
import { base64 } from './bytes.ts'
import { type DeviceKeys, type Lasting, type PublicPrekey, prekeyJson } from './keys.ts'

export type EnrolmentOptions = {
  purpose?: 'register' | 'link' | 'identity'
  /** The text the proof covers besides the keys. */
  code?: string
  nowMs?: number
  /** How many one-time keys of each kind; 2 unless said. EC from id 1, Kyber from id 2 beside last-resort key 1. */
  oneTime?: number
  kyberOneTime?: number
  /** False = a device without Kyber keys. */
  kyber?: boolean
}

// biome-ignore lint/suspicious/noExplicitAny: checks break it in every way
export type EnrolmentJson = any

/** Keys as they were published; of each kind in the order of upload. */
export type Published = Lasting & { oneTime: PublicPrekey[]; kyberOneTime: PublicPrekey[] }

/** Makes the keys and the body. */
export function enrolment(
  keys: DeviceKeys,
  realm: string,
  options: EnrolmentOptions = {},
): { json: EnrolmentJson; published: Published } {
  const { purpose = 'register', kyber = true, oneTime = 2, kyberOneTime = 2 } = options
  const published: Published = {
    signed: keys.signed(1),
    lastResort: kyber ? keys.kyber(1, true) : null,
    oneTime: keys.oneTime(1, oneTime),
    kyberOneTime: kyber ? keys.kybers(2, kyberOneTime) : [],
  }
  const json = {
    identity_key: base64(keys.identityKey),
    registration_id: keys.registrationId,
    signed_prekey: prekeyJson(published.signed),
    ...(published.lastResort && { last_resort_kyber_prekey: prekeyJson(published.lastResort) }),
    one_time_prekeys: published.oneTime.map(prekeyJson),
    one_time_kyber_prekeys: published.kyberOneTime.map(prekeyJson),
    identity_proof: keys.proof(published, { ...options, purpose, realm }),
  }
  return { json, published }
}
