// The plaintext of a message as clients agree on it: encoded, padded, bound to its envelope. Nothing here is seen by the relay.
// The roster is not checked [P-3.3]: that needs a client that verifies signed changes.
import { sealpost } from '../../proto/generated/content.js'
// Configures the generated code for plain numbers.
import '../../server/codec.ts'

const { Content } = sealpost.v1

/** [P-2] */
const BLOCK = 160
/** [P-3.2] */
const AHEAD_MS = 10 * 60 * 1000

/** What binds a Content to the envelope that brings it; ids of 16 bytes. */
export type Binding = { conversationId: Uint8Array; clientMessageId: Uint8Array; sentAtMs: number }

/** A padded text, ready to be encrypted. */
export function packText(binding: Binding, text: string): Uint8Array {
  const encoded = Content.encode({ ...binding, text }).finish()
  const padded = new Uint8Array(Math.ceil((encoded.length + 1) / BLOCK) * BLOCK)
  padded.set(encoded)
  padded[encoded.length] = 0x80
  return padded
}

/** The text of a decrypted plaintext. @throws when the padding is wrong or it belongs to another envelope: a relay that mixes things up. */
export function unpackText(plaintext: Uint8Array, envelope: Binding): string {
  const end = plaintext.findLastIndex((byte) => byte !== 0)
  if (plaintext[end] !== 0x80) throw new Error('the padding is wrong')
  const content = Content.decode(plaintext.subarray(0, end))
  for (const id of ['conversationId', 'clientMessageId'] as const)
    if (Buffer.compare(content[id], envelope[id]) !== 0) throw new Error(`the content is of another ${id}`)
  if (content.sentAtMs > envelope.sentAtMs + AHEAD_MS) throw new Error('the content is from the future')
  return content.text ?? ''
}
