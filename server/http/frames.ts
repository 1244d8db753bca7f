// The same frames for those who cannot hold a socket: one frame per request, and the queue by asking. [C-9] Rules are where they are for sockets.
import { invalid, type RelayError } from '../../proto/errors.ts'
import { isUuid, type Uuid } from '../../proto/ids.ts'
import { FRAME_HTTP_MAX_BYTES, FRAME_MAX_BYTES, PAGE_MAX_MESSAGES, POLL_WAIT_MAX_SECONDS } from '../../proto/limits.ts'
import { type RawBody, type Route, type RouteRequest, type RouteResponse, route } from '../../proto/route.ts'
import { BadFrame, type ClientFrame, decodeClientFrame, decodeLargeFrame, encode, encodeSyncRequest } from '../codec.ts'
import { Collected, Poll } from '../collected.ts'
import { refusalHead } from '../errors.ts'
import type { Outgoing } from '../frames.ts'
import type { Observe } from '../observe.ts'
import type { Entered, Reception } from '../reception.ts'
import type { Time } from '../time.ts'
import type { Uploads } from '../uploads.ts'

type Deps = { reception: Reception; uploads: Uploads; time: Time; observe: Observe }

const PROTOBUF = 'application/x-protobuf'
const CONTENT_TYPES = new Set([PROTOBUF, 'application/octet-stream'])
/** Larger frames are decoded in steps. I14 */
const STEPS_ABOVE_BYTES = 64 * 1024
/** These are about a connection, and there is none. [C-9.1] */
const NEEDS_SOCKET = new Set<ClientFrame['kind']>(['sync', 'reauthenticate', 'presence'])
/** A device that waited is taken to be there for so long after each answer, milliseconds. [C-9.8] */
const REST_MS = 3_000

/** `POST /v1/frames` and `GET /v1/deliveries`. */
export function frameRoutes({ reception, uploads, time, observe }: Deps): Route[] {
  /** By device key, those between two requests. */
  const resting = new Map<number, Poll>()

  async function exchange({ caller, address, body }: RouteRequest<RawBody>): Promise<RouteResponse> {
    if (!CONTENT_TYPES.has(body.contentType.split(';')[0]!.trim().toLowerCase()))
      throw invalid(`Content-Type must be ${[...CONTENT_TYPES].join(' or ')}`)
    const leave = uploads.enter(caller.userId, body.contentLength)
    try {
      const connection = new Collected(address)
      const line = reception.exchange(connection, caller)
      const bytes = await body.read()
      const next = bytes.length > FRAME_MAX_BYTES ? await uploads.turn() : null
      try {
        const frame = await read(bytes).catch((error: unknown) => line.bad(error))
        if (frame) await line.take(frame, bytes.length)
      } finally {
        next?.()
      }
      const [answer] = connection.frames
      // Typing that was passed on: the one frame without an answer. [C-2.3]
      if (!answer) return { status: 204 }
      observe.metrics.framesOut.inc({ kind: answer.kind })
      return answerOf(answer.bytes, answer.refusal)
    } finally {
      leave()
    }
  }

  async function deliveries(request: RouteRequest<undefined>): Promise<RouteResponse> {
    const { caller, expiresAtMs, address, query, nowMs } = request
    const lastMessageId = cursorIn(query)
    const limit = numberIn(query, 'limit', 1, PAGE_MAX_MESSAGES) ?? PAGE_MAX_MESSAGES
    const waitSeconds = numberIn(query, 'wait_seconds', 0, POLL_WAIT_MAX_SECONDS) ?? 0
    const isConsumer = waitSeconds > 0
    if (isConsumer) reception.checkRoom(caller.userId)
    // It does not outlive its token, and the next one needs a fresh one. [C-9.9]
    const waitMs = Math.min(waitSeconds * 1000, expiresAtMs - nowMs)
    const poll = new Poll(address, isConsumer ? (call) => time.after(waitMs, call) : null)
    request.onGone(() => poll.abandon())
    // The one before it is displaced, and what it kept comes with this.
    if (isConsumer) poll.carry(resting.get(caller.deviceKey)?.kept ?? [])
    const events = reception.enter(poll, caller, Number.POSITIVE_INFINITY, isConsumer)
    events.frame(encodeSyncRequest(lastMessageId, limit))
    const { frames, refusal, code } = await poll.ended
    if (isConsumer && code === 1000 && !refusal) rest(poll, caller.deviceKey, events)
    else events.closed(code)
    for (const frame of frames) events.sent(frame)
    return answerOf(delimited(frames), refusal)
  }

  /** Its session goes on for a little, so that signals between two requests are not lost, and nobody sees it come and go. */
  function rest(poll: Poll, deviceKey: number, events: Entered): void {
    const cancel = time.after(REST_MS, () => poll.close(1000, 'no longer asked for'))
    poll.rest((code) => {
      cancel()
      if (resting.get(deviceKey) === poll) resting.delete(deviceKey)
      events.closed(code)
    })
    resting.set(deviceKey, poll)
    events.rest()
  }

  const shared = { auth: 'device' as const }
  return [
    route<RawBody>({
      ...shared,
      method: 'POST',
      path: '/v1/frames',
      summary: 'One ClientFrame; the answer is the ServerFrame that answers it.',
      raw: true,
      maxBodyBytes: FRAME_HTTP_MAX_BYTES,
      refuse: (error) => answerOf(encode.error(0, error).bytes, error),
      handle: exchange,
    }),
    route<undefined>({
      ...shared,
      method: 'GET',
      path: '/v1/deliveries',
      summary: 'What waits for the device, or comes within wait_seconds, as length-delimited ServerFrames.',
      refuse: (error) => answerOf(delimited([encode.error(0, error)]), error),
      handle: deliveries,
    }),
  ]
}

/** @throws BadFrame. */
async function read(bytes: Buffer): Promise<ClientFrame> {
  const frame = bytes.length > STEPS_ABOVE_BYTES ? await decodeLargeFrame(bytes) : decodeClientFrame(bytes)
  const bad = (code: 'TOO_LARGE' | 'INVALID_REQUEST', why: string) => new BadFrame(code, why, frame.requestId, true)
  if (NEEDS_SOCKET.has(frame.kind)) throw bad('INVALID_REQUEST', 'frames of this kind need a WebSocket')
  if (frame.kind !== 'send' && bytes.length > FRAME_MAX_BYTES)
    throw bad('TOO_LARGE', `only messages may exceed ${FRAME_MAX_BYTES} bytes`)
  return frame
}

function answerOf(body: Uint8Array, refusal: RelayError | null | undefined): RouteResponse {
  const { status, headers } = refusal ? refusalHead(refusal) : { status: 200, headers: {} }
  return { status, contentType: PROTOBUF, headers: { 'Cache-Control': 'no-store', ...headers }, body }
}

function cursorIn(query: URLSearchParams): Uuid | null {
  const text = query.get('last_message_id')
  if (!text) return null
  if (!isUuid(text)) throw invalid('last_message_id is not a UUID in canonical lowercase form')
  return text
}

function numberIn(query: URLSearchParams, name: string, low: number, high: number): number | null {
  const text = query.get(name)
  if (text === null) return null
  const value = /^\d{1,4}$/.test(text) ? Number(text) : Number.NaN
  if (!(value >= low && value <= high)) throw invalid(`${name} must be a whole number from ${low} to ${high}`)
  return value
}

/** Each frame behind its length as a varint. [C-9.6] */
function delimited(frames: Outgoing[]): Uint8Array {
  return Buffer.concat(frames.flatMap(({ bytes }) => [varint(bytes.length), bytes]))
}

function varint(value: number): Uint8Array {
  const bytes: number[] = []
  let rest = value
  for (; rest > 0x7f; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80)
  bytes.push(rest)
  return Uint8Array.from(bytes)
}
