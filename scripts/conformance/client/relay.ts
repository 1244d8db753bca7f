// The scripted relay: HTTP and WebSockets of one deployment in memory, honest until a scenario says otherwise. A test instrument for
// clients; it stores nothing, checks little, and remembers everything it was told.

import { randomBytes } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type WebSocket, WebSocketServer } from 'ws'
import { uuidToBytes, uuidV7 } from '../../../proto/ids.ts'
import { Violation } from '../check.ts'
import { within } from '../runner.ts'
import type { ClientBody, Envelope, Frame, ServerFrame } from '../socket.ts'
import { Directory, type Entry } from './directory.ts'
import { answerHttp } from './endpoints.ts'
import { Line } from './line.ts'
import { eventOf, type Link, type Room, Rooms } from './rooms.ts'

// biome-ignore lint/suspicious/noExplicitAny: bodies of another program
type Json = any

/** One HTTP request of the client. @property json of the body, or its form fields. */
export type Seen = {
  method: string
  path: string
  query: URLSearchParams
  headers: IncomingMessage['headers']
  json: Json
  atMs: number
}

/** @property body JSON; absent = none. */
export type Reply = { status: number; body?: unknown; headers?: Record<string, string> }

/** What a scenario changes. Absent = as the protocol says. */
export type Script = {
  /** Status with which an upgrade is refused, by how many connections there were before; null = it is let in. */
  upgrade?(before: number): number | null
  /** What Hello says instead; null = nothing is said. */
  hello?(hello: Frame<'hello'>): Frame<'hello'> | null
  /** @returns true when it dealt with the frame. */
  frame?(line: Line, frame: ClientBody): boolean
  /** @returns an answer of its own; 'hang up' = the connection breaks, null = as usual. */
  http?(request: Seen): Reply | 'hang up' | null
  /** After an answer was made, before it is sent. */
  answered?(request: Seen, reply: Reply): Reply | 'hang up'
}

/** One send that was accepted. @property duplicates how often it came again. */
export type Sent = {
  clientMessageId: string
  conversationId: string
  message: NonNullable<ClientBody['signalMessage']>
  messageId: Uint8Array
  sentAtMs: number
  duplicates: number
}

/** Takes what is for a device of a peer. */
export type Mailbox = {
  take(sent: Sent, recipient: NonNullable<NonNullable<ClientBody['signalMessage']>['recipients']>[number]): void
}

export class ScriptedRelay {
  readonly directory = new Directory()
  readonly rooms = new Rooms()
  readonly script: Script = {}
  readonly lines: Line[] = []
  readonly requests: Seen[] = []
  readonly sent: Sent[] = []
  /** Un-acked envelopes of the client's device, in order. */
  queue: Envelope[] = []
  /** Message ids that were acked, hex, however often. */
  readonly acked: string[] = []
  gap: Frame<'syncResponse'>['gap'] = null
  readonly mailboxes = new Map<string, Mailbox>()
  /** Users the relay delivers to although no member added them, by conversation. */
  readonly ghosts = new Map<string, string[]>()
  realm = ''
  url = ''
  epoch = randomBytes(16)
  /** How far this relay's clock is ahead of ours: it moves with the client's. */
  aheadMs = 0
  limits = {
    ...{ contentBytes: 98_304, frameBytes: 1_048_576, ackIds: 1000, pageMessages: 100, pageBytes: 1_048_576 },
    ...{ groupMembers: 500, devicesPerUser: 10, windowMessages: 256, keysPerUpload: 100, queueMessages: 10_000 },
    queueTtlMs: 30 * 86_400_000,
  }
  readonly tokens = new Map<string, Entry>()
  /** Who waits for a sealed message, by address: new devices, and the kit in their place. [I-5] */
  readonly channels = new Map<string, { take(message: Uint8Array): void }>()
  /** Link codes, each with its user. */
  readonly linkCodes = new Map<string, string>()
  /** How long is waited for what the client does. */
  patienceMs = 10_000
  private sequence = 0
  private readonly server: Server
  private readonly sockets = new WebSocketServer({ noServer: true, handleProtocols: () => 'sealpost.v1' })
  private readonly probes = new Set<() => void>()

  private constructor() {
    this.server = createServer((request, response) => void this.http(request, response))
    this.server.on('upgrade', (request, socket, head) => {
      const { pathname } = new URL(request.url ?? '/', 'http://x')
      const token = tokenOf(request)
      const entry = this.tokens.get(token)
      this.note(request, null)
      const address = /^\/v1\/provisioning\/([\w-]{22})$/.exec(pathname)?.[1]
      if (address) return this.sockets.handleUpgrade(request, socket, head, (ws) => this.wait(address, ws))
      const status = this.script.upgrade?.(this.lines.length) ?? (pathname !== '/v1/ws' ? 404 : entry ? null : 401)
      if (status !== null || !entry) {
        socket.end(`HTTP/1.1 ${status ?? 401} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`)
        return this.touch()
      }
      this.sockets.handleUpgrade(request, socket, head, (ws) => {
        this.lines.push(new Line(this, ws, entry, token))
        this.touch()
      })
    })
  }

  /** @param port 0 = any. */
  static async listen(port: number, host: string): Promise<ScriptedRelay> {
    const relay = new ScriptedRelay()
    await new Promise<void>((resolve, reject) => {
      relay.server.once('error', reject)
      relay.server.listen(port, host, resolve)
    })
    relay.url = `http://${host}:${(relay.server.address() as AddressInfo).port}`
    relay.realm = relay.url
    return relay
  }

  async close(): Promise<void> {
    for (const ws of [...this.lines.map((line) => line.ws), ...this.waiting.values()]) ws.terminate()
    this.server.closeAllConnections()
    await new Promise((resolve) => this.server.close(resolve))
  }

  now(): number {
    return Date.now() + this.aheadMs
  }

  /** The client's device. @throws Violation before it registered. */
  get device(): Entry {
    const entry = this.directory.devices.find((each) => each.secret !== '')
    if (!entry) throw new Violation('expected the client to have registered; saw no POST /v1/accounts')
    return entry
  }
  /** The connection there is now, if any. */
  get line(): Line | null {
    return this.lines.findLast((each) => each.closed === null) ?? null
  }
  /** All frames of the client, on whatever connection. */
  get frames(): ClientBody[] {
    return this.lines.flatMap((line) => line.frames)
  }

  /** The first thing a probe finds, now or later. @throws Violation when it finds nothing in time. */
  when<T>(probe: () => T | null | undefined | false, what: string, withinMs = this.patienceMs): Promise<T> {
    const now = probe()
    if (now) return Promise.resolve(now)
    let look = (): void => {}
    const found = new Promise<T>((resolve) => {
      look = () => {
        const value = probe()
        if (value) resolve(value)
      }
    })
    this.probes.add(look)
    return within(found, withinMs, what).finally(() => this.probes.delete(look))
  }
  /** Something happened. */
  touch(): void {
    for (const look of [...this.probes]) look()
  }

  /** Puts an envelope into the client's queue; sent at once when its connection is live. @returns it with id and sequence. */
  deliver(envelope: Envelope): Envelope {
    const whole = {
      messageId: uuidToBytes(uuidV7(this.now())),
      sentAtMs: this.now(),
      ...envelope,
      sequence: ++this.sequence,
    }
    this.queue.push(whole)
    if (this.line?.isLive) this.line.send({ envelope: whole })
    return whole
  }

  private wait(address: string, ws: WebSocket): void {
    const channel = {
      take: (message: Uint8Array) => {
        this.channels.delete(address)
        ws.send(message)
        ws.close(1000)
      },
    }
    ws.on('error', () => {})
    ws.on('close', () => this.channels.get(address) === channel && this.channels.delete(address))
    this.channels.set(address, channel)
    this.waiting.set(address, ws)
    this.touch()
  }
  /** Their sockets, also those that ended. */
  readonly waiting = new Map<string, WebSocket>()

  /** Passes by so many sequences, as if others had been acked from elsewhere. */
  skip(count: number): void {
    this.sequence += count
  }

  /** Appends a link to a conversation's chain and tells the client. */
  change(room: Room, link: Omit<Link, 'revision' | 'atMs'>): void {
    const whole = this.rooms.link(room, { ...link, atMs: this.now() })
    this.deliver({ conversationId: uuidToBytes(room.id), systemEvent: eventOf(whole) })
  }

  /** A frame to the client, on the connection there is. */
  say(frame: Partial<ServerFrame> | { [name: string]: unknown }): void {
    const { line } = this
    if (!line) throw new Violation('expected the client to be connected; saw no connection')
    line.send(frame as Partial<ServerFrame>)
  }

  /** Requests of that kind. */
  asked(method: string, path: string | RegExp): Seen[] {
    const fits = (each: string) => (typeof path === 'string' ? each === path : path.test(each))
    return this.requests.filter((each) => each.method === method && fits(each.path))
  }

  private note(request: IncomingMessage, json: unknown): Seen {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://x')
    const { method = '', headers } = request
    const seen = { method, path: decodeURIComponent(pathname), query: searchParams, headers, json, atMs: this.now() }
    this.requests.push(seen)
    return seen
  }

  private async http(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const text = Buffer.concat(chunks).toString()
    const seen = this.note(request, bodyOf(request, text))
    let reply = this.script.http?.(seen) ?? answerHttp(this, seen)
    if (reply !== 'hang up' && this.script.answered) reply = this.script.answered(seen, reply)
    this.touch()
    if (reply === 'hang up') return void request.socket.destroy()
    const { status, body, headers = {} } = reply
    response.writeHead(status, { ...(body !== undefined && { 'Content-Type': 'application/json' }), ...headers })
    response.end(body === undefined ? '' : JSON.stringify(body))
  }
}

function bodyOf(request: IncomingMessage, text: string): unknown {
  if (request.headers['content-type']?.startsWith('application/x-www-form-urlencoded'))
    return Object.fromEntries(new URLSearchParams(text))
  try {
    return text === '' ? {} : JSON.parse(text)
  } catch {
    return null
  }
}

/** The access token of an upgrade, header or subprotocol; '' for none. [C-1.1] [C-1.2] */
function tokenOf(request: IncomingMessage): string {
  const bearer = /^bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1]
  const offered = String(request.headers['sec-websocket-protocol'] ?? '').split(/, */)
  return bearer ?? offered.find((each) => each.startsWith('bearer.'))?.slice('bearer.'.length) ?? ''
}
