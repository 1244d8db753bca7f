// The body of `POST /v1/accounts` and `POST /v1/devices`, made as a client in another language would from proto/README.md [H-4] [I-2].
// It shares no code with the relay: a common mistake would not be seen.
import { createHash } from 'node:crypto'
import type { PublicPrekey, TestDevice } from './keys.ts'

export type EnrolmentOptions = {
  nowMs?: number
  name?: string
  invitation?: string
  /** Another than follows from linkCode. [I-6.2] */
  purpose?: 'identity'
  /** In linkCode's place in the proof. [I-6.2] */
  recoveryCode?: string
  /** Both for linking. */
  linkCode?: string
  userId?: string
  /** How many one-time keys of each kind; 2 unless said. */
  oneTime?: number
  kyberOneTime?: number
  /** False = a device without Kyber keys, X3DH only. */
  kyber?: boolean
}

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
const sha256 = (...parts: Uint8Array[]): Buffer => createHash('sha256').update(Buffer.concat(parts)).digest()

const be = (value: number, bytes: 2 | 4 | 8): Buffer => {
  const buffer = Buffer.alloc(8)
  buffer.writeBigUInt64BE(BigInt(value))
  return buffer.subarray(8 - bytes)
}

/** A prekey as the relay takes it, signed or not. [H-6] */
export const prekeyJson = (key: { keyId: number; publicKey: Uint8Array; signature?: Uint8Array }) => ({
  key_id: key.keyId,
  public_key: base64(key.publicKey),
  ...(key.signature && { signature: base64(key.signature) }),
})

/** What identity_proof signs about the keys. [I-2.2] */
function keysDigest(device: TestDevice, signed: PublicPrekey, lastResort: PublicPrekey | null): Buffer {
  const last = lastResort ? [Buffer.of(1), be(lastResort.keyId, 4), lastResort.publicKey] : [Buffer.of(0)]
  return sha256(device.identityKey, be(device.registrationId, 2), be(signed.keyId, 4), signed.publicKey, ...last)
}

/** Makes the device's keys and the request that brings them: signed prekey 1, last-resort 1, one-time EC from 0, Kyber from 2. */
export function enrolmentJson(device: TestDevice, realm: string, options: EnrolmentOptions = {}) {
  const { nowMs = Date.now(), linkCode, userId, invitation, name, kyber = true } = options
  const { oneTime = 2, kyberOneTime = 2 } = options
  const signed = device.makeSignedPrekey(1)
  const lastResort = kyber ? device.makeLastResort(1) : null
  const proof = device.sign(
    Buffer.concat([
      Buffer.from(`sealpost.v1 ${options.purpose ?? (linkCode === undefined ? 'register' : 'link')}\0${realm}`),
      sha256(Buffer.from(linkCode ?? options.recoveryCode ?? '')),
      keysDigest(device, signed, lastResort),
      be(nowMs, 8),
    ]),
  )
  return {
    identity_key: base64(device.identityKey),
    registration_id: device.registrationId,
    ...(name !== undefined && { name }),
    signed_prekey: prekeyJson(signed),
    ...(lastResort && { last_resort_kyber_prekey: prekeyJson(lastResort) }),
    one_time_prekeys: device.makeOneTimePrekeys(oneTime).map(prekeyJson),
    one_time_kyber_prekeys: kyber ? device.makeKyberPrekeys(kyberOneTime, 2).map(prekeyJson) : [],
    identity_proof: { timestamp_ms: nowMs, signature: base64(proof) },
    ...(invitation !== undefined && { invitation }),
    ...(linkCode !== undefined && { link_code: linkCode, user_id: userId }),
  }
}
