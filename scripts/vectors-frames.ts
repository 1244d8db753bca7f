// Writes test/vectors/{valid,invalid}/frame-*.json: `node --import tsx scripts/vectors-frames.ts`. Every byte is fixed.
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { sealpost } from '../proto/generated/relay.js'
import { uuidToBytes } from '../proto/ids.ts'
import * as limits from '../proto/limits.ts'

const { CiphertextType, ClientFrame, Priority, Scope, Withheld } = sealpost.v1
const ROOT = fileURLToPath(new URL('../test/vectors/', import.meta.url))

/** The world the vectors are about: the sender is a member of this conversation, and so is one user with these two devices, who sent a message. */
const WORLD = {
  conversation_id: '11111111-1111-4111-8111-111111111111',
  user_id: '22222222-2222-4222-8222-222222222222',
  devices: [
    { device_id: 1, registration_id: 1 },
    { device_id: 127, registration_id: 16383 },
  ],
  message_id: '01980000-0000-7000-8000-ffffffffffff',
}

for (const folder of ['valid', 'invalid']) {
  mkdirSync(ROOT + folder, { recursive: true })
  for (const file of readdirSync(ROOT + folder).filter((name) => name.startsWith('frame-')))
    rmSync(`${ROOT}${folder}/${file}`)
}

/** Long runs of one byte are written short: { repeat: "5e", times: 98304 }. */
function parts(frame: Uint8Array): unknown[] {
  const hex = Buffer.from(frame).toString('hex')
  const found: unknown[] = []
  let at = 0
  for (const run of hex.matchAll(/(?:5e){200,}/g)) {
    // A run that begins in the middle of a byte is none.
    if (run.index % 2) continue
    found.push(hex.slice(at, run.index), { repeat: '5e', times: run[0].length / 2 })
    at = run.index + run[0].length
  }
  found.push(hex.slice(at))
  return found.filter((part) => part !== '')
}

let count = 0
function write(folder: string, name: string, clause: string, reason: string, frame: Uint8Array, answer: object): void {
  const vector = { clause, reason, type: 'client_frame', world: WORLD, frame: parts(frame), answer }
  writeFileSync(`${ROOT}${folder}/frame-${name}.json`, `${JSON.stringify(vector, null, 2)}\n`)
  count++
}

type Body = Omit<sealpost.v1.ClientFrame.$Properties, 'requestId'>
const REQUEST_ID = 7
const encoded = (body: Body, requestId = REQUEST_ID): Uint8Array => ClientFrame.encode({ requestId, ...body }).finish()
const bytes = (hex: string): Uint8Array => Buffer.from(hex.replaceAll(' ', ''), 'hex')
const filled = (length: number): Uint8Array => Buffer.alloc(length, 0x5e)
/** A field of bytes by its number. */
const field = (number: number, content: Uint8Array): Uint8Array => {
  const head = [(number << 3) | 2]
  for (let rest = content.length; ; rest >>>= 7) {
    head.push(rest > 127 ? (rest & 127) | 128 : rest)
    if (rest <= 127) break
  }
  return Buffer.concat([Buffer.from(head), content])
}

// Accepted.
type Signal = 'presence' | 'status_update' | 'read_receipt_committed' | 'none'
type Kind = 'message_accepted' | 'ack_committed' | 'sync_response' | Signal
const good = (
  name: string,
  clause: string,
  reason: string,
  kind: Kind,
  frame: Uint8Array,
  requestId = REQUEST_ID,
): void => write('valid', name, clause, reason, frame, { kind, request_id: requestId })
// Refused.
const bad = (
  name: string,
  clause: string,
  reason: string,
  frame: Uint8Array,
  code = 'INVALID_REQUEST',
  requestId = REQUEST_ID,
): void => write('invalid', name, clause, reason, frame, { kind: 'error', code, request_id: requestId })

type Recipient = sealpost.v1.Recipient.$Properties
const to = (device: 0 | 1, more: Recipient = {}): Recipient => ({
  userId: uuidToBytes(WORLD.user_id),
  deviceId: WORLD.devices[device]!.device_id,
  registrationId: WORLD.devices[device]!.registration_id,
  ciphertextType: CiphertextType.CIPHERTEXT_TYPE_WHISPER,
  content: filled(8),
  ...more,
})
/** A message of its own client_message_id: one more for each vector. */
const message = (more: sealpost.v1.SignalMessage.$Properties = {}): Body => ({
  signalMessage: {
    clientMessageId: uuidToBytes(`01980000-0000-7000-8000-${String(count).padStart(12, '0')}`),
    conversationId: uuidToBytes(WORLD.conversation_id),
    scope: Scope.SCOPE_ALL,
    recipients: [to(0), to(1)],
    ...more,
  },
})
const recipient = (more: Recipient): Body => message({ recipients: [to(0, more), to(1)] })
const sends = (name: string, clause: string, reason: string, body: Body): void =>
  good(name, clause, reason, 'message_accepted', encoded(body))
const refuses = (name: string, clause: string, reason: string, body: Body, code?: string): void =>
  bad(name, clause, reason, encoded(body), code)

sends('send-all', 'S-4.1', 'every device of every other member, once', message())
sends('send-subset', 'S-4.2', 'one of the devices', message({ scope: Scope.SCOPE_SUBSET, recipients: [to(1)] }))
for (const type of [3, 7, 8])
  sends(`ciphertext-type-${type}`, 'S-5', `libsignal's number ${type}`, recipient({ ciphertextType: type }))
sends('content-of-one-byte', 'S-1.2', 'the shortest content', recipient({ content: filled(1) }))
sends('content-largest', 'S-1.2', '98,304 bytes', recipient({ content: filled(limits.CONTENT_MAX_BYTES) }))
sends('iv-largest', 'S-1.2', '64 bytes', recipient({ iv: filled(64) }))
for (const [name, withheld] of [
  ['untrusted-identity', Withheld.WITHHELD_UNTRUSTED_IDENTITY],
  ['no-compatible-keys', Withheld.WITHHELD_NO_COMPATIBLE_KEYS],
  ['not-in-roster', Withheld.WITHHELD_NOT_IN_ROSTER],
] as const)
  sends(
    `withheld-${name}`,
    'S-6',
    'withheld, and nothing else',
    recipient({ withheld, content: new Uint8Array(0), ciphertextType: 0 }),
  )
sends('message-type-largest', 'S-1.1', 'message_type 32,767', message({ messageType: 32767 }))
for (const priority of [Priority.PRIORITY_HIGH, Priority.PRIORITY_NORMAL, Priority.PRIORITY_LOW])
  sends(`priority-${priority}`, 'S-8', `priority ${priority}`, message({ priority }))
sends('urgent-false', 'S-1.5', 'urgent given and false', message({ urgent: false }))
const url = `https://files.example/${'^'.repeat(2026)}`
sends('urls-longest', 'S-7', '2,048 characters each', message({ attachmentUrl: url, thumbnailUrl: url }))
sends('urls-longest-not-ascii', 'S-7', '2,048 characters of three bytes', message({ attachmentUrl: '☃'.repeat(2048) }))
sends('reply', 'S-7', '16 bytes', message({ replyToMessageId: uuidToBytes(WORLD.user_id) }))

const committed = (name: string, clause: string, reason: string, frame: Uint8Array, requestId?: number): void =>
  good(name, clause, reason, 'ack_committed', frame, requestId)
committed('ack-of-nothing', 'Q-6', 'no ids', encoded({ ack: {} }))
committed('ack-of-unknown', 'Q-6.2', 'an id nobody knows', encoded({ ack: { messageIds: [filled(16)] } }))
committed('ack-largest', 'Q-6', '1,000 ids', encoded({ ack: { messageIds: Array(1000).fill(filled(16)) } }))
committed('request-id-0', 'C-2.2', 'answered all the same, under 0', encoded({ ack: {} }, 0), 0)
committed('request-id-absent', 'C-2.2', 'absent is 0', bytes('22 00'), 0)
const largest = Number.MAX_SAFE_INTEGER
committed('request-id-largest', 'C-2.1', '2^53 - 1', encoded({ ack: {} }, largest), largest)
committed(
  'unknown-field-before',
  'C-2.5',
  'field 99 before the body',
  Buffer.concat([bytes('9a 06 02 5e5e'), encoded({ ack: {} })]),
)
committed(
  'unknown-field-after',
  'C-2.5',
  'field 99 behind the body',
  Buffer.concat([encoded({ ack: {} }), bytes('98 06 01')]),
)
committed('unknown-field-within', 'C-2.5', 'field 99 inside Ack', bytes('08 07 22 03 98 06 01'))
committed('request-id-last', 'C-2', 'fields in another order', bytes('22 00 08 07'))
committed('request-id-long-varint', 'C-2', 'the number 7 in more bytes than it needs', bytes('08 87 80 80 00 22 00'))
committed('two-bodies', 'C-2', 'of two bodies the last counts, as protobuf has it', bytes('08 07 1a 00 22 00'))
const pages = (name: string, clause: string, reason: string, syncRequest: sealpost.v1.SyncRequest.$Properties): void =>
  good(name, clause, reason, 'sync_response', encoded({ syncRequest }))
good('two-bodies-other-order', 'C-2', 'of two bodies the last counts', 'sync_response', bytes('08 07 22 00 1a 00'))
pages('sync', 'Q-3', 'from the start', {})
pages('sync-unknown-cursor', 'Q-3.1', 'unknown is from the start', { lastMessageId: filled(16) })
pages('sync-limit-1', 'Q-3.2', 'one message', { limit: 1 })
pages('sync-limit-largest', 'Q-3.2', 'more than 100 is 100', { limit: 4294967295 })

const conversationId = uuidToBytes(WORLD.conversation_id)
const messageId = uuidToBytes(WORLD.message_id)
const them = uuidToBytes(WORLD.user_id)
const signals = (name: string, clause: string, reason: string, kind: Signal, body: Body): void =>
  good(name, clause, reason, kind, encoded(body))
signals('typing', 'G-1', 'no answer', 'none', { typing: { conversationId, isTyping: true } })
signals('typing-stopped', 'G-1', 'no answer', 'none', { typing: { conversationId } })
signals('typing-as-another', 'G-1.1', "who types is not the client's to say", 'none', {
  typing: { conversationId, isTyping: true, userId: them, deviceId: 1 },
})
signals('presence-of-nobody', 'G-2.1', 'ends the subscription', 'presence', { presenceSubscription: {} })
signals('presence', 'G-2.1', 'of another member', 'presence', { presenceSubscription: { userIds: [them] } })
signals('presence-twice', 'G-2.1', 'one user twice', 'presence', { presenceSubscription: { userIds: [them, them] } })
signals('presence-of-unknown', 'G-2.1', 'a user nobody made', 'presence', {
  presenceSubscription: { userIds: [filled(16)] },
})
signals('presence-largest', 'G-2.1', '500 users', 'presence', {
  presenceSubscription: { userIds: Array(500).fill(filled(16)) },
})
signals('read-receipt', 'G-4', 'a message of the conversation', 'read_receipt_committed', {
  readReceipt: { conversationId, messageId },
})
signals('read-receipt-again', 'G-4.1', 'at the mark: nothing changes', 'read_receipt_committed', {
  readReceipt: { conversationId, messageId },
})
signals('status-of-nothing', 'G-3.2', 'no ids', 'status_update', { statusRequest: {} })
signals('status-of-anothers', 'G-3.2', 'left out', 'status_update', { statusRequest: { messageIds: [messageId] } })
signals('status-largest', 'G-3.2', '100 ids nobody knows', 'status_update', {
  statusRequest: { messageIds: Array(100).fill(filled(16)) },
})

const CUT = 'INVALID_REQUEST'
bad('empty', 'C-2.5', 'no bytes: no body', new Uint8Array(0), CUT, 0)
bad('no-body', 'C-2.5', 'a request_id and nothing else', bytes('08 07'))
bad('body-unknown', 'C-2.5', 'a body of a later version, field 15', bytes('08 07 7a 00'))
bad(
  'body-system-event',
  'V-1',
  'a SystemEvent where an Envelope would hold it: no client frame can express one',
  bytes('08 07 32 04 32 02 12 00'),
)
bad('not-protobuf', 'C-7', 'a text in a binary frame', Buffer.from('{"ack":{}}'), CUT, 0)
bad('truncated-length', 'C-7', 'the body is announced and not there', bytes('08 07 22 10'))
bad('truncated-in-recipient', 'C-7', 'cut off in the last content', encoded(message()).subarray(0, -3))
bad('truncated-varint', 'C-7', 'request_id without an end', bytes('08 ff'), CUT, 0)
bad('varint-of-eleven-bytes', 'C-7', 'no varint is that long', bytes(`08 ${'ff'.repeat(10)} 01 22 00`), CUT, 0)
bad('end-group', 'C-7', 'the end of a group that never began', bytes('08 07 24'))
bad('field-0', 'C-7', 'there is no field 0', bytes('08 07 00 00'))
bad('request-id-2-53', 'C-2.1', '2^53', bytes('08 80 80 80 80 80 80 80 10 22 00'), CUT, 0)
bad('request-id-2-64-1', 'C-2.1', '2^64 - 1', bytes(`08 ${'ff'.repeat(9)} 01 22 00`), CUT, 0)

refuses('client-message-id-absent', 'S-1.1', 'no client_message_id', message({ clientMessageId: new Uint8Array(0) }))
refuses('client-message-id-15-bytes', 'S-1.1', 'one byte short', message({ clientMessageId: filled(15) }))
refuses(
  'client-message-id-text',
  'S-1.1',
  'the text form of a UUID',
  message({ clientMessageId: Buffer.from(WORLD.user_id) }),
)
refuses('conversation-id-absent', 'S-1.1', 'no conversation_id', message({ conversationId: new Uint8Array(0) }))
refuses('conversation-id-17-bytes', 'S-1.1', 'one byte long', message({ conversationId: filled(17) }))
refuses('conversation-unknown', 'S-9.1', 'a conversation nobody made', message({ conversationId: filled(16) }))
refuses('scope-unspecified', 'S-4.7', 'no scope', message({ scope: 0 }))
refuses('scope-unknown', 'S-4.7', 'scope 3', message({ scope: 3 as never }))
refuses('scope-negative', 'S-4.7', 'scope -1', message({ scope: -1 as never }))
refuses('subset-of-nobody', 'S-4.2', 'no recipients', message({ scope: Scope.SCOPE_SUBSET, recipients: [] }))
refuses('recipient-twice', 'S-1.3', 'one device twice', message({ recipients: [to(0), to(1), to(0)] }))
refuses(
  'recipient-missing',
  'S-4.1',
  'one device of the set left out',
  message({ recipients: [to(0)] }),
  'DEVICE_MISMATCH',
)
refuses(
  'recipient-extra',
  'S-4.3',
  'a device nobody has',
  message({ recipients: [to(0), to(1), to(0, { deviceId: 2 })] }),
  'DEVICE_MISMATCH',
)
refuses('recipient-stale', 'S-4.3', 'another registration id', recipient({ registrationId: 2 }), 'DEVICE_MISMATCH')
refuses('user-id-15-bytes', 'S-1.2', 'one byte short', recipient({ userId: filled(15) }))
refuses('device-id-0', 'S-1.2', 'device ids begin with 1', recipient({ deviceId: 0 }))
refuses('device-id-128', 'S-1.2', 'device ids end with 127', recipient({ deviceId: 128 }))
refuses('registration-id-0', 'S-1.2', 'registration ids begin with 1', recipient({ registrationId: 0 }))
refuses('registration-id-16384', 'S-1.2', 'registration ids have 14 bits', recipient({ registrationId: 16384 }))
for (const type of [0, 1, 4, 9])
  refuses(`ciphertext-type-${type}`, 'S-5', 'not one of 2, 3, 7, 8', recipient({ ciphertextType: type }))
refuses('content-empty', 'S-6.3', 'no content, and nothing withheld', recipient({ content: new Uint8Array(0) }))
refuses(
  'content-too-large',
  'S-1.4',
  '98,305 bytes',
  recipient({ content: filled(limits.CONTENT_MAX_BYTES + 1) }),
  'TOO_LARGE',
)
refuses('iv-too-large', 'S-1.2', '65 bytes', recipient({ iv: filled(65) }))
const withheld = Withheld.WITHHELD_NOT_IN_ROSTER
const none = new Uint8Array(0)
refuses('withheld-with-content', 'S-6.3', 'both', recipient({ withheld, ciphertextType: 0 }))
refuses(
  'withheld-with-iv',
  'S-6',
  'an iv for nothing',
  recipient({ withheld, ciphertextType: 0, content: none, iv: filled(12) }),
)
refuses('withheld-with-type', 'S-6', 'a ciphertext type for nothing', recipient({ withheld, content: none }))
refuses(
  'withheld-unknown',
  'S-6.1',
  'withheld 4',
  recipient({ withheld: 4 as never, ciphertextType: 0, content: none }),
)
refuses('message-type-too-large', 'S-1.1', '32,768', message({ messageType: 32768 }))
refuses('priority-unknown', 'S-8', 'priority 4', message({ priority: 4 as never }))
refuses('reply-15-bytes', 'S-7', 'one byte short', message({ replyToMessageId: filled(15) }))
refuses('attachment-url-too-long', 'S-7', '2,049 characters', message({ attachmentUrl: `${url}^` }))
refuses('thumbnail-url-too-long', 'S-7', '2,049 characters', message({ thumbnailUrl: `${url}^` }))
refuses('attachment-url-nul', 'S-7', 'a NUL character', message({ attachmentUrl: 'https://files.example/\0' }))
refuses('thumbnail-url-nul', 'S-7', 'a NUL character', message({ thumbnailUrl: '\0' }))
refuses('ack-15-bytes', 'Q-6', 'one byte short', { ack: { messageIds: [filled(16), filled(15)] } })
refuses('ack-empty-id', 'Q-6', 'an id of no bytes', { ack: { messageIds: [new Uint8Array(0)] } })
refuses('ack-too-many', 'Q-6', '1,001 ids', { ack: { messageIds: Array(1001).fill(filled(16)) } }, 'TOO_LARGE')
refuses('sync-cursor-15-bytes', 'Q-3.1', 'one byte short', { syncRequest: { lastMessageId: filled(15) } })
refuses('token-empty', 'C-6.1', 'no token', { reauthenticate: {} }, 'UNAUTHENTICATED')
refuses('token-garbage', 'C-6.1', 'no token at all', { reauthenticate: { token: 'not.a.token' } }, 'UNAUTHENTICATED')
refuses('typing-nowhere', 'G-1', 'no conversation_id', { typing: { isTyping: true } })
refuses('typing-unknown', 'G-1.1', 'a conversation nobody made', { typing: { conversationId: filled(16) } })
refuses('presence-15-bytes', 'G-2.1', 'one byte short', { presenceSubscription: { userIds: [filled(15)] } })
refuses(
  'presence-too-many',
  'G-2.1',
  '501 users',
  { presenceSubscription: { userIds: Array(501).fill(filled(16)) } },
  'TOO_LARGE',
)
refuses('read-receipt-nowhere', 'G-4', 'no conversation_id', { readReceipt: { messageId } })
refuses('read-receipt-of-nothing', 'G-4', 'no message_id', { readReceipt: { conversationId } })
refuses('read-receipt-unknown', 'G-4.1', 'a message nobody sent', {
  readReceipt: { conversationId, messageId: filled(16) },
})
refuses('read-receipt-elsewhere', 'G-4.1', 'a message of another conversation', {
  readReceipt: { conversationId: filled(16), messageId },
})
refuses('status-15-bytes', 'G-3.2', 'one byte short', { statusRequest: { messageIds: [filled(15)] } })
refuses(
  'status-too-many',
  'G-3.2',
  '101 ids',
  { statusRequest: { messageIds: Array(101).fill(filled(16)) } },
  'TOO_LARGE',
)
bad(
  'too-large',
  'C-7.2',
  '1,048,577 bytes, request_id first',
  Buffer.concat([bytes('08 07'), field(15, filled(limits.FRAME_MAX_BYTES - 5))]),
  'TOO_LARGE',
)
bad(
  'too-large-request-id-last',
  'C-7.2',
  'request_id is read only when it comes first',
  Buffer.concat([field(15, filled(limits.FRAME_MAX_BYTES)), bytes('08 07')]),
  'TOO_LARGE',
  0,
)
