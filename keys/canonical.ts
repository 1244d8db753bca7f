// Which bytes are a key at all: the one encoding of each, and no point of low order. Pure; signatures are in verify.ts.
import { EC_KEY_BYTES, KYBER_KEY_BYTES } from '../proto/limits.ts'

const EC_TYPE = 0x05
const KYBER_TYPE = 0x08

// u-coordinates below 2^255 - 19 whose points have order 1, 2, 4 or 8: agreement with them throws, and a signature
// under such an identity key can be forged. Their other nine encodings are not canonical. [K-1.2]
const LOW_ORDER = new Set([
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
  '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
])

/**
 * Whether the bytes are a Curve25519 key as libsignal writes it, in its only accepted encoding. [K-1.1] [K-1.2]
 * Re-serialising would prove nothing: libsignal round-trips points that are not canonical, and cuts trailing bytes.
 */
export function isCanonicalEcKey(key: Uint8Array): boolean {
  if (key.length !== EC_KEY_BYTES || key[0] !== EC_TYPE) return false
  const point = key.subarray(1)
  if (point[31]! & 0x80) return false
  if (point[31] === 0x7f && point[0]! >= 0xed && point.subarray(1, 31).every((byte) => byte === 0xff)) return false
  return !LOW_ORDER.has(Buffer.from(point).toString('hex'))
}

/** Whether the bytes have the form of a Kyber-1024 key; what is inside harms only its owner. [K-1.3] */
export const isCanonicalKyberKey = (key: Uint8Array): boolean => key.length === KYBER_KEY_BYTES && key[0] === KYBER_TYPE
