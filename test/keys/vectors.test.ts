// Every key vector: the valid ones pass, the invalid ones are refused.
import { describe, expect, test } from 'vitest'
import { isCanonicalEcKey, isCanonicalKyberKey } from '../../keys/canonical.ts'
import {
  digestInput,
  type IdentityClaim,
  identityProofMessage,
  isSignedBy,
  keyDigest,
  verifyIdentityProof,
  verifyKeys,
} from '../../keys/verify.ts'
import { toDeviceKeys, uploadBody } from '../../keys/wire.ts'
import { allVectors, type Folder, readVectors, type VectorOf } from './vectors.ts'

const bytes = (hex: string): Uint8Array => Buffer.from(hex, 'hex')
const hex = (value: Uint8Array): string => Buffer.from(value).toString('hex')
const prekey = (key: { key_id: number; public_key: string }) => ({
  keyId: key.key_id,
  publicKey: bytes(key.public_key),
})

const TYPES = ['ec_key', 'kyber_key', 'signature', 'identity_proof', 'digest', 'upload']

const claimOf = (vector: VectorOf['identity_proof']): IdentityClaim => ({
  purpose: vector.purpose,
  realm: vector.realm,
  linkCode: vector.link_code,
  registrationId: vector.registration_id,
  identityKey: bytes(vector.identity_key),
  signedPrekey: prekey(vector.signed_prekey),
  lastResortKyberPrekey: vector.last_resort_kyber_prekey && prekey(vector.last_resort_kyber_prekey),
  timestampMs: vector.timestamp_ms,
})

const digestOf = (vector: VectorOf['digest']) => ({
  userId: vector.user_id,
  deviceId: vector.device_id,
  registrationId: vector.registration_id,
  identityKey: bytes(vector.identity_key),
  signedPrekey: prekey(vector.signed_prekey),
  lastResortKyberPrekey: vector.last_resort_kyber_prekey && prekey(vector.last_resort_kyber_prekey),
})

async function accepts(vector: VectorOf['upload']): Promise<boolean> {
  const body = uploadBody.safeParse(vector.body)
  if (!body.success) return false
  return verifyKeys(bytes(vector.identity_key), toDeviceKeys(body.data)).then(
    () => true,
    (error) => {
      expect(error).toMatchObject({ name: 'RelayError', code: 'INVALID_REQUEST' })
      return false
    },
  )
}

describe.each(['valid', 'invalid'] satisfies Folder[])('%s', (folder) => {
  const valid = folder === 'valid'

  test('every file has a type that is read here, a clause and a reason', () => {
    for (const vector of allVectors(folder)) {
      expect(TYPES, vector.file).toContain(vector.type)
      expect(vector.clause, vector.file).toMatch(/^[A-Z]-\d+(\.\d+)?$/)
      expect(vector.reason, vector.file).not.toBe('')
    }
  })

  test.each(readVectors(folder, 'ec_key'))('$file', ({ key }) => expect(isCanonicalEcKey(bytes(key))).toBe(valid))

  test.each(readVectors(folder, 'kyber_key'))('$file', ({ key }) => expect(isCanonicalKyberKey(bytes(key))).toBe(valid))

  test.each(readVectors(folder, 'signature'))('$file', (vector) =>
    expect(isSignedBy(bytes(vector.identity_key), bytes(vector.public_key), bytes(vector.signature))).toBe(valid),
  )

  test.each(readVectors(folder, 'identity_proof'))('$file', (vector) => {
    const claim = claimOf(vector)
    expect(hex(identityProofMessage(claim))).toBe(vector.message)
    const verify = () => verifyIdentityProof(claim, bytes(vector.signature), vector.now_ms)
    if (valid) verify()
    else expect(verify).toThrow(expect.objectContaining({ code: 'INVALID_REQUEST' }))
  })

  test.each(readVectors(folder, 'digest'))('$file', (vector) => {
    expect(hex(digestInput(digestOf(vector))) === vector.input).toBe(valid)
    expect(hex(keyDigest(digestOf(vector))) === vector.digest).toBe(valid)
  })

  test.each(readVectors(folder, 'upload'))('$file', async (vector) => expect(await accepts(vector)).toBe(valid))
})
