// One device over HTTP alone: frames by POST, the queue by asking. [C-9]
import { randomBytes } from 'node:crypto'
import protobuf from 'protobufjs/minimal.js'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import type { Client, ServerFrame } from './client.ts'
import type { TestRelay } from './relay.ts'
import { homeUrl, requestUrl } from './spread.ts'

const v1 = sealpost.v1

/** @property frame null when the answer has none. */
export type Exchanged = { status: number; headers: Headers; frame: ServerFrame | null }
export type Polled = { status: number; headers: Headers; frames: ServerFrame[] }
type Who = { url: string; token: string }

/** The length-delimited frames of an answer. @throws when a byte is left over. */
export function framesOf(bytes: Uint8Array): ServerFrame[] {
  const reader = protobuf.Reader.create(bytes)
  const frames: ServerFrame[] = []
  while (reader.pos < reader.len) frames.push(v1.ServerFrame.decode(reader.bytes()))
  return frames
}

/** Posts bytes as they are. */
export async function postBytes(
  { url, token }: Who,
  body: Uint8Array,
  headers: Record<string, string> = {},
): Promise<Exchanged> {
  const answer = await fetch(`${requestUrl(url)}/v1/frames`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/x-protobuf', Authorization: `Bearer ${token}`, ...headers },
    body: body as Uint8Array<ArrayBuffer>,
  })
  const bytes = Buffer.from(await answer.arrayBuffer())
  return {
    status: answer.status,
    headers: answer.headers,
    frame: bytes.length > 0 ? v1.ServerFrame.decode(bytes) : null,
  }
}

/** Posts one frame. */
export const post = (who: Who, body: sealpost.v1.ClientFrame.$Properties, requestId = 7): Promise<Exchanged> =>
  postBytes(who, v1.ClientFrame.encode({ requestId, ...body }).finish())

/** What a message to these is. */
export const messageTo = (
  conversationId: string,
  recipients: sealpost.v1.Recipient.$Properties[],
  more: sealpost.v1.SignalMessage.$Properties = {},
): sealpost.v1.ClientFrame.$Properties => ({
  signalMessage: {
    clientMessageId: uuidToBytes(uuidV7(Date.now())),
    conversationId: uuidToBytes(conversationId),
    scope: v1.Scope.SCOPE_ALL,
    recipients,
    ...more,
  },
})

/** Sends a message. @throws when it is refused. @returns its id. */
export async function postMessage(
  who: Who,
  conversationId: string,
  recipients: sealpost.v1.Recipient.$Properties[],
): Promise<Uint8Array> {
  const { frame } = await post(who, messageTo(conversationId, recipients))
  if (!frame?.messageAccepted) throw new Error(`was answered ${JSON.stringify(frame)}`)
  return frame.messageAccepted.messageId!
}

/** Acks. @throws when that is refused. */
export async function postAck(who: Who, ...messageIds: (Uint8Array | null | undefined)[]): Promise<void> {
  const { frame } = await post(who, { ack: { messageIds: messageIds.map((each) => each!) } })
  if (!frame?.ackCommitted) throw new Error(`was answered ${JSON.stringify(frame)}`)
}

/** Asks for what waits. @param query as it stands in the URL. */
export async function poll({ url, token }: Who, query = '', signal?: AbortSignal): Promise<Polled> {
  const answer = await fetch(`${homeUrl(url, token)}/v1/deliveries${query && `?${query}`}`, {
    headers: { Authorization: `Bearer ${token}` },
    ...(signal && { signal }),
  })
  const { status, headers } = answer
  return { status, headers, frames: framesOf(Buffer.from(await answer.arrayBuffer())) }
}

/** A poll that has read its page and waits. @param more of the query. */
export async function waitingPoll(at: Pick<TestRelay, 'logged'>, client: Client, more = '', signal?: AbortSignal) {
  const mark = at.logged.length
  const answer = poll(client, `wait_seconds=60${more}`, signal)
  answer.catch(() => {})
  const began = (line: string): boolean => {
    const { event, userId, how } = JSON.parse(line)
    return event === 'subscribe' && userId === client.userId && how === 'sync'
  }
  while (!at.logged.slice(mark).some(began)) await new Promise((resolve) => setImmediate(resolve))
  return { answer }
}

/** What kind each frame is of. */
export const kinds = (frames: ServerFrame[]): string[] => frames.map((each) => each.body ?? '')

/** Every envelope in them, in pages or outside. */
export const envelopesIn = (frames: ServerFrame[]): sealpost.v1.Envelope.$Properties[] =>
  frames.flatMap((each) => [...(each.syncResponse?.messages ?? []), ...(each.envelope ? [each.envelope] : [])])

/** Random bytes that begin with a number. */
export const numbered = (number: number): Uint8Array => {
  const bytes = randomBytes(64)
  bytes.writeUInt32BE(number)
  return bytes
}
