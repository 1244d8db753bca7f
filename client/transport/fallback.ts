// A second way to the relay, taken when the first does not open and kept for as long as it holds.
import type { Socket, SocketEvents, Transport } from '../transport.ts'

/** Attempts of the first way that brought no frame before the second is tried; one may be chance. */
const TRIES = 2
const TOKEN_ENDED = 4401

/**
 * The first transport, usually of WebSockets; after two attempts in a row that brought no frame, the second, usually long poll. When that
 * ends, or does not open either, the first is tried again once: a network without WebSockets costs one attempt per connection.
 */
export function withFallback(first: Transport, second: Transport): Transport {
  let failures = 0
  const openFirst = (url: string, token: string | null, events: SocketEvents): Socket => {
    // Something between may let a WebSocket open and nothing through it.
    let hasHeard = false
    return first.open(url, token, {
      opened: () => events.opened(),
      frame(bytes) {
        hasHeard = true
        failures = 0
        events.frame(bytes)
      },
      closed(code, reason) {
        // It was answered: what is wrong is not the way.
        if (code === TOKEN_ENDED) failures = 0
        else if (!hasHeard) failures++
        events.closed(code, reason)
      },
    })
  }
  const openSecond = (url: string, token: string, events: SocketEvents): Socket =>
    second.open(url, token, {
      opened: () => events.opened(),
      frame: (bytes) => events.frame(bytes),
      closed(code, reason) {
        failures = TRIES - 1
        events.closed(code, reason)
      },
    })
  return {
    request: (request) => first.request(request),
    ...(first.exchange && { exchange: first.exchange.bind(first) }),
    open(url, token, events) {
      // Without a token it is a provisioning channel, which needs a WebSocket. [I-5.2]
      return token === null || failures < TRIES ? openFirst(url, token, events) : openSecond(url, token, events)
    },
  }
}
