// Byte strings as the protocol writes them: base64, hex, big-endian integers, concatenation. Works where there is no Buffer.

/** Bytes in memory of their own. */
export type Bytes = Uint8Array<ArrayBuffer>

const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
const VALUES = new Map([...DIGITS].map((digit, value) => [digit, value]))
const encoder = new TextEncoder()

/** A copy in memory of its own; libsignal insists on that. */
export const bytes = (input: Uint8Array): Bytes => Uint8Array.from(input)

/** UTF-8. */
export const utf8 = (text: string): Bytes => bytes(encoder.encode(text))

/** One after the other. */
export function concat(...parts: Uint8Array[]): Bytes {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/** Big-endian, so many bytes. @param value up to 2^53 - 1. */
export function bigEndian(value: number, length: 1 | 2 | 4 | 8): Bytes {
  const out = new Uint8Array(length)
  for (let i = length - 1, rest = value; i >= 0; i--, rest = Math.floor(rest / 256)) out[i] = rest % 256
  return out
}

/** Whether both are the same bytes. Not for secrets: it stops at the first difference. */
export const isSame = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, at) => byte === b[at])

/** Lowercase. */
export const hex = (input: Uint8Array): string => Array.from(input, (b) => b.toString(16).padStart(2, '0')).join('')

/** Standard base64 with padding. [H-1] */
export function base64(input: Uint8Array): string {
  let text = ''
  for (let i = 0; i < input.length; i += 3) {
    const group = (input[i]! << 16) | ((input[i + 1] ?? 0) << 8) | (input[i + 2] ?? 0)
    text += DIGITS[group >> 18]! + DIGITS[(group >> 12) & 63]!
    text +=
      (i + 1 < input.length ? DIGITS[(group >> 6) & 63]! : '=') + (i + 2 < input.length ? DIGITS[group & 63]! : '=')
  }
  return text
}

/** The bytes of standard base64. @throws Error when it is none. */
export function fromBase64(text: string): Bytes {
  const digits = text.replace(/={1,2}$/, '')
  if (text.length % 4 !== 0) throw new Error('base64 of a wrong length')
  const out = new Uint8Array(Math.floor((digits.length * 3) / 4))
  for (let i = 0, bits = 0, held = 0, at = 0; i < digits.length; i++) {
    const value = VALUES.get(digits[i]!)
    if (value === undefined) throw new Error('a character that is not base64')
    bits = ((bits << 6) | value) & 0xffff
    held += 6
    if (held >= 8) {
      held -= 8
      out[at++] = (bits >> held) & 0xff
    }
  }
  return out
}

/** Base64url without padding, for paths and queries. */
export const base64url = (input: Uint8Array): string =>
  base64(input).replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, '')

/** The bytes of base64url without padding, in its one canonical form. @throws Error when it is none. */
export function fromBase64url(text: string): Bytes {
  const standard = text.replace(/-/g, '+').replace(/_/g, '/')
  const out = fromBase64(standard.padEnd(Math.ceil(standard.length / 4) * 4, '='))
  if (base64url(out) !== text) throw new Error('base64url that is not canonical')
  return out
}
