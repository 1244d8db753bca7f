// One WebSocket of a device of the kit: sends frames, keeps those that come, waits for answers, and never for ever.
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { show, Violation } from './check.ts'

export const v1 = sealpost.v1
export type ServerFrame = sealpost.v1.ServerFrame
export type ClientBody = sealpost.v1.ClientFrame.$Properties
export type Envelope = sealpost.v1.Envelope.$Properties
export type Recipient = sealpost.v1.Recipient.$Properties
export type SignalMessage = sealpost.v1.SignalMessage.$Properties
/** The kinds of server frames. */
export type Kind = Exclude<keyof sealpost.v1.ServerFrame.$Properties, 'requestId' | 'body' | '$unknowns'>
export type Frame<K extends Kind> = NonNullable<sealpost.v1.ServerFrame.$Properties[K]>

/** What comes later than this does not come, milliseconds, unless said otherwise. */
export const PATIENCE_MS = 8_000

const CODES = Object.fromEntries(
  Object.entries(v1.ErrorCode).map(([name, number]) => [number, name.replace('ERROR_CODE_', '')]),
) as Record<number, string>

/** The code of an Error frame by name; '' for other frames, the number for a code that is none. */
export const codeIn = (frame: ServerFrame): string =>
  frame.error ? (CODES[frame.error.code ?? 0] ?? String(frame.error.code)) : ''

/** What a frame is, in a word: its kind, or the code of its error. */
export const kindOf = (frame: ServerFrame): string => (frame.error ? codeIn(frame) : (frame.body ?? 'nothing'))

type Waiter = { take(frame: ServerFrame): boolean; fail(error: Error): void }

/** The upgrade was refused. */
export class UpgradeRefused extends Violation {
  readonly status: number
  constructor(status: number) {
    super(`expected the upgrade to be accepted; saw HTTP ${status}`)
    this.status = status
  }
}

export type SocketOptions = {
  subprotocols?: string[]
  autoPong?: boolean
  path?: string
  headers?: Record<string, string>
  patienceMs?: number
}

/** Frames wait in order until somebody asks for them. */
export class Socket {
  readonly ws: WebSocket
  /** Nobody has taken them yet. */
  readonly frames: ServerFrame[] = []
  hello: Frame<'hello'> = {}
  closed: { code: number; reason: string } | null = null
  pings = 0
  /** The upgrade's answer. */
  upgraded: IncomingMessage | null = null
  /** Messages that are no ServerFrame. */
  readonly strange: string[] = []
  /** Everything that came as errors, for the rules about refusals. */
  onError: ((frame: ServerFrame) => void) | null = null
  private readonly waiters: Waiter[] = []
  private readonly patienceMs: number
  private requestId = 0
  /** Messages by request id: relays limit how many are sent in a time. */
  private readonly sends = new Map<number, ClientBody>()

  private constructor(ws: WebSocket, patienceMs: number) {
    this.ws = ws
    this.patienceMs = patienceMs
    ws.on('upgrade', (answer) => {
      this.upgraded = answer
    })
    ws.on('message', (data: Buffer, isBinary: boolean) => this.heard(data, isBinary))
    ws.on('ping', () => this.pings++)
    ws.on('error', () => {})
    ws.on('close', (code, reason) => {
      this.closed = { code, reason: reason.toString() }
      for (const each of this.waiters.splice(0))
        each.fail(new Violation(`expected a frame; saw close ${code} ${reason}`))
    })
  }

  /** @throws UpgradeRefused. */
  static async open(url: string, token: string | null, options: SocketOptions = {}): Promise<Socket> {
    const { subprotocols = [], autoPong = true, path = '/v1/ws', patienceMs = PATIENCE_MS } = options
    const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) }
    const ws = new WebSocket(url.replace(/^http/, 'ws') + path, subprotocols, {
      ...{ headers, autoPong, perMessageDeflate: false, handshakeTimeout: patienceMs },
    })
    const socket = new Socket(ws, patienceMs)
    await new Promise<void>((resolve, reject) => {
      ws.on('open', resolve)
      ws.on('unexpected-response', (_, answer) => {
        reject(new UpgradeRefused(answer.statusCode ?? 0))
        ws.terminate()
      })
      ws.on('error', (error) => reject(new Violation(`expected the upgrade to be accepted; saw ${error.message}`)))
    })
    return socket
  }

  private heard(data: Buffer, isBinary: boolean): void {
    if (!isBinary) {
      this.strange.push(`a text message: ${data.toString().slice(0, 60)}`)
      return
    }
    let frame: ServerFrame
    try {
      frame = v1.ServerFrame.decode(data)
    } catch {
      this.strange.push(`bytes that do not decode: ${data.toString('hex').slice(0, 60)}`)
      return
    }
    if (frame.hello) this.hello = frame.hello
    if (frame.error) this.onError?.(frame)
    const waiter = this.waiters.findIndex((each) => each.take(frame))
    if (waiter >= 0) this.waiters.splice(waiter, 1)
    else this.frames.push(frame)
  }

  /** The first frame that fits, past or future, taken out. @throws Violation when it does not come, or the socket closes first. */
  take(fits: (frame: ServerFrame) => boolean, what: string, withinMs = this.patienceMs): Promise<ServerFrame> {
    const at = this.frames.findIndex(fits)
    if (at >= 0) return Promise.resolve(this.frames.splice(at, 1)[0]!)
    if (this.closed) return Promise.reject(new Violation(`expected ${what}; saw close ${this.closed.code}`))
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        take: (frame) => {
          if (!fits(frame)) return false
          clearTimeout(timer)
          resolve(frame)
          return true
        },
        fail: (error) => {
          clearTimeout(timer)
          reject(error)
        },
      }
      const timer = setTimeout(() => {
        this.waiters.splice(this.waiters.indexOf(waiter), 1)
        const seen = [...this.strange, ...this.frames.map(kindOf)].join(', ') || 'nothing'
        reject(new Violation(`expected ${what} within ${withinMs / 1000} s; saw ${seen.slice(0, 200)}`))
      }, withinMs)
      this.waiters.push(waiter)
    })
  }

  /** The next frame of that kind. */
  async next<K extends Kind>(kind: K, withinMs = this.patienceMs): Promise<Frame<K>> {
    return (await this.take((frame) => frame[kind] != null, `a frame ${kind}`, withinMs))[kind] as Frame<K>
  }

  /** The next message of somebody; system events stay. */
  async message(withinMs = this.patienceMs): Promise<Envelope> {
    const frame = await this.take(
      (each) => each.envelope?.ciphertext != null,
      'an envelope with a ciphertext',
      withinMs,
    )
    return frame.envelope!
  }

  /** Sends a frame under a new request id. @returns the id. */
  write(body: ClientBody): number {
    const requestId = body.requestId ?? ++this.requestId
    if (body.signalMessage) this.sends.set(requestId, body)
    this.ws.send(v1.ClientFrame.encode({ ...body, requestId }).finish())
    return requestId
  }

  /** Sends bytes as they are. */
  raw(bytes: Uint8Array | string): void {
    this.ws.send(bytes)
  }

  /** What answers it. A message that the relay wants later is sent again then, under the same id. [S-9.5] */
  async answer(requestId: number, what = `an answer to request ${requestId}`): Promise<ServerFrame> {
    const body = this.sends.get(requestId)
    for (;;) {
      const frame = await this.take((each) => each.requestId === requestId && each.hello == null, what)
      if (!body || codeIn(frame) !== 'RATE_LIMITED') return frame
      await sleep(frame.error?.retryAfterMs ?? 0)
      this.write({ ...body, requestId })
    }
  }

  /** Sends a frame and waits for what answers it, of whatever kind. */
  ask(body: ClientBody): Promise<ServerFrame> {
    const what = `an answer to ${Object.keys(body).filter((key) => key !== 'requestId')}`
    return this.answer(this.write(body), what)
  }

  /** Sends a message; ids may be given to repeat one. */
  send(conversationId: string, recipients: Recipient[], more: SignalMessage = {}): Promise<ServerFrame> {
    return this.ask({ signalMessage: signalMessage(conversationId, recipients, more) })
  }

  /** Sends one that must be accepted. */
  async accepted(
    conversationId: string,
    recipients: Recipient[],
    more: SignalMessage = {},
  ): Promise<Frame<'messageAccepted'>> {
    const frame = await this.send(conversationId, recipients, more)
    if (!frame.messageAccepted) throw new Violation(`expected MessageAccepted; saw ${kindOf(frame)} ${show(frame)}`)
    return frame.messageAccepted
  }

  /** Asks for what must be refused so. @returns the Error. */
  async refused(body: ClientBody, code: string, what: string): Promise<Frame<'error'>> {
    const frame = await this.ask(body)
    if (codeIn(frame) !== code) throw new Violation(`expected ${code} for ${what}; saw ${kindOf(frame)}`)
    return frame.error!
  }

  /** Asks for what must be answered by a frame of that kind. */
  async asked<K extends Kind>(body: ClientBody, kind: K): Promise<Frame<K>> {
    const frame = await this.ask(body)
    if (frame[kind] == null) throw new Violation(`expected ${kind}; saw ${kindOf(frame)}`)
    return frame[kind] as Frame<K>
  }

  /** Acks and waits for the commit. */
  async ack(...ids: (Uint8Array | null | undefined)[]): Promise<void> {
    const frame = await this.ask({ ack: { messageIds: ids.map((id) => id!) } })
    if (!frame.ackCommitted) throw new Violation(`expected AckCommitted; saw ${kindOf(frame)}`)
  }

  /** One page; QueueEmpty stays in the frames when there is one. */
  async sync(lastMessageId: Uint8Array | null = null, limit = 0): Promise<Frame<'syncResponse'>> {
    const frame = await this.ask({ syncRequest: { lastMessageId: lastMessageId ?? new Uint8Array(0), limit } })
    if (!frame.syncResponse) throw new Violation(`expected SyncResponse; saw ${kindOf(frame)}`)
    return frame.syncResponse
  }

  /** Syncs without acking until the queue was read to its end. */
  async readAll(): Promise<Envelope[]> {
    const all: Envelope[] = []
    for (;;) {
      const page = await this.sync(all.at(-1)?.messageId ?? null)
      all.push(...(page.messages ?? []))
      if (page.hasMore) continue
      await this.next('queueEmpty')
      return all
    }
  }

  /** Syncs and acks until the queue is empty. @returns what waited, in order. */
  async drain(): Promise<Envelope[]> {
    const all: Envelope[] = []
    for (;;) {
      const page = await this.sync()
      all.push(...(page.messages ?? []))
      await this.ack(...(page.messages ?? []).map((each) => each.messageId), ...(page.gap ? [page.gap.gapId] : []))
      if (page.hasMore) continue
      await this.next('queueEmpty')
      return all
    }
  }

  /** Envelopes that came and nobody took. */
  envelopes(): Envelope[] {
    return this.frames.filter((frame) => frame.envelope).map((frame) => frame.envelope!)
  }

  /** A round trip: what the relay sent before has arrived. */
  async fence(): Promise<void> {
    await this.ack()
  }

  /** The close code. @throws Violation when it stays open. */
  async end(withinMs = this.patienceMs): Promise<number> {
    if (this.closed) return this.closed.code
    const late = new AbortController()
    const timer = setTimeout(() => late.abort(), withinMs)
    try {
      await once(this.ws, 'close', { signal: late.signal })
    } catch {
      throw new Violation(`expected the connection to be closed within ${withinMs / 1000} s; saw it open`)
    } finally {
      clearTimeout(timer)
    }
    return this.closed!.code
  }

  /** Leaves, and waits until it is over. */
  async close(): Promise<void> {
    if (this.closed) return
    this.ws.close()
    await this.end(1000).catch(() => this.ws.terminate())
  }
}

/** A message to all devices, as it is made unless said otherwise. */
export const signalMessage = (
  conversationId: string,
  recipients: Recipient[],
  more: SignalMessage = {},
): SignalMessage => ({
  clientMessageId: uuidToBytes(uuidV7(Date.now())),
  conversationId: uuidToBytes(conversationId),
  scope: v1.Scope.SCOPE_ALL,
  recipients,
  ...more,
})
