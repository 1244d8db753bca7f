// XEdDSA as libsignal makes and checks it: signatures by an X25519 key. For tests in places without libsignal; not constant time.
import { ed25519, x25519 } from '@noble/curves/ed25519.js'
import { bytesToNumberLE, numberToBytesLE } from '@noble/curves/utils.js'
import { sha512 } from '@noble/hashes/sha2.js'
import { concat } from '../../../client/bytes.ts'

const { Point } = ed25519
const { Fp, Fn } = Point

const TYPE = 5
const TOP_BIT = 0x80
/** What keeps these hashes apart from Ed25519's own. */
const PREFIX = new Uint8Array(32).fill(0xff).with(0, 0xfe)

const randomBytes = (length: number): Uint8Array => crypto.getRandomValues(new Uint8Array(length))
const scalar = (...parts: Uint8Array[]): bigint => Fn.create(bytesToNumberLE(sha512(concat(...parts))))

/** 32 bytes, as X25519 wants them. */
export function makePrivateKey(): Uint8Array {
  const key = randomBytes(32)
  key[0]! &= 0xf8
  key[31]! = (key[31]! & 0x7f) | 0x40
  return key
}

/** 33 bytes: 05, then the point. */
export const publicKeyOf = (privateKey: Uint8Array): Uint8Array =>
  concat(Uint8Array.of(TYPE), x25519.getPublicKey(privateKey))

/** 64 bytes. The sign of the Edwards point goes into the top bit, which a signature leaves free. */
export function sign(privateKey: Uint8Array, message: Uint8Array): Uint8Array {
  const a = Fn.create(bytesToNumberLE(privateKey))
  const point = Point.BASE.multiply(a).toBytes()
  const r = scalar(PREFIX, privateKey, message, randomBytes(64))
  const commitment = Point.BASE.multiply(r).toBytes()
  const s = Fn.create(r + scalar(commitment, point, message) * a)
  const signature = concat(commitment, numberToBytesLE(s, 32))
  signature[63]! |= point[31]! & TOP_BIT
  return signature
}

/** @param publicKey 33 bytes. */
export function isSignedBy(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  try {
    const u = Fp.create(bytesToNumberLE(publicKey.slice(1)))
    const point = numberToBytesLE(Fp.div(Fp.sub(u, 1n), Fp.add(u, 1n)), 32)
    point[31]! |= signature[63]! & TOP_BIT
    const plain = signature.with(63, signature[63]! & ~TOP_BIT)
    return publicKey.length === 33 && publicKey[0] === TYPE && ed25519.verify(plain, message, point)
  } catch {
    return false
  }
}
