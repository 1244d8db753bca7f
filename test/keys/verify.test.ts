// What verify.ts promises beyond the vectors: slices, proofs of usernames, digests.
import { randomBytes } from 'node:crypto'
import { usernames } from '@signalapp/libsignal-client'
import { expect, test } from 'vitest'
import { isSameDigest, verifyKeys, verifyUsernameProof } from '../../keys/verify.ts'
import { TestDevice } from '../support/keys.ts'
import { NO_KEYS } from './world.ts'

test('102 signatures are checked in slices: the event loop turns in between (I14)', async () => {
  const device = new TestDevice()
  const keys = {
    signedPrekey: device.makeSignedPrekey(1),
    lastResortKyberPrekey: device.makeLastResort(1000),
    oneTimePrekeys: device.makeOneTimePrekeys(100),
    oneTimeKyberPrekeys: device.makeKyberPrekeys(100),
  }
  let turns = 0
  let done = false
  const turn = (): void => {
    turns++
    if (!done) setImmediate(turn)
  }
  setImmediate(turn)
  const verified = await verifyKeys(device.identityKey, keys)
  done = true
  expect(turns).toBeGreaterThanOrEqual(5)
  expect(verified).toEqual({ ...keys, identityKey: device.identityKey })
})

test('an identity key that is not canonical is refused before anything is checked under it', async () => {
  const lowOrder = Uint8Array.from([5, 1, ...new Uint8Array(31)])
  const refusal = { code: 'INVALID_REQUEST', message: 'identity_key is not a canonical key' }
  for (const identityKey of [lowOrder, new Uint8Array(0), new Uint8Array(33)])
    await expect(verifyKeys(identityKey, NO_KEYS)).rejects.toMatchObject(refusal)
})

test('username proofs: libsignal decides', () => {
  for (const [nickname, discriminator] of [
    ['alice', '01'],
    ['bob_7', '4242'],
  ] as const) {
    const { username } = usernames.fromParts(nickname, discriminator, 3, 32)
    const hash = usernames.hash(username)
    const proof = usernames.generateProof(username)
    verifyUsernameProof(proof, hash)
    const other = usernames.hash(usernames.fromParts('carol', '01', 3, 32).username)
    const bad: [Uint8Array, Uint8Array][] = [
      ...[[proof, other] as [Uint8Array, Uint8Array], [proof.with(5, proof[5]! ^ 1), hash] as [Uint8Array, Uint8Array]],
      ...[[proof.slice(1), hash] as [Uint8Array, Uint8Array], [new Uint8Array(0), hash] as [Uint8Array, Uint8Array]],
      ...[
        [proof, hash.slice(1)] as [Uint8Array, Uint8Array],
        [randomBytes(128), randomBytes(32)] as [Uint8Array, Uint8Array],
      ],
    ]
    for (const [someProof, someHash] of bad)
      expect(() => verifyUsernameProof(someProof, someHash)).toThrow(
        expect.objectContaining({ code: 'INVALID_REQUEST' }),
      )
  }
})

test('digests of different lengths are different, not an error', () => {
  const digest = randomBytes(32)
  expect(isSameDigest(digest, Uint8Array.from(digest))).toBe(true)
  expect(isSameDigest(digest, digest.subarray(1))).toBe(false)
})
