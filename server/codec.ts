// Bytes to frames and back; signals between people are signal-codec.ts's. Decoding checks every rule that needs nothing but the frame itself.
import protobuf from 'protobufjs/minimal.js'
import type { Counts } from '../keys/prekeys.ts'
import type { ErrorCode } from '../proto/errors.ts'
import { invalid, RelayError } from '../proto/errors.ts'
import { sealpost } from '../proto/generated/relay.js'
import { type Uuid, uuidToBytes } from '../proto/ids.ts'
import * as limits from '../proto/limits.ts'
import { hasTooManyEntries } from './entries.ts'
import { id, optionalId, within } from './fields.ts'
import type { Delivery, Outgoing, Recipient, Send } from './frames.ts'
import { decodeSignal, type SignalFrame } from './signal-codec.ts'

const v1 = sealpost.v1

/** What a device asked for, checked as far as the frame alone allows. */
export type ClientFrame =
  | ({ requestId: number } & (
      | { kind: 'send'; send: Send }
      | { kind: 'sync'; lastMessageId: Uuid | null; limit: number }
      | { kind: 'ack'; messageIds: Uuid[] }
      | { kind: 'reauthenticate'; token: string }
    ))
  | SignalFrame

/** A frame that could not be read; requestId is what could be saved of it. */
export class BadFrame extends RelayError {
  readonly requestId: number
  /** False: not a ClientFrame at all; counts towards 4400. [C-7] */
  readonly wellFormed: boolean
  constructor(code: ErrorCode, message: string, requestId: number, wellFormed: boolean) {
    super(code, message)
    this.requestId = requestId
    this.wellFormed = wellFormed
  }
}

const clearText = (text: string | null | undefined, field: string): string | null => {
  if (!text) return null
  if (text.length > limits.URL_MAX_CHARS) throw invalid(`${field} exceeds ${limits.URL_MAX_CHARS} characters`)
  // PostgreSQL text cannot hold it, and no URL does.
  if (text.includes('\0')) throw invalid(`${field} contains a NUL character`)
  return text
}

const SCOPES = { [v1.Scope.SCOPE_ALL]: 'ALL', [v1.Scope.SCOPE_SUBSET]: 'SUBSET' } as const
/** More devices no conversation has. [L-1] */
const RECIPIENTS_MAX = limits.GROUP_MAX_MEMBERS * limits.DEVICES_MAX_PER_USER
const CIPHERTEXT_TYPES = new Set([2, 3, 7, 8])
/** Recipients checked between two turns of the event loop, where there are turns. */
const STEP_RECIPIENTS = 500
const NONE = new Uint8Array(0)

function recipient(raw: sealpost.v1.Recipient.$Properties, at: string): Recipient {
  const content = raw.content ?? NONE
  const iv = raw.iv ?? NONE
  const withheld = raw.withheld ?? 0
  const ciphertextType = raw.ciphertextType ?? 0
  if (content.length > limits.CONTENT_MAX_BYTES)
    throw new RelayError('TOO_LARGE', `${at}.content exceeds ${limits.CONTENT_MAX_BYTES} bytes`)
  if (iv.length > limits.IV_MAX_BYTES) throw invalid(`${at}.iv exceeds ${limits.IV_MAX_BYTES} bytes`)
  within(withheld, 0, 3, `${at}.withheld`)
  if (withheld !== 0) {
    // [S-6]
    if (content.length || iv.length || ciphertextType !== 0)
      throw invalid(`${at} is withheld and must carry no content, iv or ciphertext_type`)
  } else {
    if (content.length === 0) throw invalid(`${at}.content is empty and nothing is withheld`)
    // [S-5]
    if (!CIPHERTEXT_TYPES.has(ciphertextType)) throw invalid(`${at}.ciphertext_type must be 2, 3, 7 or 8`)
  }
  return {
    userId: id(raw.userId, `${at}.user_id`),
    deviceId: within(raw.deviceId ?? 0, limits.DEVICE_ID_MIN, limits.DEVICE_ID_MAX, `${at}.device_id`),
    registrationId: within(
      raw.registrationId ?? 0,
      limits.REGISTRATION_ID_MIN,
      limits.REGISTRATION_ID_MAX,
      `${at}.registration_id`,
    ),
    ciphertextType,
    content,
    iv,
    withheld,
  }
}

/** In steps of a length the event loop can bear: a full group has 5,000 recipients. I14 */
function* send(raw: sealpost.v1.SignalMessage.$Properties): Generator<void, Send> {
  const clientMessageId = id(raw.clientMessageId, 'client_message_id')
  const conversationId = id(raw.conversationId, 'conversation_id')
  const scope = SCOPES[raw.scope as 1 | 2]
  if (!scope) throw invalid('scope must be SCOPE_ALL or SCOPE_SUBSET')
  if ((raw.recipients?.length ?? 0) > RECIPIENTS_MAX)
    throw new RelayError('TOO_LARGE', `recipients names more than ${RECIPIENTS_MAX} devices`)
  const recipients: Recipient[] = []
  const seen = new Set<string>()
  for (const [i, each] of (raw.recipients ?? []).entries()) {
    if (i % STEP_RECIPIENTS === STEP_RECIPIENTS - 1) yield
    const read = recipient(each, `recipients[${i}]`)
    const address = `${read.userId}.${read.deviceId}`
    if (seen.has(address)) throw invalid(`recipients name device ${address} twice`)
    seen.add(address)
    recipients.push(read)
  }
  if (scope === 'SUBSET' && recipients.length === 0) throw invalid('recipients is empty')
  return {
    clientMessageId,
    conversationId,
    scope,
    recipients,
    messageType: within(raw.messageType || 1, 1, 32767, 'message_type'),
    replyToMessageId: optionalId(raw.replyToMessageId, 'reply_to_message_id'),
    attachmentUrl: clearText(raw.attachmentUrl, 'attachment_url'),
    thumbnailUrl: clearText(raw.thumbnailUrl, 'thumbnail_url'),
    priority: within(raw.priority || 2, 1, 3, 'priority'),
    // [S-1.5]
    urgent: raw.urgent ?? scope === 'ALL',
  }
}

/** The request id of a frame too large or too broken to decode: field 1, when it comes first; else 0. */
export function peekRequestId(bytes: Uint8Array): number {
  try {
    if (bytes[0] !== 0x08) return 0
    const value = Number(protobuf.Reader.create(bytes.subarray(1, 11)).uint64())
    return Number.isSafeInteger(value) ? value : 0
  } catch {
    return 0
  }
}

/**
 * Reads one client frame. Contents are views of `bytes`: the caller hands over a copy that nobody changes.
 * @throws BadFrame INVALID_REQUEST or TOO_LARGE naming the field; nothing has happened.
 */
export function decodeClientFrame(bytes: Uint8Array): ClientFrame {
  const steps = decoding(bytes)
  for (;;) {
    const step = steps.next()
    if (step.done) return step.value
  }
}

/** The same over several turns of the event loop, for what is too large for one. I14 */
export async function decodeLargeFrame(bytes: Uint8Array): Promise<ClientFrame> {
  const steps = decoding(bytes)
  for (;;) {
    await new Promise((resolve) => setImmediate(resolve))
    const step = steps.next()
    if (step.done) return step.value
  }
}

function* decoding(bytes: Uint8Array): Generator<void, ClientFrame> {
  let frame: sealpost.v1.ClientFrame
  try {
    if (hasTooManyEntries(protobuf.Reader.create(bytes)))
      throw new BadFrame('TOO_LARGE', 'the frame has more entries than any needs', peekRequestId(bytes), true)
    frame = v1.ClientFrame.decode(bytes)
  } catch (error) {
    if (error instanceof BadFrame) throw error
    throw new BadFrame('INVALID_REQUEST', 'not a ClientFrame', peekRequestId(bytes), false)
  }
  const requestId = Number.isSafeInteger(frame.requestId) ? frame.requestId : 0
  try {
    if (requestId !== frame.requestId) throw invalid('request_id exceeds 2^53 - 1')
    if (frame.signalMessage) {
      if ((frame.signalMessage.recipients?.length ?? 0) > STEP_RECIPIENTS) yield
      return { requestId, kind: 'send', send: yield* send(frame.signalMessage) }
    }
    if (frame.ack) {
      const ids = frame.ack.messageIds ?? []
      if (ids.length > limits.ACK_MAX_IDS)
        throw new RelayError('TOO_LARGE', `Ack names more than ${limits.ACK_MAX_IDS} ids`)
      return { requestId, kind: 'ack', messageIds: ids.map((each, i) => id(each, `message_ids[${i}]`)) }
    }
    if (frame.syncRequest) {
      const limit = frame.syncRequest.limit || limits.PAGE_MAX_MESSAGES
      return {
        requestId,
        kind: 'sync',
        lastMessageId: optionalId(frame.syncRequest.lastMessageId, 'last_message_id'),
        limit: Math.min(limit, limits.PAGE_MAX_MESSAGES),
      }
    }
    if (frame.reauthenticate) return { requestId, kind: 'reauthenticate', token: frame.reauthenticate.token ?? '' }
    const signal = decodeSignal(frame, requestId)
    if (signal) return signal
    throw new BadFrame('INVALID_REQUEST', 'the frame has no body this relay knows', requestId, false)
  } catch (error) {
    if (error instanceof BadFrame || !(error instanceof RelayError)) throw error
    throw new BadFrame(error.code, error.message, requestId, true)
  }
}

type Body = Omit<sealpost.v1.ServerFrame.$Properties, 'requestId' | 'body' | '$unknowns'>

const frame = <K extends keyof Body & string>(kind: K, body: Body[K], requestId = 0): Outgoing => ({
  kind,
  bytes: v1.ServerFrame.encode(requestId === 0 ? { [kind]: body } : { requestId, [kind]: body }).finish(),
})

const quiet: typeof frame = (...of) => ({ ...frame(...of), quiet: true })

/** The wire form of one delivery; SystemEvents carry theirs as stored bytes. */
const envelope = (delivery: Delivery): sealpost.v1.Envelope.$Properties => {
  const common = {
    messageId: uuidToBytes(delivery.messageId),
    conversationId: delivery.conversationId ? uuidToBytes(delivery.conversationId) : NONE,
    sentAtMs: delivery.sentAtMs,
    sequence: delivery.sequence,
  }
  if (delivery.sender === null) return { ...common, systemEvent: v1.SystemEvent.decode(delivery.content) }
  return {
    ...common,
    ciphertext: {
      senderUserId: uuidToBytes(delivery.sender.userId),
      senderDeviceId: delivery.sender.deviceId,
      clientMessageId: uuidToBytes(delivery.sender.clientMessageId),
      messageType: delivery.messageType,
      ciphertextType: delivery.ciphertextType as sealpost.v1.CiphertextType,
      content: delivery.content,
      iv: delivery.iv,
      withheld: delivery.withheld as sealpost.v1.Withheld,
      replyToMessageId: delivery.replyToMessageId ? uuidToBytes(delivery.replyToMessageId) : NONE,
      attachmentUrl: delivery.attachmentUrl ?? '',
      thumbnailUrl: delivery.thumbnailUrl ?? '',
      urgent: delivery.urgent,
    },
  }
}

const counts = (each: Counts): sealpost.v1.PrekeyCounts.$Properties => ({
  ecOneTime: each.oneTime.count,
  kyberOneTime: each.kyberOneTime.count,
  lastResortUsed: each.lastResort?.used ?? false,
})

const address = (each: { userId: Uuid; deviceId: number; registrationId: number }) => ({
  userId: uuidToBytes(each.userId),
  deviceId: each.deviceId,
  registrationId: each.registrationId,
})

/** ServerFrames, one function per kind; requestId 0 = unsolicited, or not known. [C-2.2] */
export const encode = {
  hello: (h: {
    realm: string
    epoch: Uuid
    nowMs: number
    counts: Counts
    queueWaiting: boolean
    userId: Uuid
    deviceId: number
    queueMessages: number
    queueTtlMs: number
  }): Outgoing =>
    quiet('hello', {
      realm: h.realm,
      epoch: uuidToBytes(h.epoch),
      serverTimeMs: h.nowMs,
      prekeyCounts: counts(h.counts),
      queueWaiting: h.queueWaiting,
      userId: uuidToBytes(h.userId),
      deviceId: h.deviceId,
      limits: {
        contentBytes: limits.CONTENT_MAX_BYTES,
        frameBytes: limits.FRAME_MAX_BYTES,
        ackIds: limits.ACK_MAX_IDS,
        pageMessages: limits.PAGE_MAX_MESSAGES,
        pageBytes: limits.PAGE_MAX_BYTES,
        groupMembers: limits.GROUP_MAX_MEMBERS,
        devicesPerUser: limits.DEVICES_MAX_PER_USER,
        windowMessages: limits.WINDOW_MAX_MESSAGES,
        keysPerUpload: limits.KEYS_MAX_PER_UPLOAD,
        queueMessages: h.queueMessages,
        queueTtlMs: h.queueTtlMs,
      },
    }),
  accepted: (
    requestId: number,
    a: {
      messageId: Uuid
      sentAtMs: number
      duplicate: boolean
      skipped: { userId: Uuid; deviceId: number; registrationId: number }[]
    },
  ): Outgoing =>
    frame(
      'messageAccepted',
      {
        messageId: uuidToBytes(a.messageId),
        sentAtMs: a.sentAtMs,
        duplicate: a.duplicate,
        skipped: a.skipped.map(address),
      },
      requestId,
    ),
  envelope: (delivery: Delivery): Outgoing => frame('envelope', envelope(delivery)),
  syncResponse: (
    requestId: number,
    page: {
      deliveries: Delivery[]
      hasMore: boolean
      gap: { gapId: Uuid; overflowed: number; expired: number; sinceMs: number } | null
    },
  ): Outgoing =>
    (page.deliveries.length === 0 && !page.hasMore && !page.gap ? quiet : frame)(
      'syncResponse',
      {
        messages: page.deliveries.map(envelope),
        hasMore: page.hasMore,
        gap: page.gap && { ...page.gap, gapId: uuidToBytes(page.gap.gapId) },
      },
      requestId,
    ),
  queueEmpty: (): Outgoing => quiet('queueEmpty', {}),
  ackCommitted: (requestId: number): Outgoing => frame('ackCommitted', {}, requestId),
  reauthenticated: (requestId: number, expiresAtMs: number): Outgoing =>
    frame('reauthenticated', { expiresAtMs }, requestId),
  keysLow: (c: Counts): Outgoing => frame('keysLow', { counts: counts(c) }),
  goingAway: (reason: 'SHUTDOWN' | 'TOKEN_EXPIRED', retryAfterMs: number): Outgoing =>
    frame('goingAway', { reason: v1.GoingAwayReason[`GOING_AWAY_REASON_${reason}`], retryAfterMs }),
  error: (requestId: number, error: RelayError): Outgoing => ({
    ...frame(
      'error',
      {
        code: v1.ErrorCode[`ERROR_CODE_${error.code}`],
        message: error.message,
        retryAfterMs: error.retryAfterMs,
        deviceMismatch: error.mismatch && {
          missing: error.mismatch.missing.map(address),
          extra: error.mismatch.extra.map(address),
          stale: error.mismatch.stale.map(address),
        },
      },
      requestId,
    ),
    refusal: error,
  }),
}

/** What a poll says on its own connection. [C-9.7] */
export const encodeSyncRequest = (lastMessageId: Uuid | null, limit: number): Uint8Array =>
  v1.ClientFrame.encode({
    syncRequest: { lastMessageId: lastMessageId ? uuidToBytes(lastMessageId) : NONE, limit },
  }).finish()
