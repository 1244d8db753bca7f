// Byte strings as the protocol writes them. Shares no code with relay or SDK: a common mistake would not be seen.
import { createHash } from 'node:crypto'

export const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
export const fromBase64 = (text: string): Uint8Array<ArrayBuffer> => Uint8Array.from(Buffer.from(text, 'base64'))
export const base64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url')
export const sha256 = (...parts: Uint8Array[]): Buffer => createHash('sha256').update(Buffer.concat(parts)).digest()
export const utf8 = (text: string): Buffer => Buffer.from(text)

/** In memory of its own; libsignal insists on that. */
export const own = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => Uint8Array.from(bytes)

/** Big-endian, so many bytes. */
export function be(value: number, length: 1 | 2 | 4 | 8): Buffer {
  const buffer = Buffer.alloc(8)
  buffer.writeBigUInt64BE(BigInt(value))
  return buffer.subarray(8 - length)
}
