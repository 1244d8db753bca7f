// What is inside a ciphertext: encoded, padded, and bound to the envelope that may carry it. The only importer of the generated content code. [P-1]
import { sealpost } from '../proto/generated/content.js'
import type { Uuid } from '../proto/ids.ts'
import { isSame } from './bytes.ts'
import { idBytes, idOf } from './wire.ts'

const { Content } = sealpost.v1

/** [P-2] */
const BLOCK = 160
const END = 0x80
/** [P-3.2] */
const AHEAD_MS = 10 * 60_000

/** An encrypted file elsewhere; key 64 bytes, digest 32. */
export type Attachment = { url: string; key: Uint8Array; digest: Uint8Array; sizeBytes: number; mediaType: string }

/** [P-7] @property groupName '' = none is told. */
export type Naming = { groupName: string; users: { userId: Uuid; username: string }[] }

/** What a person sends. One of text, reaction, heartbeat, naming; heartbeats are shown to nobody. */
export type Body = {
  text?: string
  reaction?: { messageId: Uuid; emoji: string; removed: boolean }
  heartbeat?: true
  /** What a group and its members are called: kept by the SDK, shown to nobody as a message. */
  naming?: Naming
  /** The relay's message_id of the message this answers. */
  replyTo?: Uuid
  attachments?: Attachment[]
}

/** What binds a content to its envelope. [P-3] @property resendOf '' unless this repeats what one device could not read. [P-5] @property username the sender's own word, or ''. [P-6] */
export type Binding = {
  conversationId: Uuid
  clientMessageId: Uuid
  sentAtMs: number
  rosterHash: Uint8Array
  resendOf: Uuid
  username: string
}

/** An envelope says otherwise than the content in it: the relay, or the sender, is at fault. */
export class Unbound extends Error {}

/** Padded plaintext, a multiple of 160 bytes. */
export function pack(binding: Binding, body: Body): Uint8Array {
  const encoded = Content.encode({
    conversationId: idBytes(binding.conversationId),
    clientMessageId: idBytes(binding.clientMessageId),
    sentAtMs: binding.sentAtMs,
    rosterHash: binding.rosterHash,
    ...(binding.resendOf && { resendOf: idBytes(binding.resendOf) }),
    ...(body.replyTo && { replyToMessageId: idBytes(body.replyTo) }),
    ...(body.attachments && { attachments: body.attachments }),
    ...(body.text !== undefined && { text: body.text }),
    ...(body.reaction && { reaction: { ...body.reaction, messageId: idBytes(body.reaction.messageId) } }),
    ...(body.heartbeat && { heartbeat: {} }),
    ...(binding.username && { senderUsername: binding.username }),
    ...(body.naming && {
      naming: {
        groupName: body.naming.groupName,
        users: body.naming.users.map(({ userId, username }) => ({ userId: idBytes(userId), username })),
      },
    }),
  }).finish()
  const padded = new Uint8Array(Math.ceil((encoded.length + 1) / BLOCK) * BLOCK)
  padded.set(encoded)
  padded[encoded.length] = END
  return padded
}

/** @throws Unbound when the padding is wrong or it does not decode. */
export function unpack(plaintext: Uint8Array): { binding: Binding; body: Body } {
  let end = plaintext.length - 1
  while (plaintext[end] === 0) end--
  if (plaintext[end] !== END) throw new Unbound('the padding is wrong')
  try {
    const content = Content.decode(plaintext.slice(0, end))
    const attachments = content.attachments.map((each) => ({
      url: each.url ?? '',
      key: Uint8Array.from(each.key ?? []),
      digest: Uint8Array.from(each.digest ?? []),
      sizeBytes: each.sizeBytes ?? 0,
      mediaType: each.mediaType ?? '',
    }))
    const { text, reaction, naming } = content
    return {
      binding: {
        conversationId: idOf(content.conversationId),
        clientMessageId: idOf(content.clientMessageId),
        sentAtMs: content.sentAtMs,
        rosterHash: Uint8Array.from(content.rosterHash),
        resendOf: idOf(content.resendOf),
        username: content.senderUsername,
      },
      body: {
        ...(content.replyToMessageId.length > 0 && { replyTo: idOf(content.replyToMessageId) }),
        ...(attachments.length > 0 && { attachments }),
        ...(typeof text === 'string' && { text }),
        ...(reaction && {
          reaction: {
            messageId: idOf(reaction.messageId),
            emoji: reaction.emoji ?? '',
            removed: reaction.removed ?? false,
          },
        }),
        ...(content.heartbeat && { heartbeat: true as const }),
        ...(naming && {
          naming: {
            groupName: naming.groupName ?? '',
            users: (naming.users ?? []).map((each) => ({ userId: idOf(each.userId), username: each.username ?? '' })),
          },
        }),
      },
    }
  } catch (error) {
    throw new Unbound('the content does not decode', { cause: error })
  }
}

/**
 * Returns if the content belongs to this envelope. The roster is checked elsewhere: it may have to be fetched. [P-3.3]
 * @throws Unbound naming what does not fit. [P-3.1] [P-3.2]
 */
export function checkBinding(
  binding: Binding,
  envelope: { conversationId: Uuid; clientMessageId: Uuid; sentAtMs: number },
): void {
  if (binding.conversationId !== envelope.conversationId) throw new Unbound('the content is of another conversation')
  if (binding.clientMessageId !== envelope.clientMessageId) throw new Unbound('the content is of another message')
  if (binding.sentAtMs > envelope.sentAtMs + AHEAD_MS) throw new Unbound('the content is from the future')
}

/** Whether one of the hashes is this one. */
export const isAmong = (hash: Uint8Array, hashes: Uint8Array[]): boolean => hashes.some((each) => isSame(each, hash))
