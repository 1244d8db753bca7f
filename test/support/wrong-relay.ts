// A relay that breaks chosen rules, made of a right one: a proxy before it that changes what passes. To see that the conformance kit
// can fail.
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { WebSocket, WebSocketServer } from 'ws'
import { sealpost } from '../../proto/generated/relay.js'

const { ClientFrame, ServerFrame } = sealpost.v1
type ToClient = sealpost.v1.ServerFrame
type ToRelay = sealpost.v1.ClientFrame

/** An answer on its way. @property text of the body. */
export type Passing = { method: string; path: string; status: number; headers: Record<string, string>; text: string }

/** What is wrong. Absent = passes as it is. */
export type Fault = {
  /** What a frame becomes. */
  toClient?(frame: ToClient): ToClient[]
  /** What a frame becomes on its way to the relay; `answer` says something back at once. */
  toRelay?(frame: ToRelay, answer: (frame: sealpost.v1.ServerFrame.$Properties) => void): ToRelay[]
  http?(passing: Passing): Passing
}

/** @returns where it listens. A fault with state is made anew for each connection by its maker. */
export async function wrongRelay(
  upstream: string,
  fault: () => Fault,
): Promise<{ url: string; close(): Promise<void> }> {
  const http = fault()
  const server = createServer((request, response) => void forward(upstream, http, request, response))
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => 'sealpost.v1' })
  server.on('upgrade', (request, socket, head) => {
    const { authorization, origin, 'sec-websocket-protocol': protocols } = request.headers
    const headers = { ...(authorization && { authorization }), ...(origin && { origin }) }
    const to = new WebSocket(upstream.replace(/^http/, 'ws') + request.url, protocols?.split(/, */) ?? [], { headers })
    to.on('unexpected-response', (_, answer) => {
      socket.end(`HTTP/1.1 ${answer.statusCode} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`)
      to.terminate()
    })
    to.on('error', () => {})
    to.pause()
    to.on('open', () => sockets.handleUpgrade(request, socket, head, (from) => join(from, to, fault())))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: async () => {
      for (const each of sockets.clients) each.terminate()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function join(from: WebSocket, to: WebSocket, fault: Fault): void {
  const send = (socket: WebSocket, bytes: Uint8Array, binary: boolean): void => {
    if (socket.readyState === WebSocket.OPEN) socket.send(bytes, { binary })
  }
  const answer = (frame: sealpost.v1.ServerFrame.$Properties): void =>
    send(from, ServerFrame.encode(frame).finish(), true)
  from.on('message', (data: Buffer, binary) => {
    const frame = binary ? decoded(() => ClientFrame.decode(data)) : null
    if (!frame || !fault.toRelay) return send(to, data, binary)
    for (const each of fault.toRelay(frame, answer))
      send(to, each === frame ? data : ClientFrame.encode(each).finish(), true)
  })
  to.on('message', (data: Buffer, binary) => {
    const frame = decoded(() => ServerFrame.decode(data))
    if (!frame || !fault.toClient) return send(from, data, binary)
    for (const each of fault.toClient(frame)) send(from, ServerFrame.encode(each).finish(), true)
  })
  for (const [one, other] of [
    [from, to],
    [to, from],
  ] as const) {
    one.on('error', () => {})
    one.on('ping', () => other.readyState === WebSocket.OPEN && other.ping())
    one.on('close', (code, reason) => {
      if (code === 1005) other.close()
      else if (code === 1006) other.terminate()
      else other.close(code, reason)
    })
  }
  to.resume()
}

function decoded<T>(decode: () => T): T | null {
  try {
    return decode()
  } catch {
    return null
  }
}

async function forward(
  upstream: string,
  fault: Fault,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const { method = 'GET', url: path = '/', headers: given } = request
  const kept = [
    'authorization',
    'content-type',
    'origin',
    'access-control-request-method',
    'access-control-request-headers',
  ]
  const headers = Object.fromEntries(kept.flatMap((name) => (given[name] ? [[name, String(given[name])]] : [])))
  const body = chunks.length > 0 ? { body: Buffer.concat(chunks) } : {}
  const answer = await fetch(upstream + path, { method, headers, ...body })
  const bytes = Buffer.from(await answer.arrayBuffer())
  let passing: Passing = { method, path, status: answer.status, headers: {}, text: bytes.toString() }
  const { text } = passing
  for (const name of ['content-type', 'cache-control', 'www-authenticate', 'retry-after']) {
    const value = answer.headers.get(name)
    if (value) passing.headers[name] = value
  }
  passing = fault.http?.(passing) ?? passing
  response.writeHead(passing.status, passing.headers)
  // Frames over HTTP are no text.
  response.end(passing.text === text ? bytes : passing.text)
}
