// Keys, signatures and files for vectors-keys.ts. Keys come from fixed bytes. XEdDSA signatures are randomised, so one that
// is on disk and still verifies is kept: a second run changes nothing.
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { PrivateKey } from '@signalapp/libsignal-client'
import { isSignedBy } from '../keys/verify.ts'

const ROOT = fileURLToPath(new URL('../test/vectors/', import.meta.url))
/** A JSON object. */
export type Json = Record<string, unknown>

const sha256 = (text: string | Uint8Array): Buffer => createHash('sha256').update(text).digest()
/** The encoding of single values. */
export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
/** The encoding inside upload bodies, as on the wire. */
export const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')

/** A private key from a name, clamped as X25519 wants it. */
function privateKey(name: string): PrivateKey {
  const scalar = Uint8Array.from(sha256(`sealpost vector ${name}`))
  scalar[0]! &= 248
  scalar[31] = (scalar[31]! & 127) | 64
  return PrivateKey.deserialize(scalar)
}

/** 33 bytes. */
export const publicKey = (name: string): Uint8Array => privateKey(name).getPublicKey().serialize()

/** A Kyber-1024 public key of the right form: 1,024 coefficients below 3329 in 12 bits each, then 32 bytes. Nobody has its secret. */
export function kyberKey(name: string): Uint8Array {
  const stream = createHash('shake256', { outputLength: 8192 }).update(`sealpost vector ${name}`).digest()
  const coefficients: number[] = []
  for (let at = 0; coefficients.length < 1024; at += 2) {
    const value = stream.readUInt16LE(at) & 0xfff
    if (value < 3329) coefficients.push(value)
  }
  const key = Buffer.alloc(1569)
  key[0] = 0x08
  for (let i = 0; i < 512; i++) {
    const [a, b] = [coefficients[2 * i]!, coefficients[2 * i + 1]!]
    key.set([a & 0xff, (a >> 8) | ((b & 0xf) << 4), b >> 4], 1 + 3 * i)
  }
  key.set(sha256(`sealpost vector ${name} seed`), 1537)
  return key
}

// Every 64-byte value on disk and every one made since, hex: what sign may return again.
const kept = new Set<string>()
for (const folder of ['valid', 'invalid']) {
  mkdirSync(ROOT + folder, { recursive: true })
  for (const file of readdirSync(ROOT + folder).filter((name) => name.startsWith('keys-'))) {
    const text = readFileSync(`${ROOT}${folder}/${file}`, 'utf8')
    for (const [, value] of text.matchAll(/"signature": "([0-9a-f]{128})"/g)) kept.add(value!)
    for (const [, value] of text.matchAll(/"signature": "([A-Za-z0-9+/]{86}==)"/g))
      kept.add(hex(Buffer.from(value!, 'base64')))
    rmSync(`${ROOT}${folder}/${file}`)
  }
}

/** A signature by the named key; one that is known already if there is one. */
export function sign(name: string, message: Uint8Array): Uint8Array {
  const signer = publicKey(name)
  for (const value of kept) if (isSignedBy(signer, message, Buffer.from(value, 'hex'))) return Buffer.from(value, 'hex')
  const made = privateKey(name).sign(Uint8Array.from(message))
  kept.add(hex(made))
  return made
}

/** One vector file; the folder and the name say what it shows. */
export const write = (folder: 'valid' | 'invalid', name: string, vector: Json): void =>
  writeFileSync(`${ROOT}${folder}/keys-${name}.json`, `${JSON.stringify(vector, null, 2)}\n`)
