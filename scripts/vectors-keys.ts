// Writes test/vectors/{valid,invalid}/keys-*.json: `node --import tsx scripts/vectors-keys.ts`.
import { digestInput, type IdentityClaim, identityProofMessage, keyDigest } from '../keys/verify.ts'
import { base64, hex, type Json, kyberKey, publicKey, sign, write } from './vectors-material.ts'

// Canonical EC keys [K-1.1] [K-1.2]
const ecKey = (point: string): string => `05${point}`
const ec = (folder: 'valid' | 'invalid', name: string, clause: string, reason: string, key: string): void =>
  write(folder, `ec-${name}`, { clause, reason, type: 'ec_key', key })
const ordinary = hex(publicKey('ordinary'))
ec('valid', 'ordinary', 'K-1.1', 'a key as libsignal generates it', ordinary)
ec('valid', 'base-point', 'K-1.1', 'u = 9', ecKey(`09${'00'.repeat(31)}`))
ec('valid', 'smallest', 'K-1.1', 'u = 2, the smallest that is not of low order', ecKey(`02${'00'.repeat(31)}`))
ec('valid', 'largest', 'K-1.1', 'u = 2^255 - 21, the largest that is not of low order', ecKey(`eb${'ff'.repeat(30)}7f`))

const lowOrder: [string, string, string][] = [
  ['zero', 'u = 0, order 2', '00'.repeat(32)],
  ['one', 'u = 1, order 4', `01${'00'.repeat(31)}`],
  ['order-8-a', 'a point of order 8', 'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800'],
  ['order-8-b', 'the other point of order 8', '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157'],
  ['minus-one', 'u = p - 1, of low order on the twist', `ec${'ff'.repeat(30)}7f`],
  ['zero-as-p', 'u = p, a second encoding of 0', `ed${'ff'.repeat(30)}7f`],
  ['one-as-p-plus-one', 'u = p + 1, a second encoding of 1', `ee${'ff'.repeat(30)}7f`],
]
const withTopBit = (point: string): string => {
  const bytes = Buffer.from(point, 'hex')
  bytes[31]! |= 0x80
  return hex(bytes)
}
for (const [name, reason, point] of lowOrder) {
  ec('invalid', `low-order-${name}`, 'K-1.2', `${reason}: agreement with it throws`, ecKey(point))
  ec(
    'invalid',
    `low-order-${name}-top-bit`,
    'K-1.1',
    `${reason}, with the ignored top bit set`,
    ecKey(withTopBit(point)),
  )
}
for (const more of [2, 9, 18])
  ec(
    'invalid',
    `not-reduced-p-plus-${more}`,
    'K-1.1',
    `u = p + ${more}, a second encoding of ${more}`,
    ecKey(`${(0xed + more).toString(16)}${'ff'.repeat(30)}7f`),
  )
ec('invalid', 'top-bit', 'K-1.1', 'an ordinary key with the ignored top bit set', ecKey(withTopBit(ordinary.slice(2))))
ec('invalid', 'trailing-byte', 'K-1.1', '34 bytes; libsignal would cut the last one', `${ordinary}00`)
ec('invalid', 'truncated', 'K-1.1', '32 bytes after the type byte are one too few', ordinary.slice(0, -2))
ec('invalid', 'without-type-byte', 'K-1.1', '32 bytes without the type byte', ordinary.slice(2))
ec('invalid', 'empty', 'K-1.1', 'no bytes', '')
for (const type of ['00', '04', '06', '85'])
  ec('invalid', `type-${type}`, 'K-1.1', `type byte ${type} instead of 05`, type + ordinary.slice(2))

// Canonical Kyber keys [K-1.3]
const kyber = hex(kyberKey('kyber'))
const kem = (folder: 'valid' | 'invalid', name: string, reason: string, key: string): void =>
  write(folder, `kyber-${name}`, { clause: 'K-1.3', reason, type: 'kyber_key', key })
kem('valid', 'ordinary', 'a Kyber-1024 key', kyber)
kem('valid', 'all-zero', 'form only: such a key harms nobody but its owner', `08${'00'.repeat(1568)}`)
kem('invalid', 'truncated', '1,568 bytes', kyber.slice(0, -2))
kem('invalid', 'trailing-byte', '1,570 bytes', `${kyber}00`)
kem('invalid', 'type-07', 'type byte 07 instead of 08', `07${kyber.slice(2)}`)
kem('invalid', 'type-05', 'type byte of an EC key', `05${kyber.slice(2)}`)
kem('invalid', 'empty', 'no bytes', '')

// Signatures [K-1.4]
const identity = publicKey('identity')
const signed = publicKey('signed')
const lastResort = kyberKey('last resort')
const signedSignature = sign('identity', signed)
const flipped = (bytes: Uint8Array, at: number): Uint8Array =>
  bytes.map((byte, index) => (index === at ? byte ^ 1 : byte))
const signature = (
  folder: 'valid' | 'invalid',
  name: string,
  reason: string,
  key: Uint8Array,
  value: Uint8Array,
): void =>
  write(folder, `signature-${name}`, {
    ...{ clause: 'K-1.4', reason, type: 'signature' },
    ...{ identity_key: hex(identity), public_key: hex(key), signature: hex(value) },
  })
signature('valid', 'signed-prekey', 'XEdDSA by the identity key over the 33 bytes of the key', signed, signedSignature)
signature(
  'valid',
  'kyber-prekey',
  'XEdDSA by the identity key over the 1,569 bytes of the key',
  lastResort,
  sign('identity', lastResort),
)
signature('invalid', 'other-signer', 'signed by another identity key', signed, sign('other identity', signed))
signature('invalid', 'other-key', 'signature of another key', signed, sign('identity', publicKey('other signed')))
signature('invalid', 'without-type-byte', 'signed without the type byte', signed, sign('identity', signed.subarray(1)))
signature(
  'invalid',
  'kyber-without-type-byte',
  'signed without the type byte',
  lastResort,
  sign('identity', lastResort.subarray(1)),
)
signature('invalid', 'flipped-first-bit', 'one bit of R changed', signed, flipped(signedSignature, 0))
signature('invalid', 'flipped-in-s', 'one bit of s changed', signed, flipped(signedSignature, 40))
signature('invalid', 'truncated', '63 bytes', signed, signedSignature.subarray(0, 63))
signature('invalid', 'trailing-byte', '65 bytes', signed, Buffer.concat([signedSignature, Buffer.of(0)]))
signature('invalid', 'all-zero', '64 zero bytes', signed, new Uint8Array(64))
signature('invalid', 'empty', 'no bytes', signed, new Uint8Array(0))

// identity_proof [I-2]
const NOW_MS = 1_780_000_000_000
const claim: IdentityClaim = {
  ...{ purpose: 'register', realm: 'https://relay.example', linkCode: '', registrationId: 4711, identityKey: identity },
  ...{ signedPrekey: { keyId: 1, publicKey: signed }, lastResortKyberPrekey: { keyId: 2, publicKey: lastResort } },
  timestampMs: NOW_MS,
}
/** A proof as received: fields of what is claimed, signature over what was signed. */
function proof(
  folder: 'valid' | 'invalid',
  name: string,
  clause: string,
  reason: string,
  claimed: IdentityClaim,
  more: { by?: string; over?: Uint8Array; nowMs?: number } = {},
): void {
  const message = more.over ?? identityProofMessage(claimed)
  const last = claimed.lastResortKyberPrekey
  write(folder, `identity-proof-${name}`, {
    ...{ clause, reason, type: 'identity_proof', purpose: claimed.purpose, realm: claimed.realm },
    ...{ link_code: claimed.linkCode, registration_id: claimed.registrationId, identity_key: hex(claimed.identityKey) },
    signed_prekey: { key_id: claimed.signedPrekey.keyId, public_key: hex(claimed.signedPrekey.publicKey) },
    last_resort_kyber_prekey: last && { key_id: last.keyId, public_key: hex(last.publicKey) },
    ...{ timestamp_ms: claimed.timestampMs, now_ms: more.nowMs ?? NOW_MS, message: hex(identityProofMessage(claimed)) },
    signature: hex(sign(more.by ?? 'identity', message)),
  })
}
const link: IdentityClaim = { ...claim, purpose: 'link', linkCode: 'vector-link-code' }
proof('valid', 'register', 'I-2.1', 'registration, with a last-resort key', claim)
proof('valid', 'register-x3dh-only', 'I-2.2', 'registration without a last-resort key', {
  ...claim,
  lastResortKyberPrekey: null,
})
proof('valid', 'link', 'I-2.1', 'linking, bound to its link code', link)
proof('valid', 'identity', 'I-2.1', 'change of the identity key', { ...claim, purpose: 'identity' })
proof('valid', 'realm-utf-8', 'I-2.1', 'a realm beyond ASCII', { ...claim, realm: 'https://relais.exämple' })
proof('valid', 'key-ids-zero', 'I-2.2', 'key ids 0', {
  ...claim,
  signedPrekey: { keyId: 0, publicKey: signed },
  lastResortKyberPrekey: { keyId: 0, publicKey: lastResort },
})
proof('valid', 'ten-minutes-behind', 'I-2.3', 'just within the skew', claim, { nowMs: NOW_MS + 600_000 })
proof('valid', 'ten-minutes-ahead', 'I-2.3', 'just within the skew', claim, { nowMs: NOW_MS - 600_000 })
proof('invalid', 'too-old', 'I-2.3', '1 ms beyond the skew', claim, { nowMs: NOW_MS + 600_001 })
proof('invalid', 'too-far-ahead', 'I-2.3', '1 ms beyond the skew', claim, { nowMs: NOW_MS - 600_001 })
proof('invalid', 'other-signer', 'I-2', 'signed by another identity key: a public bundle of somebody else', claim, {
  by: 'other identity',
})
const signedFor = (other: Partial<IdentityClaim>): { over: Uint8Array } => ({
  over: identityProofMessage({ ...claim, ...other }),
})
proof('invalid', 'other-realm', 'I-2.4', 'made for another realm', claim, signedFor({ realm: 'https://other.example' }))
proof('invalid', 'other-purpose', 'I-2.4', 'made for linking', claim, signedFor({ purpose: 'link' }))
proof(
  'invalid',
  'other-link-code',
  'I-2.4',
  'made for another link code',
  link,
  signedFor({ purpose: 'link', linkCode: 'another' }),
)
proof(
  'invalid',
  'other-registration-id',
  'I-2.4',
  'made for another registration id',
  claim,
  signedFor({ registrationId: 4712 }),
)
proof(
  'invalid',
  'other-signed-prekey',
  'I-2.4',
  'made for another signed prekey',
  claim,
  signedFor({ signedPrekey: { keyId: 1, publicKey: publicKey('other signed') } }),
)
proof(
  'invalid',
  'other-signed-prekey-id',
  'I-2.4',
  'made for another key id',
  claim,
  signedFor({ signedPrekey: { keyId: 2, publicKey: signed } }),
)
proof(
  'invalid',
  'last-resort-dropped',
  'I-2.4',
  'made with a last-resort key, claimed without',
  { ...claim, lastResortKyberPrekey: null },
  signedFor({}),
)
proof('invalid', 'other-timestamp', 'I-2.4', 'made a millisecond later', claim, signedFor({ timestampMs: NOW_MS + 1 }))
proof('invalid', 'low-order-identity', 'K-1.2', 'signatures under such a key can be forged', {
  ...claim,
  identityKey: Buffer.from(ecKey(lowOrder[2]![2]), 'hex'),
})

// Digest [K-7]
const digestBase = {
  ...{ userId: '3f2b8c1e-5a6d-4e7f-8a9b-0c1d2e3f4a5b', deviceId: 1, registrationId: 4711, identityKey: identity },
  ...{ signedPrekey: { keyId: 1, publicKey: signed }, lastResortKyberPrekey: { keyId: 2, publicKey: lastResort } },
}
function digest(
  folder: 'valid' | 'invalid',
  name: string,
  reason: string,
  of: Parameters<typeof keyDigest>[0],
  made = of,
): void {
  const last = of.lastResortKyberPrekey
  write(folder, `digest-${name}`, {
    ...{
      clause: 'K-7.1',
      reason,
      type: 'digest',
      user_id: of.userId,
      device_id: of.deviceId,
      registration_id: of.registrationId,
    },
    identity_key: hex(of.identityKey),
    signed_prekey: { key_id: of.signedPrekey.keyId, public_key: hex(of.signedPrekey.publicKey) },
    last_resort_kyber_prekey: last && { key_id: last.keyId, public_key: hex(last.publicKey) },
    ...{ input: hex(digestInput(made)), digest: hex(keyDigest(made)) },
  })
}
digest('valid', 'with-last-resort', 'all parts present', digestBase)
digest('valid', 'x3dh-only', 'without a last-resort key', { ...digestBase, lastResortKyberPrekey: null })
digest('valid', 'extremes', 'largest device, registration and key ids', {
  ...{ ...digestBase, deviceId: 127, registrationId: 16383 },
  ...{
    signedPrekey: { keyId: 2 ** 31 - 1, publicKey: signed },
    lastResortKyberPrekey: { keyId: 0, publicKey: lastResort },
  },
})
digest('invalid', 'other-registration-id', 'of another registration id', digestBase, {
  ...digestBase,
  registrationId: 4712,
})
digest('invalid', 'last-resort-dropped', 'without the last-resort key', digestBase, {
  ...digestBase,
  lastResortKyberPrekey: null,
})

// Uploads [K-2]
const one = (id: number, name = `one-time ${id}`) => ({ key_id: id, public_key: base64(publicKey(name)) })
const kyberOne = (id: number, name = `kyber ${id}`) => {
  const key = kyberKey(name)
  return { key_id: id, public_key: base64(key), signature: base64(sign('identity', key)) }
}
const signedJson = { key_id: 1, public_key: base64(signed), signature: base64(signedSignature) }
const lastJson = { key_id: 1, public_key: base64(lastResort), signature: base64(sign('identity', lastResort)) }
const upload = (folder: 'valid' | 'invalid', name: string, clause: string, reason: string, body: Json): void =>
  write(folder, `upload-${name}`, { clause, reason, type: 'upload', identity_key: hex(identity), body })
const full = {
  signed_prekey: signedJson,
  last_resort_kyber_prekey: lastJson,
  one_time_prekeys: [one(1), one(2)],
  one_time_kyber_prekeys: [kyberOne(2), kyberOne(3)],
}
upload('valid', 'full', 'K-2', 'every part', full)
upload('valid', 'x3dh-only', 'K-2', 'no Kyber keys', { signed_prekey: signedJson, one_time_prekeys: [one(1)] })
upload('valid', 'empty', 'K-2', 'nothing: everything stays as it is', {})
upload('valid', 'id-zero', 'K-1.5', '0 is an id like any other', {
  ...full,
  one_time_prekeys: [one(0)],
  one_time_kyber_prekeys: [kyberOne(0)],
})
upload('valid', 'id-largest', 'K-1.5', '2^31 - 1', { ...full, one_time_prekeys: [one(2 ** 31 - 1)] })
upload('valid', 'ids-not-ascending', 'K-2', 'any order of ids', { one_time_prekeys: [one(9), one(3), one(5)] })
upload('invalid', 'id-negative', 'K-1.5', '-1 is not an id', { one_time_prekeys: [one(-1)] })
upload('invalid', 'id-too-large', 'K-1.5', '2^31 is not an id', { one_time_prekeys: [one(2 ** 31)] })
upload('invalid', 'id-not-integer', 'K-1.5', '1.5 is not an id', { one_time_prekeys: [one(1.5)] })
upload('invalid', '101-one-time', 'K-2', 'more than 100 keys of a kind', {
  one_time_prekeys: Array.from({ length: 101 }, (_, id) => one(id)),
})
upload('invalid', 'id-twice', 'K-2', 'one id for two keys', { one_time_prekeys: [one(1), one(1, 'another')] })
upload('invalid', 'key-twice', 'K-2', 'one key under two ids', { one_time_prekeys: [one(1, 'same'), one(2, 'same')] })
upload('invalid', 'kyber-id-shared-with-last-resort', 'K-2.3', 'one id space for Kyber keys', {
  ...full,
  one_time_kyber_prekeys: [kyberOne(1)],
})
upload('invalid', 'signed-by-another', 'K-2.1', 'signed prekey of another identity', {
  ...full,
  signed_prekey: { ...signedJson, signature: base64(sign('other identity', signed)) },
})
upload('invalid', 'last-resort-bad-signature', 'K-2.1', 'last-resort key of another identity', {
  ...full,
  last_resort_kyber_prekey: { ...lastJson, signature: base64(sign('other identity', lastResort)) },
})
upload('invalid', 'kyber-bad-signature', 'K-2.1', 'the second one-time Kyber key carries the signature of the first', {
  ...full,
  one_time_kyber_prekeys: [kyberOne(2), { ...kyberOne(3), signature: kyberOne(2).signature }],
})
upload('invalid', 'one-time-low-order', 'K-1.2', 'a one-time key of low order', {
  one_time_prekeys: [one(1), { key_id: 2, public_key: base64(Buffer.from(ecKey(lowOrder[1]![2]), 'hex')) }],
})
upload('invalid', 'kyber-as-ec', 'K-1.1', 'a Kyber key in the list of EC keys', {
  one_time_prekeys: [{ key_id: 1, public_key: base64(kyberKey('kyber 2')) }],
})
upload('invalid', 'base64-without-padding', 'H-1', 'base64 without its padding', {
  signed_prekey: { ...signedJson, signature: signedJson.signature.replace(/=+$/, '') },
})
upload('invalid', 'base64url', 'H-1', 'the other alphabet', {
  one_time_prekeys: [
    { key_id: 1, public_key: base64(publicKey('one-time 1')).replaceAll('+', '-').replaceAll('/', '_') },
  ],
})
upload('invalid', 'signature-missing', 'K-1.4', 'a signed prekey without its signature', {
  signed_prekey: { key_id: 1, public_key: signedJson.public_key },
})
upload('invalid', 'unknown-field', 'H-1', 'a field nobody knows', {
  one_time_prekeys: [one(1)],
  one_time_keys: [one(2)],
})
upload('invalid', 'unknown-field-in-key', 'H-1', 'a one-time key with a signature', {
  one_time_prekeys: [{ ...one(1), signature: signedJson.signature }],
})
