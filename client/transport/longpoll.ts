// A socket made of HTTP requests, for networks and platforms that let no WebSocket through: frames go by POST, and what comes is asked
// for again and again. The rest of the SDK does not see a difference. [C-9]
import { hex } from '../bytes.ts'
import type { Socket, SocketEvents, Transport } from '../transport.ts'
import { type ClientFrame, decodeFrame, decodeRequest, encodeAnswer, idOf, type ServerFrame } from '../wire.ts'
import { delimited, withRequestId } from './delimited.ts'
import { exchangeFrame, fetchAnswer, fetchFrames } from './http.ts'

/** @property waitSeconds of one request, at most 60; below what proxies on the way give an answer. Default 25. */
export type LongPollOptions = { waitSeconds?: number }

const WAIT_SECONDS = 25
/** Beyond what was asked for. */
const ANSWER_WITHIN_MS = 15_000
/** Before the same is asked again when the answer brought only what is known. */
const AGAIN_AFTER_MS = 1_000
const BROKEN = 1006
const GOING_AWAY = 1001
/** What of a status a socket would have been closed with; 1006 for others. [C-9.9] */
const CLOSE_CODES: Record<number, number> = { 400: 4400, 401: 4401, 409: 4409, 503: GOING_AWAY }

/** HTTP alone, through fetch. What needs a WebSocket does not work: presence of others, and being linked by a QR code. */
export const longPollTransport = ({ waitSeconds = WAIT_SECONDS }: LongPollOptions = {}): Transport => ({
  request: fetchAnswer,
  exchange: exchangeFrame,
  open(url, token, events) {
    const place = /^ws(s?:\/\/.+)\/v1\/ws$/.exec(url)?.[1]
    if (place !== undefined && token !== null) return new PolledSocket(`http${place}`, token, events, waitSeconds)
    // A provisioning channel: there is none without a WebSocket. [I-5.2]
    queueMicrotask(() => events.closed(BROKEN, 'needs a WebSocket'))
    return { send() {}, close() {} }
  },
})

/**
 * opening → paging: Hello came, and pages are handed out as they are asked for → live: it waits for what comes.
 * Closed at any time: `closed` was told, and nothing is told after it.
 */
class PolledSocket implements Socket {
  readonly noticesLoss = true
  private readonly url: string
  private readonly events: SocketEvents
  private readonly waitSeconds: number
  private token: string
  private state: 'opening' | 'paging' | 'live' | 'closed' = 'opening'
  /** Realm and epoch of the first Hello: with another one a connection begins anew. */
  private world = ''
  /** The page that came with Hello. */
  private first: ServerFrame[] | null = null
  /** Last id that was handed on. */
  private cursor = ''
  private gap = ''
  /** Frames leave one after the other, so that their order holds: messages, and the rest. [C-9.5] */
  private messages: Promise<void> = Promise.resolve()
  private others: Promise<void> = Promise.resolve()
  private readonly ending = new AbortController()

  constructor(url: string, token: string, events: SocketEvents, waitSeconds: number) {
    this.url = url
    this.token = token
    this.events = events
    this.waitSeconds = waitSeconds
    this.guard(this.open())
  }

  send(bytes: Uint8Array): void {
    if (this.state === 'opening' || this.state === 'closed') return
    const frame = decodeRequest(bytes)
    if (frame.syncRequest) this.guard(this.page(frame))
    else if (frame.reauthenticate) this.renew(frame)
    else if (frame.signalMessage) this.messages = this.after(this.messages, bytes, frame.requestId)
    else this.others = this.after(this.others, bytes, frame.requestId)
  }

  close(): void {
    this.end(1000, '')
  }

  private async open(): Promise<void> {
    const frames = await this.ask('', 0)
    const [hello, ...page] = frames
    if (!hello?.hello) return this.end(BROKEN, 'no Hello')
    this.world = worldOf(hello)
    this.first = page
    this.state = 'paging'
    this.events.opened()
    this.tell(hello)
  }

  /** A SyncRequest: the page that is there already, or the one it asks for. */
  private async page({ requestId, syncRequest }: ClientFrame): Promise<void> {
    const [cursor, limit] = [idOf(syncRequest?.lastMessageId), syncRequest?.limit ?? 0]
    const isFirst = this.first !== null && cursor === '' && limit === 0
    const page = isFirst ? this.first! : this.known(await this.ask(cursor, 0, limit))
    this.first = null
    for (const frame of page) {
      if (frame.syncResponse) this.note(frame)
      this.tell({ ...frame, requestId: frame.syncResponse ? requestId : 0 })
    }
    if (!page.some((frame) => frame.queueEmpty) || this.state !== 'paging') return
    this.state = 'live'
    await this.listen()
  }

  private async listen(): Promise<void> {
    while (this.state === 'live') {
      const frames = this.known(await this.ask(this.cursor, this.waitSeconds))
      let isNews = false
      for (const frame of frames) {
        if (frame.queueEmpty) continue
        const { messages, gap, hasMore } = frame.syncResponse ?? {}
        // A loss is told in a page that was asked for: the next connection does.
        if (gap && hex(gap.gapId ?? new Uint8Array(0)) !== this.gap) return this.end(GOING_AWAY, 'a gap')
        for (const envelope of messages ?? []) this.tell({ envelope })
        if (!frame.syncResponse) this.tell(frame)
        isNews ||= !frame.syncResponse || hasMore === true || (messages ?? []).length > 0 || !gap
        this.note(frame)
      }
      if (!isNews) await new Promise((resolve) => setTimeout(resolve, AGAIN_AFTER_MS))
    }
  }

  /** Remembers how far it is. [C-9.10] */
  private note({ syncResponse, envelope }: ServerFrame): void {
    if (syncResponse) this.gap = hex(syncResponse.gap?.gapId ?? new Uint8Array(0))
    const last = envelope ?? syncResponse?.messages?.at(-1)
    if (last) this.cursor = idOf(last.messageId)
  }

  /** What follows Hello, if it is the same relay's. */
  private known([hello, ...rest]: ServerFrame[]): ServerFrame[] {
    if (hello?.hello && worldOf(hello) === this.world) return rest
    if (this.state !== 'closed') this.end(GOING_AWAY, 'the relay is another one')
    return []
  }

  // There is no connection that could live on: requests carry the token.
  private renew({ requestId, reauthenticate }: ClientFrame): void {
    this.token = reauthenticate?.token ?? ''
    this.tell({ requestId, reauthenticated: {} })
  }

  private after(before: Promise<void>, bytes: Uint8Array, requestId: number): Promise<void> {
    return before.then(() => this.guard(this.post(bytes, requestId)))
  }

  private async post(body: Uint8Array, requestId: number): Promise<void> {
    if (this.state === 'closed') return
    const { status, bytes } = await this.fetch('/v1/frames', ANSWER_WITHIN_MS, body)
    if (status === 401) return this.end(4401, 'the token has ended')
    // Of a refusal that came before the frame was read the relay does not know the request.
    if (bytes.length > 0) this.hand(withRequestId(bytes, requestId))
  }

  private async ask(cursor: string, waitSeconds: number, limit = 0): Promise<ServerFrame[]> {
    const fields = [cursor && `last_message_id=${cursor}`, waitSeconds && `wait_seconds=${waitSeconds}`]
    const query = [...fields, limit && `limit=${Math.min(limit, 100)}`].filter(Boolean).join('&')
    const withinMs = waitSeconds * 1000 + ANSWER_WITHIN_MS
    const { status, bytes } = await this.fetch(`/v1/deliveries${query && `?${query}`}`, withinMs)
    const frames = delimited(bytes).map(decodeFrame)
    if (status === 200) return frames
    for (const frame of frames) if (frame.goingAway) this.tell(frame)
    this.end(CLOSE_CODES[status] ?? BROKEN, frames.at(-1)?.error?.message ?? '')
    return []
  }

  private fetch(path: string, withinMs: number, body?: Uint8Array) {
    const { token, ending } = this
    return fetchFrames(this.url + path, { token, withinMs, signal: ending.signal, ...(body && { body }) })
  }

  /** What goes wrong ends the connection, and nothing else. */
  private guard(work: Promise<void>): Promise<void> {
    return work.catch((error: unknown) => this.end(BROKEN, String(error)))
  }

  private tell(frame: Parameters<typeof encodeAnswer>[0]): void {
    this.hand(encodeAnswer(frame))
  }

  private hand(bytes: Uint8Array): void {
    if (this.state !== 'closed') this.events.frame(bytes)
  }

  private end(code: number, reason: string): void {
    if (this.state === 'closed') return
    this.state = 'closed'
    this.ending.abort()
    // Never within a call of the one who is told.
    queueMicrotask(() => this.events.closed(code, reason))
  }
}

const worldOf = ({ hello }: ServerFrame): string => `${hex(hello?.epoch ?? new Uint8Array(0))} ${hello?.realm}`
