// A relay that lies, made of an honest one: frames and answers can be changed, doubled, dropped and reordered on their way to the SDK.
import type { HttpAnswer, HttpRequest, SocketEvents, Transport } from '../../client/index.ts'
import { wsTransport } from '../../client/node.ts'
import { sealpost } from '../../proto/generated/relay.js'

const { ClientFrame, ServerFrame } = sealpost.v1
type Frame = sealpost.v1.ServerFrame

export class Tamper implements Transport {
  /** What becomes of a frame; as it is when absent. */
  frames: ((frame: Frame) => Frame[]) | null = null
  /** What the SDK sent, in order. */
  readonly sent: sealpost.v1.ClientFrame[] = []
  /** Whether a frame of the SDK reaches the relay; all do when absent. */
  passes: ((frame: sealpost.v1.ClientFrame) => boolean) | null = null
  /** What becomes of an answer. */
  answers: ((request: HttpRequest, answer: HttpAnswer) => HttpAnswer) | null = null
  /** Nothing goes through any more, and nobody says so. */
  hole = false
  /** Where it really goes: a relay that moved to another port. */
  route = (url: string): string => url
  requests: HttpRequest[] = []
  tokens: string[] = []
  private events: SocketEvents | null = null
  private readonly inner = wsTransport()
  private listeners: (() => void)[] = []
  private senders: (() => void)[] = []

  async request(request: HttpRequest): Promise<HttpAnswer> {
    this.requests.push(request)
    const answer = await this.inner.request({ ...request, url: this.route(request.url) })
    return this.answers ? this.answers(request, answer) : answer
  }

  open(url: string, token: string, events: SocketEvents) {
    this.tokens.push(token)
    this.events = events
    const socket = this.inner.open(this.route(url), token, {
      opened: events.opened,
      closed: (code, reason) => this.hole || events.closed(code, reason),
      frame: (bytes) => {
        if (this.hole) return
        if (!this.frames) events.frame(bytes)
        else for (const each of this.frames(ServerFrame.decode(bytes))) events.frame(ServerFrame.encode(each).finish())
        for (const tell of this.listeners.splice(0)) tell()
      },
    })
    const send = (bytes: Uint8Array) => {
      const frame = ClientFrame.decode(bytes)
      this.sent.push(frame)
      if (!this.hole && (this.passes?.(frame) ?? true)) socket.send(bytes)
      for (const tell of this.senders.splice(0)) tell()
    }
    return { send, close: () => socket.close() }
  }

  /** After the next frame from the relay. */
  heard(): Promise<void> {
    return new Promise((resolve) => this.listeners.push(resolve))
  }
  /** The first frame of the SDK that fits, past or future. */
  async asked(fits: (frame: sealpost.v1.ClientFrame) => boolean): Promise<sealpost.v1.ClientFrame> {
    for (;;) {
      const found = this.sent.find(fits)
      if (found) return found
      await new Promise<void>((resolve) => this.senders.push(resolve))
    }
  }
  /** As if the relay had said it. */
  say(frame: sealpost.v1.ServerFrame.$Properties): void {
    this.events?.frame(ServerFrame.encode(frame).finish())
  }
  /** Bytes as they are, in the relay's name. */
  raw(bytes: Uint8Array): void {
    this.events?.frame(bytes)
  }
  /** As if the connection had ended so. */
  cut(code: number): void {
    this.events?.closed(code, '')
  }
}
