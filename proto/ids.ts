// UUIDs: 16 bytes on the wire, canonical lowercase text everywhere else. Runs in browsers too: nothing of Node here.

/** Canonical lowercase text form, 36 characters. */
export type Uuid = string

const CANONICAL = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

/** Whether the text is a UUID in its canonical lowercase form. Upper case is refused: libsignal addresses compare as text. */
export const isUuid = (text: string): boolean => CANONICAL.test(text)

/** Text form of 16 bytes. @throws RangeError if the length differs. */
export function uuidFromBytes(b: Uint8Array): Uuid {
  if (b.length !== 16) throw new RangeError('a UUID has 16 bytes')
  const h = (i: number) => HEX[b[i]!]!
  return `${h(0)}${h(1)}${h(2)}${h(3)}-${h(4)}${h(5)}-${h(6)}${h(7)}-${h(8)}${h(9)}-${h(10)}${h(11)}${h(12)}${h(13)}${h(14)}${h(15)}`
}

/** The 16 bytes of a UUID in text form. Trusts its input: a Uuid, not a stranger's string. */
export function uuidToBytes(uuid: Uuid): Uint8Array {
  const bytes = new Uint8Array(16)
  let at = 0
  for (let i = 0; i < 36; i += 2) {
    if (uuid.charCodeAt(i) === 45) i++
    bytes[at++] = Number.parseInt(uuid.slice(i, i + 2), 16)
  }
  return bytes
}

const pool = new Uint8Array(8190)
let poolAt = pool.length

/**
 * A new UUIDv7 (RFC 9562): sorts by time in a unique index, so inserts stay at its right edge.
 * @param nowMs Unix milliseconds, below 2^48.
 */
export function uuidV7(nowMs: number): Uuid {
  if (poolAt === pool.length) {
    crypto.getRandomValues(pool)
    poolAt = 0
  }
  const bytes = new Uint8Array(16)
  for (let i = 5, rest = nowMs; i >= 0; i--, rest = Math.floor(rest / 256)) bytes[i] = rest % 256
  bytes.set(pool.subarray(poolAt, poolAt + 10), 6)
  poolAt += 10
  bytes[6] = (bytes[6]! & 0x0f) | 0x70
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  return uuidFromBytes(bytes)
}
