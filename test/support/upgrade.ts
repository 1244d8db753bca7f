// The HTTP side of a WebSocket upgrade: what a server answers before there is a socket.
import type { IncomingMessage } from 'node:http'
import { WebSocket } from 'ws'

export type Upgrade = {
  /** 101 when it was accepted. */
  status: number
  headers: IncomingMessage['headers']
  rawHeaders: string[]
  body: string
  /** Open only after 101; the caller ends it. */
  ws: WebSocket
}

/** Asks for an upgrade and resolves with the HTTP answer, whatever it is. */
export function upgrade(
  url: string,
  options: { headers?: Record<string, string>; subprotocols?: string[] } = {},
): Promise<Upgrade> {
  const ws = new WebSocket(url.replace(/^http/, 'ws'), options.subprotocols ?? [], { headers: options.headers ?? {} })
  return new Promise((resolve, reject) => {
    const answer = (response: IncomingMessage, body: string): void =>
      resolve({ status: response.statusCode!, headers: response.headers, rawHeaders: response.rawHeaders, body, ws })
    let accepted: IncomingMessage
    ws.on('upgrade', (response) => {
      accepted = response
    })
    ws.on('open', () => answer(accepted, ''))
    ws.on('unexpected-response', (_request, response: IncomingMessage) => {
      let body = ''
      response.on('data', (chunk: Buffer) => {
        body += chunk
      })
      response.on('end', () => answer(response, body))
    })
    ws.on('error', reject)
  })
}
