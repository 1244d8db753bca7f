// The only importer of uWebSockets.js: the listening socket, WebSocket upgrades, and connections. HTTP requests go to web.ts.

import uws from 'uWebSockets.js'
import type { BlockList } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { RelayError } from '../proto/errors.ts'
import { BUFFERED_MAX_BYTES } from '../proto/limits.ts'
import { StartError } from './config.ts'
import { type Admission, CLOSE } from './connection.ts'
import { type Corkless, openCorkless } from './corkless.ts'
import { refusal } from './errors.ts'
import { clientOf } from './forwarded.ts'
import { type Data, Link } from './link.ts'

/** A request's head, copied: uWebSockets' own is gone after the first await. */
export type Head = {
  method: string
  path: string
  query: string
  params: string[]
  authorization: string | null
  /** Where the page that asks came from; null outside of browsers. */
  origin: string | null
  contentType: string
  contentLength: number | null
  address: string
}

/** What an HTTP request is answered with. */
export type Answer = { status: number; headers: Record<string, string>; body: string | Uint8Array }

export type HttpRoute = {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  path: string
  maxBodyBytes: number
  /** Called before the body is read; a refusal here costs no body. @throws nothing. */
  handle(head: Head, body: () => Promise<Buffer>, onGone: (listener: () => void) => void): Promise<Answer>
}

/** Who asks for a WebSocket: the token, if one was sent, and what stands in the path's place, as it came. */
export type Knock = { token: string | null; place: string; address: string }

/** Where WebSockets are opened. */
export type Door = {
  /** With one `:place` at most. */
  path: string
  /** A longer message ends the connection with 1009, one of more than twice that without a word. */
  maxMessageBytes: number
  /** Decides about an upgrade. @throws RelayError: the upgrade is refused with its status. */
  admit(knock: Knock): Promise<Admission>
}

export type SocketOptions = {
  host: string
  /** 0 = any free port. */
  port: number
  /** Other processes listen on the same port: the kernel gives each connection to one of them. */
  sharesPort?: boolean | undefined
  routes: HttpRoute[]
  /** Anything no route matches. */
  notFound: HttpRoute['handle']
  doors: Door[]
  /** Whose X-Forwarded-For is believed. */
  trustedProxies: BlockList
  /** An error nobody expected, in full. */
  report(error: unknown): void
}

export type Listener = {
  port: number
  /** Stops accepting. Open WebSockets stay, other connections are closed with their next answer: the client goes elsewhere. */
  stop(): void
  /** Ends everything at once. */
  close(): void
}

/** uWebSockets' own limit; never reached, because the relay stops at BUFFERED_MAX_BYTES and one page: so close frames always fit. */
const MAX_BACKPRESSURE = 4 * 1024 * 1024
/** Seconds without a frame or pong; pings come from sessions.ts. [C-4] */
const IDLE_TIMEOUT_SECONDS = 120
const SUBPROTOCOL = 'sealpost.v1'
/** Bytes of request bodies this process holds at once, whoever sends them; beyond it OVERLOADED. Large ones take nobody's place. I10 */
const bodies = {
  small: { held: 0, max: 64 * 1024 * 1024 },
  large: { held: 0, max: 256 * 1024 * 1024 },
}
/** From here on a body is a large one: only sends over HTTP are. [C-9.4] */
const LARGE_BODY_BYTES = 1024 * 1024
/** LIBUS_LISTEN_DEFAULT and LIBUS_LISTEN_EXCLUSIVE_PORT, which the typings have only as an enum. */
const SHARED_PORT = 0
const EXCLUSIVE_PORT = 1
const LOOPBACK = '127.0.0.1'

/**
 * Listens for HTTP and WebSocket on one port.
 * @throws StartError when the port is taken or the address is not ours.
 */
export async function listen(options: SocketOptions): Promise<Listener> {
  const app = uws.App()
  const corkless = openCorkless(app)
  const serving: Serving = { report: options.report, trustedProxies: options.trustedProxies, stopped: false }
  for (const door of options.doors) app.ws<Data>(door.path, behavior(door, options, corkless))
  for (const each of options.routes) {
    const method = each.method === 'DELETE' ? 'del' : (each.method.toLowerCase() as 'get' | 'post' | 'put' | 'patch')
    const places = each.path.split('/').filter((part) => part.startsWith(':')).length
    app[method](each.path, (response, request) => void respond(response, request, places, each, serving))
  }
  const fallback: HttpRoute = { method: 'GET', path: '/*', maxBodyBytes: 0, handle: options.notFound }
  app.any('/*', (response, request) => void respond(response, request, 0, fallback, serving))

  // The typings lack this overload. SO_REUSEPORT is uWebSockets' default: a second plain listen on a used port succeeds.
  const bound = app.listen.bind(app) as unknown as (
    host: string,
    port: number,
    listenOptions: number,
    done: (socket: uws.us_listen_socket | false) => void,
  ) => void
  const bind = (host: string, port: number, listenOptions: number): Promise<uws.us_listen_socket> =>
    new Promise((resolve, reject) => {
      bound(host, port, listenOptions, (socket) => {
        if (socket) return resolve(socket)
        const why = "the port is in use or the address is not this machine's"
        reject(new StartError(`cannot listen on ${host} port ${port}: ${why}`))
      })
    })
  const sockets = [await bind(options.host, options.port, options.sharesPort ? SHARED_PORT : EXCLUSIVE_PORT)]
  const port = uws.us_socket_local_port(sockets[0]!)
  // What it asks of itself must not reach another process.
  if (options.sharesPort) sockets.push(await bind(LOOPBACK, 0, EXCLUSIVE_PORT))
  corkless.open(options.sharesPort ? LOOPBACK : options.host, uws.us_socket_local_port(sockets.at(-1)!))
  return {
    port,
    stop() {
      serving.stopped = true
      for (const socket of sockets) uws.us_listen_socket_close(socket)
    },
    close() {
      corkless.close()
      app.close()
    },
  }
}

/** What all doors and routes have in common. */
type Served = Pick<SocketOptions, 'report' | 'trustedProxies'>

/** stopped: nobody new is accepted. */
type Serving = Readonly<Served> & { stopped: boolean }

/** What happens to the WebSockets of one door. */
function behavior(door: Door, options: Served, corkless: Corkless): uws.WebSocketBehavior<Data> {
  return {
    // uWebSockets cuts larger messages off without a close frame; up to here the client is told 1009. [C-7.2]
    maxPayloadLength: 2 * door.maxMessageBytes,
    maxBackpressure: MAX_BACKPRESSURE,
    idleTimeout: IDLE_TIMEOUT_SECONDS,
    // Its own come after 104 s, when many a proxy has given the connection up.
    sendPingsAutomatically: false,
    // Ciphertext does not compress.
    compression: uws.DISABLED,
    upgrade: (response, request, context) => void upgrade(response, request, context, door, options, corkless),
    open(ws) {
      const data = ws.getUserData()
      data.link = new Link(ws, data.address)
      data.events = data.admission.open(data.link)
    },
    message(ws, message, isBinary) {
      const { events, link } = ws.getUserData()
      if (message.byteLength > door.maxMessageBytes) return link.close(CLOSE.TOO_LARGE, 'message too large')
      if (!isBinary) return events.text()
      // uWebSockets detaches the buffer when this returns, and decoded frames are views of it: one copy.
      events.frame(Buffer.from(new Uint8Array(message)))
    },
    drain(ws) {
      if (ws.getBufferedAmount() < BUFFERED_MAX_BYTES) ws.getUserData().events.drained()
    },
    close(ws, code) {
      const { link, events } = ws.getUserData()
      link.over()
      events.closed(code)
    },
  }
}

const text = (buffer: ArrayBuffer): string => Buffer.from(buffer).toString()

/** Whose request it is. */
function addressOf(response: uws.HttpResponse, request: uws.HttpRequest, trusted: BlockList): string {
  const lines: string[] = []
  // getHeader gives the first line of several, which is the client's own: an empty one must not hide the proxy's.
  request.forEach((name, value) => void (name === 'x-forwarded-for' && lines.push(value)))
  return clientOf(text(response.getRemoteAddressAsText()), lines.join(), trusted)
}

function head(response: uws.HttpResponse, request: uws.HttpRequest, places: number, trusted: BlockList): Head {
  const length = request.getHeader('content-length')
  return {
    method: request.getMethod().toUpperCase(),
    path: request.getUrl(),
    query: request.getQuery() ?? '',
    params: Array.from({ length: places }, (_, i) => request.getParameter(i) ?? ''),
    authorization: request.getHeader('authorization') || null,
    origin: request.getHeader('origin') || null,
    contentType: request.getHeader('content-type'),
    contentLength: /^\d+$/.test(length) ? Number(length) : null,
    address: addressOf(response, request, trusted),
  }
}

/** The token of an upgrade: Authorization, or for browsers the subprotocol after `sealpost.v1`. [C-1] */
export function upgradeToken(
  authorization: string,
  subprotocols: string,
): { token: string | null; subprotocol: string | null } {
  const offered = subprotocols.split(',').map((each) => each.trim())
  const subprotocol = offered.includes(SUBPROTOCOL) ? SUBPROTOCOL : null
  const bearer = /^bearer +(\S+)$/i.exec(authorization)?.[1]
  const fromProtocol = subprotocol && offered.find((each) => each.startsWith('bearer.'))?.slice('bearer.'.length)
  return { token: bearer ?? fromProtocol ?? null, subprotocol }
}

async function upgrade(
  response: uws.HttpResponse,
  request: uws.HttpRequest,
  context: uws.us_socket_context_t,
  door: Door,
  { report, trustedProxies }: Served,
  corkless: Corkless,
): Promise<void> {
  // Everything is copied before the first await, after which uWebSockets' request is gone.
  const key = request.getHeader('sec-websocket-key')
  const extensions = request.getHeader('sec-websocket-extensions')
  const { token, subprotocol } = upgradeToken(
    request.getHeader('authorization'),
    request.getHeader('sec-websocket-protocol'),
  )
  const place = door.path.includes('/:') ? (request.getParameter(0) ?? '') : ''
  const address = addressOf(response, request, trustedProxies)
  let gone = false
  response.onAborted(() => {
    gone = true
  })
  let admission: Admission | null = null
  let data: Data | null = null
  try {
    admission = await door.admit({ token, place, address })
    // Who hung up is heard of before it is let in, or the dead would displace the living: the sockets are read between two turns. I6
    await setImmediate()
    await setImmediate()
    if (gone) return admission.abandoned()
    const admitted = { admission, address } as Data
    data = admitted
    corkless.run(response, () => response.upgrade(admitted, key, subprotocol ?? '', extensions, context))
  } catch (error) {
    // Admitted, but never opened: its place would be taken for good. I10
    if (!data?.events) admission?.abandoned()
    if (!(error instanceof RelayError)) report(error)
    if (!gone)
      write(response, refusal(error instanceof RelayError ? error : new RelayError('INTERNAL', 'internal error')))
  }
}

async function respond(
  response: uws.HttpResponse,
  request: uws.HttpRequest,
  places: number,
  route: HttpRoute,
  serving: Serving,
): Promise<void> {
  const copied = head(response, request, places, serving.trustedProxies)
  let gone = false
  const chunks: Buffer[] = []
  const pool =
    Math.min(copied.contentLength ?? Number.POSITIVE_INFINITY, route.maxBodyBytes) > LARGE_BODY_BYTES
      ? bodies.large
      : bodies.small
  let size = 0
  let held = 0
  const listeners: (() => void)[] = []
  let finish!: (body: Buffer) => void
  let fail!: (error: unknown) => void
  const body = new Promise<Buffer>((resolve, reject) => {
    finish = resolve
    fail = reject
  })
  // Read by the route or not: an unread refusal is no error of its own.
  body.catch(() => {})
  response.onAborted(() => {
    gone = true
    fail(new RelayError('INVALID_REQUEST', 'the request was cut off'))
    for (const tell of listeners) tell()
  })
  response.onData((chunk, isLast) => {
    size += chunk.byteLength
    if (size > route.maxBodyBytes) {
      chunks.length = 0
      if (isLast || size > 2 * route.maxBodyBytes + 65_536)
        fail(new RelayError('TOO_LARGE', `the body exceeds ${route.maxBodyBytes} bytes`))
      return
    }
    if (pool.held + chunk.byteLength > pool.max)
      return fail(new RelayError('OVERLOADED', 'too many requests at once', { retryAfterMs: 1000 }))
    held += chunk.byteLength
    pool.held += chunk.byteLength
    if (chunk.byteLength > 0) chunks.push(Buffer.from(chunk.slice(0)))
    if (isLast) finish(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks.splice(0)))
  })
  try {
    const answer = await route.handle(
      copied,
      () => body,
      (listener) => (gone ? listener() : void listeners.push(listener)),
    )
    if (!gone) write(response, answer, copied.method, serving.stopped)
  } catch (error) {
    serving.report(error)
    if (!gone) write(response, { status: 500, headers: {}, body: '' }, copied.method, serving.stopped)
  } finally {
    pool.held -= held
  }
}

const STATUS_TEXT: Record<number, string> = {
  200: 'OK',
  201: 'Created',
  204: 'No Content',
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  409: 'Conflict',
  413: 'Payload Too Large',
  429: 'Too Many Requests',
  500: 'Internal Server Error',
  503: 'Service Unavailable',
}

/** @param isLast of its connection, which is closed behind it. */
function write(response: uws.HttpResponse, answer: Answer, method = 'GET', isLast = false): void {
  response.cork(() => {
    response.writeStatus(`${answer.status} ${STATUS_TEXT[answer.status] ?? 'Status'}`)
    if (!answer.headers['Content-Type']) response.writeHeader('Content-Type', 'application/json')
    for (const [name, value] of Object.entries(answer.headers)) response.writeHeader(name, value)
    // RFC 9110 §9.3.2: bytes behind the head would be taken for the next answer. Closed, because uWebSockets answers no next one.
    if (method === 'HEAD') response.endWithoutBody(Buffer.byteLength(answer.body), true)
    else response.end(answer.body, isLast)
  })
}
