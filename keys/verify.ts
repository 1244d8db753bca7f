// What can be said of keys, signatures and proofs from the bytes alone. The only importer of libsignal; no state, no database.
import { createHash, timingSafeEqual } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { PublicKey, usernames } from '@signalapp/libsignal-client'
import { invalid } from '../proto/errors.ts'
import { type Uuid, uuidToBytes } from '../proto/ids.ts'
import { KEY_ID_MAX, KEYS_MAX_PER_UPLOAD, SIGNATURE_BYTES } from '../proto/limits.ts'
import { isCanonicalEcKey, isCanonicalKyberKey } from './canonical.ts'
import type { DeviceKeys, Prekey, SignedPrekey, VerifiedKeys } from './prekeys.ts'
import { checkClock } from './statements.ts'

type Bytes = Uint8Array<ArrayBuffer>

/** Signature checks between two turns of the event loop: 20 take about 1 ms. I14 */
const CHECKS_PER_SLICE = 20

/**
 * Checks every key of an upload under the identity key: encodings, ids, repeats, signatures. No state, so it is done
 * before any transaction, and it lets the event loop turn between slices (I14).
 * @param identityKey 33 bytes, not trusted: its own encoding is checked first.
 * @throws RelayError INVALID_REQUEST naming the first bad key. [K-1] [K-2.1]
 */
export async function verifyKeys(identityKey: Uint8Array, keys: DeviceKeys): Promise<VerifiedKeys> {
  checkIdentityKey(identityKey)
  const { signedPrekey, lastResortKyberPrekey, oneTimePrekeys, oneTimeKyberPrekeys } = keys
  checkList('one_time_prekeys', oneTimePrekeys, isCanonicalEcKey)
  checkList('one_time_kyber_prekeys', oneTimeKyberPrekeys, isCanonicalKyberKey)
  if (signedPrekey) checkKey('signed_prekey', signedPrekey, isCanonicalEcKey)
  if (lastResortKyberPrekey) {
    checkKey('last_resort_kyber_prekey', lastResortKyberPrekey, isCanonicalKyberKey)
    checkRepeats([...oneTimeKyberPrekeys, lastResortKyberPrekey], (index) =>
      index === oneTimeKyberPrekeys.length ? 'last_resort_kyber_prekey' : `one_time_kyber_prekeys[${index}]`,
    )
  }

  // [K-2.6] Also across lists; the identity key is no prekey.
  const bodies = [identityKey, ...(signedPrekey ? [signedPrekey] : []), ...oneTimePrekeys].map(bodyOf)
  if (new Set(bodies).size < bodies.length) throw invalid('a public_key is twice in the upload, or is the identity key')

  const signed: [string, SignedPrekey][] = oneTimeKyberPrekeys.map((key, at) => [`one_time_kyber_prekeys[${at}]`, key])
  if (lastResortKyberPrekey) signed.unshift(['last_resort_kyber_prekey', lastResortKyberPrekey])
  if (signedPrekey) signed.unshift(['signed_prekey', signedPrekey])
  const identity = PublicKey.deserialize(identityKey as Bytes)
  for (const [at, [name, key]] of signed.entries()) {
    if (at > 0 && at % CHECKS_PER_SLICE === 0) await setImmediate()
    if (key.signature.length !== SIGNATURE_BYTES) throw invalid(`${name}.signature is not ${SIGNATURE_BYTES} bytes`)
    if (!identity.verify(key.publicKey as Bytes, key.signature as Bytes))
      throw invalid(`${name}.signature does not verify under the identity key`)
  }
  return { ...keys, identityKey } as VerifiedKeys
}

function checkIdentityKey(identityKey: Uint8Array): void {
  if (!isCanonicalEcKey(identityKey)) throw invalid('identity_key is not a canonical key')
}

function checkList(list: string, keys: Prekey[], isCanonical: (key: Uint8Array) => boolean): void {
  // [L-1] Before anything that takes time in proportion.
  if (keys.length > KEYS_MAX_PER_UPLOAD)
    throw invalid(`${list} has ${keys.length} keys, at most ${KEYS_MAX_PER_UPLOAD} are taken at once`)
  for (const [at, key] of keys.entries()) checkKey(`${list}[${at}]`, key, isCanonical)
  checkRepeats(keys, (at) => `${list}[${at}]`)
}

function checkKey(name: string, key: Prekey, isCanonical: (key: Uint8Array) => boolean): void {
  // [K-1.5]
  if (!Number.isInteger(key.keyId) || key.keyId < 0 || key.keyId > KEY_ID_MAX)
    throw invalid(`${name}.key_id is not between 0 and ${KEY_ID_MAX}`)
  if (!isCanonical(key.publicKey)) throw invalid(`${name}.public_key is not a canonical key`)
}

function checkRepeats(keys: Prekey[], nameOf: (index: number) => string): void {
  const ids = new Set<number>()
  const bodies = new Set<string>()
  for (const [at, { keyId, publicKey }] of keys.entries()) {
    if (ids.has(keyId)) throw invalid(`${nameOf(at)}.key_id ${keyId} is twice in the upload`)
    const body = Buffer.from(publicKey).toString('latin1')
    if (bodies.has(body)) throw invalid(`${nameOf(at)}.public_key is twice in the upload`)
    ids.add(keyId)
    bodies.add(body)
  }
}

const bodyOf = (key: Uint8Array | Prekey): string =>
  Buffer.from(key instanceof Uint8Array ? key : key.publicKey).toString('latin1')

/** What an identity_proof is for. [I-2.1] */
export type ProofPurpose = 'register' | 'link' | 'identity'

/** Everything a proof binds. linkCode is the code as its text, '' for none; timestampMs Unix milliseconds. [I-2] */
export type IdentityClaim = {
  purpose: ProofPurpose
  realm: string
  linkCode: string
  registrationId: number
  identityKey: Uint8Array
  signedPrekey: Prekey
  lastResortKyberPrekey: Prekey | null
  timestampMs: number
}

/** The bytes an identity_proof signs: prefix, realm, then 72 bytes of fixed layout, so no two claims share them. [I-2.1] [I-2.2] */
export function identityProofMessage(claim: IdentityClaim): Uint8Array {
  const keys = Buffer.concat([
    claim.identityKey,
    be16(claim.registrationId),
    be32(claim.signedPrekey.keyId),
    claim.signedPrekey.publicKey,
    lastResortBytes(claim.lastResortKyberPrekey),
  ])
  const timestamp = Buffer.alloc(8)
  timestamp.writeBigUInt64BE(BigInt(claim.timestampMs))
  return Buffer.concat([
    Buffer.from(`sealpost.v1 ${claim.purpose}\0${claim.realm}`),
    sha256(Buffer.from(claim.linkCode)),
    sha256(keys),
    timestamp,
  ])
}

/**
 * Returns if whoever made the claim holds the identity key, and made it for these keys within 10 minutes of nowMs. [I-2]
 * Says nothing of replay: a register or identity proof is spent by its identity key being taken, a link proof by its link code.
 * @param signature 64 bytes, not trusted; nor is anything in the claim but purpose and realm.
 * @throws RelayError INVALID_REQUEST.
 */
export function verifyIdentityProof(claim: IdentityClaim, signature: Uint8Array, nowMs: number): void {
  const { timestampMs, identityKey } = claim
  checkClock('identity_proof.timestamp_ms', timestampMs, nowMs)
  checkIdentityKey(identityKey)
  if (!isSignedBy(identityKey, identityProofMessage(claim), signature))
    throw invalid('identity_proof.signature does not verify under identity_key')
}

/** Whether the XEdDSA signature is the key's over the message. @param key a canonical EC key. [K-1.4] */
export const isSignedBy = (key: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean =>
  signature.length === SIGNATURE_BYTES &&
  PublicKey.deserialize(key as Bytes).verify(Uint8Array.from(message), signature as Bytes)

/**
 * Returns if the proof shows knowledge of a well-formed username behind the hash. [U-2]
 * @param proof 128 bytes. @param hash 32 bytes.
 * @throws RelayError INVALID_REQUEST.
 */
export function verifyUsernameProof(proof: Uint8Array, hash: Uint8Array): void {
  try {
    usernames.verifyProof(proof as Bytes, hash as Bytes)
  } catch {
    throw invalid('proof does not verify for username_hash')
  }
}

/** What a device and the relay both believe of the device's lasting keys. [K-7] */
export type DigestInput = {
  userId: Uuid
  deviceId: number
  registrationId: number
  identityKey: Uint8Array
  signedPrekey: Prekey
  lastResortKyberPrekey: Prekey | null
}

/** The bytes under the digest. [K-7.1] */
export const digestInput = (input: DigestInput): Uint8Array =>
  Buffer.concat([
    Buffer.from('sealpost.v1 keys\0'),
    uuidToBytes(input.userId),
    Buffer.of(input.deviceId),
    be16(input.registrationId),
    input.identityKey,
    be32(input.signedPrekey.keyId),
    input.signedPrekey.publicKey,
    lastResortBytes(input.lastResortKyberPrekey),
  ])

/** 32 bytes. It finds two sides out of step; it is no evidence against a relay that lies. [K-7] */
export const keyDigest = (input: DigestInput): Uint8Array => sha256(digestInput(input))

/** Whether both digests are equal, in constant time. False when the lengths differ. */
export const isSameDigest = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && timingSafeEqual(a, b)

const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()

const lastResortBytes = (key: Prekey | null): Uint8Array =>
  key ? Buffer.concat([Buffer.of(1), be32(key.keyId), key.publicKey]) : Buffer.of(0)

function be16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}

function be32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
