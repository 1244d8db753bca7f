// Which bytes are keys: [K-1.1] to [K-1.3], and that libsignal alone would not tell.
import { PrivateKey, PublicKey } from '@signalapp/libsignal-client'
import { describe, expect, test } from 'vitest'
import { isCanonicalEcKey, isCanonicalKyberKey } from '../../keys/canonical.ts'
import { readVectors } from './vectors.ts'

const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex, 'hex'))
const lowOrder = readVectors('invalid', 'ec_key').filter((vector) => vector.file.startsWith('keys-ec-low-order-'))

describe('EC keys of low order', () => {
  test('there are 14 encodings', () => expect(new Set(lowOrder.map((vector) => vector.key)).size).toBe(14))

  test.each(lowOrder)('$file: libsignal reads it, agreement throws, the directory refuses it', ({ key }) => {
    const read = PublicKey.deserialize(bytes(key))
    expect(() => PrivateKey.generate().agree(read)).toThrow()
    expect(isCanonicalEcKey(bytes(key))).toBe(false)
  })
})

describe('EC keys that are not canonical', () => {
  const accepted = readVectors('invalid', 'ec_key').filter(({ file }) =>
    /not-reduced|keys-ec-top-bit|trailing/.test(file),
  )
  test.each(accepted)('$file: libsignal reads it and agrees with it, the directory refuses it', ({ key }) => {
    expect(PrivateKey.generate().agree(PublicKey.deserialize(bytes(key)))).toHaveLength(32)
    expect(isCanonicalEcKey(bytes(key))).toBe(false)
  })

  test('a second encoding agrees to the same secret: comparing bytes would take it for another key', () => {
    const pair = PrivateKey.generate()
    const secret = (point: string) =>
      Buffer.from(pair.agree(PublicKey.deserialize(bytes(`05${point}`)))).toString('hex')
    expect(secret(`f6${'ff'.repeat(30)}7f`)).toBe(secret(`09${'00'.repeat(31)}`))
  })

  test('re-serialising does not help: a top bit comes back as it was', () => {
    const vector = accepted.find(({ file }) => file === 'keys-ec-top-bit.json')!
    expect(Buffer.from(PublicKey.deserialize(bytes(vector.key)).serialize()).toString('hex')).toBe(vector.key)
  })

  test('every byte of the point matters for being reduced', () => {
    const largest = bytes(`05ed${'ff'.repeat(30)}7f`)
    for (let at = 2; at < 32; at++) expect(isCanonicalEcKey(largest.with(at, 0xfe)), `byte ${at}`).toBe(true)
    expect(isCanonicalEcKey(largest.with(32, 0x7e))).toBe(true)
  })
})

test('generated keys are canonical', () => {
  for (let i = 0; i < 200; i++) expect(isCanonicalEcKey(PrivateKey.generate().getPublicKey().serialize())).toBe(true)
})

test('a Kyber key has 1,569 bytes and type 8', () => {
  const key = new Uint8Array(1569).with(0, 8)
  expect(isCanonicalKyberKey(key)).toBe(true)
  expect(isCanonicalKyberKey(key.with(0, 7))).toBe(false)
  expect(isCanonicalKyberKey(key.subarray(0, 1568))).toBe(false)
})
