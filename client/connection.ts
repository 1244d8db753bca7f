// One device's connection, kept up: states, reconnecting, matching answers to requests. What frames mean is not decided here.
import { RelayError } from '../proto/errors.ts'
import {
  ACK_MAX_IDS,
  CONTENT_MAX_BYTES,
  FRAME_HTTP_MAX_BYTES,
  FRAME_MAX_BYTES,
  KEYS_MAX_PER_UPLOAD,
} from '../proto/limits.ts'
import { Backoff, type Ending } from './backoff.ts'
import { Emitter } from './events.ts'
import { Unreachable } from './http.ts'
import { Liveness } from './liveness.ts'
import type { Cancel, Time } from './time.ts'
import { withRequestId } from './transport/delimited.ts'
import type { Socket, Transport } from './transport.ts'
import {
  type ClientBody,
  decodeFrame,
  encodeFrame,
  GoingAwayReason,
  type Hello,
  type Limits,
  type ServerFrame,
} from './wire.ts'

/** Why a connection is over for good. */
export type CloseReason =
  /** By the app. */
  | 'stopped'
  /** Another process of this device connected: it is not to be fought. [C-5.1] */
  | 'connected_elsewhere'
  /** The relay knows the device no more. [C-8] */
  | 'unlinked'
  /** The relay calls our frames malformed: a defect. */
  | 'malformed'
  /** Another deployment answers at this address. [C-3.2] */
  | 'wrong_realm'
  /** The store failed; nothing can be promised any more. */
  | 'storage_failed'

/** offline: `retryInMs` until the next try. */
export type ConnectionState =
  | { name: 'connecting' }
  | { name: 'syncing' }
  | { name: 'live' }
  | { name: 'offline'; retryInMs: number }
  | { name: 'closed'; reason: CloseReason }

/** The connection ended before the answer came: the request may or may not have been done. */
export class Disconnected extends Error {}
/** No token can be had any more: the device is gone. */
export class DeviceGone extends Error {}

/** frame: unsolicited ones, in order. hello: the first of a connection. */
export type ConnectionEvents = { state: ConnectionState; hello: Hello; frame: ServerFrame }

/** Tokens for the socket. @throws DeviceGone when the relay refuses the device; anything else counts as offline. */
export type Tokens = (options: { fresh: boolean }) => Promise<{ token: string; expiresInMs: number }>

/** @property messageBytes of a SignalMessage; 0 = another request. */
type Waiting = { resolve(frame: ServerFrame): void; reject(error: Error): void; messageBytes: number }

/** [C-8] */
const CLOSE_TOO_LARGE = 1009
const CLOSE_DISPLACED = 4409
const FINAL: Record<number, CloseReason> = { 4400: 'malformed', [CLOSE_DISPLACED]: 'connected_elsewhere' }
const OPEN_WITHIN_MS = 15_000
const REAUTHENTICATE_BEFORE_MS = 120_000
/** An attempt that was given up may still reach the relay for so long. [C-5.3] */
const STRAY_MS = 60_000

/** Reconnects until it is closed. Nothing is sent before `hello`. */
export class Connection extends Emitter<ConnectionEvents> {
  state: ConnectionState = { name: 'closed', reason: 'stopped' }
  /** In force on this relay, as its last Hello said; the protocol's own before that. [L-1] */
  limits = {
    frameBytes: FRAME_MAX_BYTES,
    contentBytes: CONTENT_MAX_BYTES,
    ackIds: ACK_MAX_IDS,
    keysPerUpload: KEYS_MAX_PER_UPLOAD,
  }
  private readonly options: { transport: Transport; url: string; time: Time; tokens: Tokens }
  private readonly backoff: Backoff
  private readonly liveness: Liveness
  private readonly waiting = new Map<number, Waiting>()
  private socket: Socket | null = null
  private requestId = 0
  private token = ''
  /** Counts attempts: what belongs to an earlier one is ignored. */
  private attempt = 0
  private openedAtMs: number | null = null
  private retryAfterMs: number | null = null
  private needsFresh = false
  /** Until then a 4409 may be the work of an attempt of our own. */
  private strayUntilMs = 0
  private cancelRetry: Cancel | null = null
  private cancelOpening: Cancel | null = null
  private cancelReauthenticate: Cancel | null = null

  constructor(options: { transport: Transport; url: string; time: Time; tokens: Tokens }) {
    super()
    this.options = options
    this.backoff = new Backoff(options.time)
    this.liveness = new Liveness(
      options.time,
      () => this.post({ ack: { messageIds: [] } }),
      () => this.lost(),
    )
  }

  get isLive(): boolean {
    return this.state.name === 'live'
  }

  /** Connects, also after it was closed. Harmless while it runs. */
  start(): void {
    if (this.state.name === 'closed') void this.connect()
  }

  /** Tries now instead of later: the network is back. */
  retryNow(): void {
    if (this.state.name === 'offline') void this.connect()
  }

  /** Ends it for good. */
  close(reason: CloseReason): void {
    if (this.state.name === 'closed') return
    this.end()
    this.change({ name: 'closed', reason })
  }

  /** The queue is empty: what comes now is new. */
  live(): void {
    if (this.state.name !== 'syncing') return
    this.backoff.reset()
    this.change({ name: 'live' })
  }

  /** Bytes of the largest frame there is a way for. [C-9.4] */
  get largestFrame(): number {
    return this.options.transport.exchange ? FRAME_HTTP_MAX_BYTES : this.limits.frameBytes
  }

  /**
   * Sends and waits for what answers it, an Error frame included.
   * @throws Disconnected; Unreachable for what is too large for the socket; RelayError TOO_LARGE when it ended the connection.
   */
  ask(body: ClientBody): Promise<ServerFrame> {
    const { socket } = this
    if (!socket || this.openedAtMs === null) return Promise.reject(new Disconnected('there is no connection'))
    return new Promise((resolve, reject) => {
      const requestId = ++this.requestId
      const frame = encodeFrame(requestId, body)
      const isLarge = frame.length > this.limits.frameBytes && this.options.transport.exchange !== undefined
      const messageBytes = body.signalMessage && !isLarge ? frame.length : 0
      this.waiting.set(requestId, { resolve, reject, messageBytes })
      if (isLarge) void this.exchange(requestId, frame)
      else socket.send(frame)
    })
  }

  /** The same of a relay that must answer: one that does not in time is left. @throws Disconnected. */
  askWithin(ms: number, body: ClientBody): Promise<ServerFrame> {
    return this.ask(body).finally(this.options.time.after(ms, () => this.lost()))
  }

  /** Sends without caring for the answer. */
  post(body: ClientBody): void {
    this.ask(body).catch(() => {})
  }

  /** Sends what has no answer; a refusal is not heard. [C-2.2] */
  tell(body: ClientBody): void {
    if (this.openedAtMs !== null) this.socket?.send(encodeFrame(0, body))
  }

  /** What is too large for a socket goes by itself; its answer is taken like any other. */
  private async exchange(requestId: number, frame: Uint8Array): Promise<void> {
    const { transport, url } = this.options
    const { attempt } = this
    try {
      const answer = await transport.exchange!(`${url}/v1/frames`, this.token, frame)
      if (attempt === this.attempt) this.frame(withRequestId(answer, requestId))
    } catch (cause) {
      this.waiting.get(requestId)?.reject(new Unreachable('the relay does not answer', { cause }))
      this.waiting.delete(requestId)
    }
  }

  private async connect(): Promise<void> {
    this.end()
    const attempt = this.attempt
    this.change({ name: 'connecting' })
    try {
      const fresh = this.needsFresh
      this.needsFresh = false
      const { token, expiresInMs } = await this.options.tokens({ fresh })
      if (attempt === this.attempt) this.open(attempt, token, expiresInMs)
    } catch (error) {
      if (attempt !== this.attempt) return
      if (error instanceof DeviceGone) this.close('unlinked')
      else this.closed(1006)
    }
  }

  private open(attempt: number, token: string, expiresInMs: number): void {
    const { transport, url, time } = this.options
    const mine = <A extends unknown[]>(call: (...args: A) => void) => {
      return (...args: A) => {
        if (attempt === this.attempt) call(...args)
      }
    }
    this.token = token
    this.cancelOpening = time.after(OPEN_WITHIN_MS, () => this.lost())
    this.planReauthentication(expiresInMs)
    this.socket = transport.open(`${url.replace(/^http/, 'ws')}/v1/ws`, token, {
      opened: mine(() => {
        this.openedAtMs = time.now()
        if (!this.socket?.noticesLoss) this.liveness.start()
      }),
      frame: mine((bytes) => this.frame(bytes)),
      closed: mine((code) => this.closed(code)),
    })
  }

  private frame(bytes: Uint8Array): void {
    this.liveness.heard()
    let frame: ServerFrame
    try {
      frame = decodeFrame(bytes)
    } catch {
      // Not a relay, or one with a defect: what it meant is lost, and the next connection begins anew.
      this.lost()
      return
    }
    const waiting = this.waiting.get(frame.requestId)
    if (waiting) {
      this.waiting.delete(frame.requestId)
      waiting.resolve(frame)
      return
    }
    if (frame.hello) {
      this.cancelOpening?.()
      this.adopt(frame.hello.limits ?? {})
      this.change({ name: 'syncing' })
      this.emit('hello', frame.hello)
      return
    }
    if (frame.goingAway) {
      this.retryAfterMs = frame.goingAway.retryAfterMs ?? 0
      if (frame.goingAway.reason === GoingAwayReason.GOING_AWAY_REASON_TOKEN_EXPIRED) void this.reauthenticate()
    }
    this.emit('frame', frame)
  }

  private adopt({ frameBytes, contentBytes, ackIds, keysPerUpload }: Limits): void {
    const { limits } = this
    this.limits = {
      frameBytes: frameBytes || limits.frameBytes,
      contentBytes: contentBytes || limits.contentBytes,
      ackIds: ackIds || limits.ackIds,
      keysPerUpload: keysPerUpload || limits.keysPerUpload,
    }
  }

  // [C-6] Well before the end; GoingAway is the reminder when a timer slept.
  private planReauthentication(expiresInMs: number): void {
    const inMs = Math.max(expiresInMs - REAUTHENTICATE_BEFORE_MS, 10_000)
    this.cancelReauthenticate?.()
    this.cancelReauthenticate = this.options.time.after(inMs, () => void this.reauthenticate())
  }

  private async reauthenticate(): Promise<void> {
    try {
      const { token, expiresInMs } = await this.options.tokens({ fresh: true })
      const answer = await this.ask({ reauthenticate: { token } })
      if (!answer.reauthenticated) return
      this.token = token
      this.retryAfterMs = null
      this.planReauthentication(expiresInMs)
    } catch {
      // The relay ends the connection with 4401, and the next one asks for a token.
    }
  }

  /** This connection is of no use: the next one begins anew, after a while. */
  lost(): void {
    this.socket?.close()
    this.closed(1006)
  }

  private closed(code: number): void {
    const ending: Ending = {
      code,
      openMs: this.openedAtMs === null ? null : this.options.time.now() - this.openedAtMs,
      retryAfterMs: this.retryAfterMs,
    }
    // A platform that hides why an upgrade failed may hide a 401.
    if (code === 4401 || ending.openMs === null) this.needsFresh = true
    if (code === CLOSE_TOO_LARGE) this.refuseLargest()
    this.end()
    const final = FINAL[code]
    // [C-5.3] Once: whoever displaces us again is somebody else.
    const isStray = code === CLOSE_DISPLACED && this.options.time.now() < this.strayUntilMs
    if (isStray) this.strayUntilMs = 0
    else if (final) {
      this.change({ name: 'closed', reason: final })
      return
    }
    const retryInMs = this.backoff.after(ending)
    this.cancelRetry = this.options.time.after(retryInMs, () => void this.connect())
    this.change({ name: 'offline', retryInMs })
  }

  /** 1009 does not say over which message: the largest under way is not sent again. [C-8] */
  private refuseLargest(): void {
    const messages = [...this.waiting].filter(([, { messageBytes }]) => messageBytes > 0)
    const [largest] = messages.sort(([, a], [, b]) => b.messageBytes - a.messageBytes)
    if (!largest) return
    this.waiting.delete(largest[0])
    largest[1].reject(new RelayError('TOO_LARGE', 'the relay ended the connection over its size'))
  }

  /** Lets go of the present attempt, whatever its stage. */
  private end(): void {
    this.attempt++
    for (const cancel of [this.cancelRetry, this.cancelOpening, this.cancelReauthenticate]) cancel?.()
    this.liveness.stop()
    // It may have left, and be let in after the attempt that follows it.
    if (this.socket && this.openedAtMs === null) this.strayUntilMs = this.options.time.now() + STRAY_MS
    this.socket?.close()
    this.socket = null
    this.openedAtMs = null
    this.retryAfterMs = null
    const waiting = [...this.waiting.values()]
    this.waiting.clear()
    for (const each of waiting) each.reject(new Disconnected('the connection ended'))
  }

  private change(state: ConnectionState): void {
    this.state = state
    this.emit('state', state)
  }
}
