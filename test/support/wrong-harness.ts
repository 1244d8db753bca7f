// Clients that break chosen rules, made of a right one: our SDK with something wrong put in its place. To see that the conformance kit
// can fail. Started as a process with the name of the fault.
import type { Crypto, SocketEvents, Transport } from '../../client/index.ts'
import { libsignal, wsTransport } from '../../client/node.ts'
import { sealpost } from '../../proto/generated/relay.js'
import { serve } from '../../scripts/conformance/serve-sdk.ts'

const { ClientFrame, ServerFrame } = sealpost.v1
type ToClient = sealpost.v1.ServerFrame
type ToRelay = sealpost.v1.ClientFrame

/** Frames on their way, and the end. */
type Wire = {
  toRelay?(frame: ToRelay): ToRelay[]
  toClient?(frame: ToClient): ToClient[]
  closed?(code: number): number
  url?(url: string, token: string | null): string
}

function transport({ toRelay, toClient, closed, url: address }: Wire): Transport {
  const real = wsTransport()
  return {
    request: real.request,
    open(url, token, events: SocketEvents) {
      const socket = real.open(address?.(url, token) ?? url, token, {
        opened: events.opened,
        frame: (bytes) => {
          if (!toClient) return events.frame(bytes)
          for (const each of toClient(ServerFrame.decode(bytes))) events.frame(ServerFrame.encode(each).finish())
        },
        closed: (code, reason) => events.closed(closed?.(code) ?? code, reason),
      })
      const send = (bytes: Uint8Array): void => {
        const frames = toRelay
          ? toRelay(ClientFrame.decode(bytes)).map((each) => ClientFrame.encode(each).finish())
          : [bytes]
        for (const each of frames) socket.send(each)
      }
      return { send, close: () => socket.close() }
    },
  }
}

const crypto = (change: (real: Crypto) => Partial<Crypto>): Crypto => {
  const real = libsignal()
  return { ...real, ...change(real) }
}

/** Name → what is wrong. */
const FAULTS: Record<string, () => { wire?: Wire; crypto?: Crypto }> = {
  none: () => ({}),
  'fights for its place': () => ({ wire: { closed: (code) => (code === 4409 ? 1001 : code) } }),
  'never acks': () => ({
    wire: {
      toRelay: (frame) => {
        if (frame.ack) frame.ack.messageIds = []
        return [frame]
      },
    },
  }),
  'cannot wait': () => ({
    wire: {
      toClient: (frame) => {
        if (frame.error) frame.error.retryAfterMs = 1
        return [frame]
      },
    },
  }),
  'new ids for old messages': () => {
    const seen = new Set<string>()
    return {
      wire: {
        toRelay: (frame) => {
          const id = frame.signalMessage?.clientMessageId
          if (id) {
            const name = Buffer.from(id).toString('hex')
            if (seen.has(name)) id[15]! ^= 1
            seen.add(name)
          }
          return [frame]
        },
      },
    }
  },
  'tells the query its token': () => ({ wire: { url: (url, token) => `${url}?access_token=${token}` } }),
  'believes every identity': () => ({
    crypto: crypto((real) => ({
      openSession: async (stage, self, userId, bundle, nowMs) => {
        real.trust(stage, userId, bundle.identityKey)
        return real.openSession(stage, self, userId, bundle, nowMs)
      },
    })),
  }),
  'mends every padding': () => ({
    crypto: crypto((real) => ({
      decrypt: async (...given) => {
        const { plaintext, ...rest } = await real.decrypt(...given)
        const end = plaintext.findLastIndex((byte) => byte !== 0)
        plaintext[end] = 0x80
        return { plaintext, ...rest }
      },
    })),
  }),
  'asks for two pages at once': () => ({
    wire: { toRelay: (frame) => (frame.syncRequest ? [frame, frame] : [frame]) },
  }),
}

const { wire, crypto: wrong } = FAULTS[process.argv[2] ?? 'none']!()
serve({ ...(wire && { transport: () => transport(wire) }), ...(wrong && { crypto: () => wrong }) })
