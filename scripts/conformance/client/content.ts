// The plaintext that clients agree on: encoded, padded, bound to its envelope. [P-1] [P-2] [P-4]
import { sealpost } from '../../../proto/generated/content.js'
import { uuidToBytes } from '../../../proto/ids.ts'
import { be, sha256, utf8 } from '../bytes.ts'

export type Content = sealpost.v1.Content.$Properties

/** [P-2] */
export const BLOCK = 160
const END = 0x80

/** Encoded and padded. @param end the byte that ends it; another one is wrong. */
export function pack(content: Content, end = END): Uint8Array {
  const encoded = sealpost.v1.Content.encode(content).finish()
  const padded = Buffer.alloc(Math.ceil((encoded.length + 1) / BLOCK) * BLOCK)
  padded.set(encoded)
  padded[encoded.length] = end
  return padded
}

/** @throws Error when it is not padded so, or does not decode. */
export function unpack(plaintext: Uint8Array): sealpost.v1.Content {
  if (plaintext.length === 0 || plaintext.length % BLOCK !== 0)
    throw new Error(`${plaintext.length} bytes are no multiple of ${BLOCK}`)
  let end = plaintext.length - 1
  while (plaintext[end] === 0) end--
  if (plaintext[end] !== END) throw new Error('no 80 before the zeros')
  if (plaintext.length - end > BLOCK) throw new Error('more padding than one block')
  return sealpost.v1.Content.decode(plaintext.slice(0, end))
}

/** What a roster is made of. @property role as in the Role enum: 1 member, 2 admin. */
export type Members = { userId: string; role: number }[]

/** [P-4] */
export function rosterHash(conversationId: string, revision: number, members: Members): Uint8Array {
  const sorted = [...members].sort((a, b) => (a.userId < b.userId ? -1 : 1))
  const parts = sorted.flatMap(({ userId, role }) => [uuidToBytes(userId), be(role, 1)])
  return sha256(utf8('sealpost.v1 roster\0'), uuidToBytes(conversationId), be(revision, 8), ...parts)
}
