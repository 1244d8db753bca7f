// Hints as text and back, for a bus between processes: JSON, with bytes as base64. What another node wrote is believed, as far as a
// hint is believed at all; what cannot be read is nothing.
import type { Hint } from './bus.ts'

type Written = Omit<Extract<Hint, { kind: 'committed' }>, 'delivery'> & { delivery: Record<string, unknown> | null }

const base64 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')
const bytes = (text: unknown): Uint8Array => new Uint8Array(Buffer.from(String(text), 'base64'))

/** The text of a hint. */
export function encodeHint(hint: Hint): string {
  if (hint.kind === 'signal')
    return JSON.stringify({ ...hint, frame: { ...hint.frame, bytes: base64(hint.frame.bytes) } })
  if (hint.kind === 'handed') return JSON.stringify({ ...hint, sealed: base64(hint.sealed) })
  if (hint.kind !== 'committed' || hint.delivery === null) return JSON.stringify(hint)
  const { content, iv, ...rest } = hint.delivery
  const written: Written = { ...hint, delivery: { ...rest, content: base64(content), iv: base64(iv) } }
  return JSON.stringify(written)
}

/** The hint of a text; null when it is none. */
export function decodeHint(text: string): Hint | null {
  try {
    const read = JSON.parse(text)
    if (typeof read?.kind !== 'string') return null
    if (read.kind === 'signal') read.frame.bytes = bytes(read.frame.bytes)
    if (read.kind === 'handed') read.sealed = bytes(read.sealed)
    if (read.kind === 'committed' && read.delivery !== null) {
      read.delivery.content = bytes(read.delivery.content)
      read.delivery.iv = bytes(read.delivery.iv)
    }
    return read as Hint
  } catch {
    return null
  }
}
