// One message sealed by one X25519 key to another, with an ephemeral key: enough that only the addressed device can read it and
// knows who wrote it. NOT a substitute for libsignal: no ratchet, no forward secrecy once a key is known, nothing against replays.
import { chacha20poly1305 } from '@noble/ciphers/chacha.js'
import { x25519 } from '@noble/curves/ed25519.js'
import { sha256 } from '@noble/hashes/sha2.js'
import { concat, utf8 } from '../../../client/bytes.ts'
import { makePrivateKey } from './xeddsa.ts'

const LABEL = utf8('sealpost test sealing')
/** Every key seals once. */
const NONCE = new Uint8Array(12)

const point = (publicKey: Uint8Array): Uint8Array => publicKey.slice(1)
const keyFrom = (...secrets: Uint8Array[]): Uint8Array => sha256(concat(LABEL, ...secrets))

/** @param from own private key. @param to public key, 33 bytes. @param bound bytes that must be the same when it is opened. */
export function seal(from: Uint8Array, to: Uint8Array, message: Uint8Array, bound: Uint8Array): Uint8Array {
  const ephemeral = makePrivateKey()
  const shown = x25519.getPublicKey(ephemeral)
  const secrets = [ephemeral, from].map((key) => x25519.getSharedSecret(key, point(to)))
  return concat(shown, chacha20poly1305(keyFrom(shown, ...secrets), NONCE, bound).encrypt(message))
}

/** @throws Error when it was sealed by another key, to another key, or bound to other bytes. */
export function open(to: Uint8Array, from: Uint8Array, sealed: Uint8Array, bound: Uint8Array): Uint8Array {
  const shown = sealed.slice(0, 32)
  const secrets = [shown, point(from)].map((key) => x25519.getSharedSecret(to, key))
  return chacha20poly1305(keyFrom(shown, ...secrets), NONCE, bound).decrypt(sealed.slice(32))
}
