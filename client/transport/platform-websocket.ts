// The WebSocket that browsers, React Native and Node from 22 have. The token goes as a subprotocol, since none of them set headers. [C-1.2]
import type { Socket, SocketEvents, Transport } from '../transport.ts'
import { exchangeFrame, fetchAnswer } from './http.ts'

type PlatformSocket = {
  binaryType: string
  readonly readyState: number
  onopen: (() => void) | null
  onmessage: ((event: { data: unknown }) => void) | null
  onclose: ((event: { code: number; reason: string }) => void) | null
  onerror: (() => void) | null
  send(data: Uint8Array): void
  close(): void
}
type PlatformWebSocket = new (url: string, subprotocols: string[]) => PlatformSocket

const OPEN = 1

/** @throws Error when the platform has no WebSocket. */
export const platformTransport = (): Transport => {
  const { WebSocket } = globalThis as unknown as { WebSocket?: PlatformWebSocket }
  if (!WebSocket) throw new Error('this platform has no WebSocket; on Node 20 use wsTransport')
  return {
    request: fetchAnswer,
    exchange: exchangeFrame,
    open: (url, token, events) =>
      openSocket(new WebSocket(url, token === null ? [] : ['sealpost.v1', `bearer.${token}`]), events),
  }
}

function openSocket(ws: PlatformSocket, events: SocketEvents): Socket {
  ws.binaryType = 'arraybuffer'
  ws.onopen = () => events.opened()
  ws.onmessage = ({ data }) => {
    if (data instanceof ArrayBuffer) events.frame(new Uint8Array(data))
  }
  ws.onclose = ({ code, reason }) => events.closed(code, reason)
  // What broke is not told; the close that follows is enough.
  ws.onerror = () => {}
  return {
    send: (frame) => {
      if (ws.readyState === OPEN) ws.send(frame)
    },
    close: () => ws.close(),
  }
}
