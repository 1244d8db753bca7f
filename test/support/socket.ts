// One WebSocket of a device: sends frames, keeps those that come, waits for answers.
import { once } from 'node:events'
import { WebSocket } from 'ws'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidFromBytes, uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { socketUrl } from './spread.ts'

const v1 = sealpost.v1
export type ServerFrame = sealpost.v1.ServerFrame
export type Kind = Exclude<keyof sealpost.v1.ServerFrame.$Properties, 'requestId' | 'body' | '$unknowns'>
type Frame<K extends Kind> = NonNullable<sealpost.v1.ServerFrame.$Properties[K]>

export const idOf = (bytes: Uint8Array | null | undefined): string => uuidFromBytes(bytes!)

type Waiter = { take(frame: ServerFrame): boolean; fail(error: Error): void }

/** One WebSocket. Frames wait in order until somebody asks for them. */
export class Socket {
  readonly ws: WebSocket
  hello: Frame<'hello'> = {}
  /** Frames nobody has taken yet. */
  readonly frames: ServerFrame[] = []
  closed: { code: number; reason: string } | null = null
  private readonly waiters: Waiter[] = []
  private requestId = 0

  constructor(ws: WebSocket) {
    this.ws = ws
    ws.binaryType = 'nodebuffer'
    ws.on('message', (data: Buffer) => {
      const frame = v1.ServerFrame.decode(data)
      if (frame.hello) this.hello = frame.hello
      const waiter = this.waiters.findIndex((each) => each.take(frame))
      if (waiter >= 0) this.waiters.splice(waiter, 1)
      else this.frames.push(frame)
    })
    ws.on('error', () => {})
    ws.on('close', (code, reason) => {
      this.closed = { code, reason: reason.toString() }
      for (const each of this.waiters.splice(0)) each.fail(new Error(`closed ${code} ${reason}`))
    })
  }

  static async open(url: string, token: string | null, options: { subprotocols?: string[] } = {}): Promise<Socket> {
    const place = socketUrl(url, token)
    const address = `${place.url.replace(/^http/, 'ws')}/v1/ws`
    const headers = token ? { Authorization: `Bearer ${token}` } : {}
    const ws = new WebSocket(address, options.subprotocols ?? [], { headers, perMessageDeflate: false })
    ws.on('close', place.closed)
    const socket = new Socket(ws)
    await once(ws, 'open')
    return socket
  }

  /** The next frame of that kind, past or future, optionally the answer to one request. @throws when the socket closes first. */
  async next<K extends Kind>(kind: K, requestId?: number): Promise<Frame<K>> {
    const fits = (frame: ServerFrame): boolean =>
      frame[kind] != null && (requestId === undefined || frame.requestId === requestId)
    const at = this.frames.findIndex(fits)
    if (at >= 0) return this.frames.splice(at, 1)[0]![kind] as Frame<K>
    if (this.closed) throw new Error(`closed ${this.closed.code}`)
    return new Promise((resolve, reject) => {
      this.waiters.push({
        take: (frame) => {
          if (!fits(frame)) return false
          resolve(frame[kind] as Frame<K>)
          return true
        },
        fail: reject,
      })
    })
  }

  /** Sends a frame under a new request id. */
  write(body: sealpost.v1.ClientFrame.$Properties): number {
    const requestId = ++this.requestId
    this.ws.send(v1.ClientFrame.encode({ requestId, ...body }).finish())
    return requestId
  }

  /** Sends a frame and waits for what answers it, of whatever kind. */
  async ask(body: sealpost.v1.ClientFrame.$Properties): Promise<ServerFrame> {
    if (this.closed) throw new Error(`closed ${this.closed.code}`)
    const requestId = this.write(body)
    const at = this.frames.findIndex((frame) => frame.requestId === requestId)
    if (at >= 0) return this.frames.splice(at, 1)[0]!
    return new Promise((resolve, reject) => {
      this.waiters.push({
        take: (frame) => {
          if (frame.requestId !== requestId) return false
          resolve(frame)
          return true
        },
        fail: reject,
      })
    })
  }

  /** Sends a message; ids may be given to repeat one. */
  send(
    conversationId: string,
    recipients: sealpost.v1.Recipient.$Properties[],
    more: sealpost.v1.SignalMessage.$Properties = {},
  ): Promise<ServerFrame> {
    const signalMessage = {
      clientMessageId: uuidToBytes(uuidV7(Date.now())),
      conversationId: uuidToBytes(conversationId),
      scope: v1.Scope.SCOPE_ALL,
      recipients,
      ...more,
    }
    return this.ask({ signalMessage })
  }

  /** Acks and waits for the commit. */
  async ack(...messageIds: (Uint8Array | null | undefined)[]): Promise<void> {
    const answer = await this.ask({ ack: { messageIds: messageIds.map((id) => id!) } })
    if (!answer.ackCommitted) throw new Error(`ack was answered ${JSON.stringify(answer)}`)
  }

  /** One page; QueueEmpty stays in the frames when there is one. */
  async sync(lastMessageId?: Uint8Array | null, limit = 0): Promise<Frame<'syncResponse'>> {
    const answer = await this.ask({ syncRequest: { lastMessageId: lastMessageId ?? new Uint8Array(0), limit } })
    if (!answer.syncResponse) throw new Error(`sync was answered ${JSON.stringify(answer)}`)
    return answer.syncResponse
  }

  /** Syncs and acks until the queue is empty. @returns everything that waited, in order. */
  async drain(): Promise<sealpost.v1.Envelope.$Properties[]> {
    const all: sealpost.v1.Envelope.$Properties[] = []
    for (;;) {
      const page = await this.sync()
      const ids = (page.messages ?? []).map((each) => each.messageId)
      all.push(...(page.messages ?? []))
      await this.ack(...ids, ...(page.gap ? [page.gap.gapId] : []))
      if (page.hasMore) continue
      await this.next('queueEmpty')
      return all
    }
  }

  /** Resolves when everything the relay sent before now has arrived: a round trip, since a socket keeps order. */
  async fence(): Promise<void> {
    await this.ack()
  }

  /** Envelopes that arrived and nobody took. */
  envelopes(): sealpost.v1.Envelope.$Properties[] {
    return this.frames.filter((frame) => frame.envelope).map((frame) => frame.envelope!)
  }

  /** Resolves with the close code. */
  async end(): Promise<number> {
    if (!this.closed) await once(this.ws, 'close')
    return this.closed!.code
  }

  /** Leaves, and waits until the relay has seen it. */
  async close(): Promise<void> {
    if (this.closed) return
    this.ws.close()
    await once(this.ws, 'close')
  }
}
