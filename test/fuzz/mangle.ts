// Bytes that are almost a frame: mutations that know nothing of protobuf, and some that take a message apart and put it together wrong.
import fc from 'fast-check'

type Field = { number: number; wire: number; bytes: Uint8Array; payload: Uint8Array | null }

const varint = (bytes: Uint8Array, at: number): { value: number; next: number } | null => {
  let value = 0
  for (let i = at; i < bytes.length && i < at + 10; i++) {
    value += (bytes[i]! & 127) * 2 ** (7 * (i - at))
    if (bytes[i]! < 128) return { value, next: i + 1 }
  }
  return null
}
const encodeVarint = (value: number): number[] => {
  const out = []
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    out.push(rest > 127 ? (rest % 128) | 128 : rest)
    if (rest <= 127) return out
  }
}

/** The fields of a message; null when the bytes are none. */
export function fieldsOf(bytes: Uint8Array): Field[] | null {
  const found: Field[] = []
  for (let at = 0; at < bytes.length; ) {
    const key = varint(bytes, at)
    if (!key || key.value < 8) return null
    const [number, wire] = [Math.floor(key.value / 8), key.value % 8]
    const first = varint(bytes, key.next)
    if (!first) return null
    const size = { 0: 0, 1: 8, 2: first.value, 5: 4 }[wire]
    if (size === undefined) return null
    const from = wire === 1 || wire === 5 ? key.next : first.next
    const end = from + size
    if (end > bytes.length) return null
    found.push({ number, wire, bytes: bytes.subarray(at, end), payload: wire === 2 ? bytes.subarray(from, end) : null })
    at = end
  }
  return found
}

const wrap = (number: number, payload: Uint8Array): Uint8Array =>
  Buffer.concat([Buffer.from([...encodeVarint(number * 8 + 2), ...encodeVarint(payload.length)]), payload])

/** Reorders, doubles, drops and renumbers fields, down to so many levels. */
export function jumble(bytes: Uint8Array, dice: () => number, depth: number): Uint8Array {
  const fields = fieldsOf(bytes)
  if (!fields) return bytes
  let parts = fields.map(({ number, payload, bytes: whole }) => {
    if (payload && depth > 0 && dice() < 0.6) return wrap(number, jumble(payload, dice, depth - 1))
    if (payload && dice() < 0.1) return wrap(1 + Math.floor(dice() * 20), payload)
    return whole
  })
  if (dice() < 0.5)
    parts = parts
      .map((part) => ({ part, at: dice() }))
      .sort((a, b) => a.at - b.at)
      .map(({ part }) => part)
  if (dice() < 0.4 && parts.length > 0) parts.push(parts[Math.floor(dice() * parts.length)]!)
  if (dice() < 0.3) parts.splice(Math.floor(dice() * parts.length), 1)
  return Buffer.concat(parts)
}

/** Bytes near one of the given ones. */
export function mangled(sources: Uint8Array[]): fc.Arbitrary<Uint8Array> {
  const source = fc.constantFrom(...sources)
  const place = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true })
  const byte = fc.nat(255)
  const flipped = fc
    .tuple(source, fc.array(fc.tuple(place, byte), { minLength: 1, maxLength: 8 }))
    .map(([bytes, edits]) => {
      const out = Buffer.from(bytes)
      for (const [at, value] of edits) if (out.length > 0) out[Math.floor(at * out.length)] = value
      return out
    })
  const truncated = fc.tuple(source, place).map(([bytes, at]) => bytes.subarray(0, Math.floor(at * bytes.length)))
  const beheaded = fc.tuple(source, place).map(([bytes, at]) => bytes.subarray(Math.floor(at * bytes.length)))
  const spliced = fc.tuple(source, source, place, place).map(([one, other, at, from]) => {
    const cut = Math.floor(at * one.length)
    return Buffer.concat([one.subarray(0, cut), other.subarray(Math.floor(from * other.length))])
  })
  const inserted = fc.tuple(source, place, fc.uint8Array({ minLength: 1, maxLength: 40 })).map(([bytes, at, more]) => {
    const cut = Math.floor(at * bytes.length)
    return Buffer.concat([bytes.subarray(0, cut), more, bytes.subarray(cut)])
  })
  const jumbled = fc
    .tuple(source, fc.infiniteStream(place))
    .map(([bytes, stream]) => jumble(bytes, () => stream.next().value, 3))
  return fc.oneof(flipped, truncated, beheaded, spliced, inserted, { weight: 3, arbitrary: jumbled })
}
