// The way to the relay for Node: the ws package, which can set headers and tells why an upgrade was refused.
import { WebSocket } from 'ws'
import type { Socket, SocketEvents, Transport } from '../transport.ts'
import { exchangeFrame, fetchAnswer } from './http.ts'

/** WebSockets of the ws package; HTTP through fetch. */
export const wsTransport = (): Transport => ({ request: fetchAnswer, exchange: exchangeFrame, open: openSocket })

function openSocket(url: string, token: string | null, events: SocketEvents): Socket {
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` }
  const ws = new WebSocket(url, token === null ? [] : ['sealpost.v1'], {
    headers,
    perMessageDeflate: false,
    handshakeTimeout: 10_000,
  })
  let refused = 0
  ws.binaryType = 'arraybuffer'
  ws.on('open', () => events.opened())
  ws.on('message', (data: ArrayBuffer, isBinary) => {
    if (isBinary) events.frame(new Uint8Array(data))
  })
  ws.on('unexpected-response', (_, answer) => {
    refused = answer.statusCode ?? 0
    ws.terminate()
  })
  ws.on('error', () => {})
  ws.on('close', (code, reason) => events.closed(refused === 401 ? 4401 : code, reason.toString()))
  return {
    send: (frame) => {
      if (ws.readyState === WebSocket.OPEN) ws.send(frame)
    },
    close: () => {
      // One that is still opening must not open later: it would displace the connection that follows it. [C-5]
      if (ws.readyState !== WebSocket.OPEN) return ws.terminate()
      ws.close()
      // A dead network answers no close frame.
      setTimeout(() => ws.terminate(), 500).unref()
    },
  }
}
