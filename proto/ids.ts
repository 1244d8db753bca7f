// UUIDs: 16 bytes on the wire, canonical lowercase text everywhere else. Runs in browsers too: nothing of Node here.

/** Canonical lowercase text form, 36 characters. */
export type Uuid = string

const CANONICAL = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
// Ids are converted several times per message: tables, and no closures in the loops.
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

const NIBBLE = Uint8Array.from({ length: 128 }, (_, code) => Number.parseInt(String.fromCharCode(code), 16) || 0)
/** Where each byte's digits stand. */
const PLACE = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34]

/** Whether the text is a UUID in its canonical lowercase form. Upper case is refused: libsignal addresses compare as text. */
export const isUuid = (text: string): boolean => CANONICAL.test(text)

/** Text form of 16 bytes. @throws RangeError if the length differs. */
export function uuidFromBytes(b: Uint8Array): Uuid {
  if (b.length !== 16) throw new RangeError('a UUID has 16 bytes')
  let text = ''
  for (let i = 0; i < 16; i++) text += i === 4 || i === 6 || i === 8 || i === 10 ? `-${HEX[b[i]!]!}` : HEX[b[i]!]!
  return text
}

/** The 16 bytes of a UUID in text form. Trusts its input: a Uuid, not a stranger's string. */
export function uuidToBytes(uuid: Uuid): Uint8Array {
  const bytes = new Uint8Array(16)
  for (let i = 0; i < 16; i++) {
    const at = PLACE[i]!
    bytes[i] = (NIBBLE[uuid.charCodeAt(at)]! << 4) | NIBBLE[uuid.charCodeAt(at + 1)]!
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
