// A WebSocket client for load: frames are patched templates, answers are recognised by their tag. Half of a benchmark on one
// machine is its generator, so nothing here is decoded that need not be.
import { randomBytes } from 'node:crypto'
import { WebSocket } from 'ws'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes } from '../../proto/ids.ts'

const v1 = sealpost.v1
/** Field tags of ServerFrame's bodies that a load generator acts on. */
const TAG = { ACCEPTED: 0x1a, ENVELOPE: 0x22, SYNC: 0x2a, ERROR: 0x5a }

export type Link = { ws: WebSocket; send(frame: Buffer): void; close(): Promise<void> }

export type Handlers = {
  accepted?(requestId: number): void
  envelope?(messageId: Buffer, content: Buffer): void
  error?(frame: sealpost.v1.ServerFrame): void
}

/** Opens a socket and resolves at Hello; `waiting` says whether a sync is needed. */
export function open(url: string, token: string, handlers: Handlers = {}): Promise<Link & { waiting: boolean }> {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(`${url.replace('http', 'ws')}/v1/ws`, {
      headers: { Authorization: `Bearer ${token}` },
      perMessageDeflate: false,
      // Masks protect proxies from scripts in browsers; there is neither here.
      generateMask: () => {},
    } as object)
    const link: Link = {
      ws,
      send: (frame) => ws.send(frame),
      close: () =>
        new Promise((done) => {
          leaving = true
          ws.once('close', () => done())
          ws.close()
        }),
    }
    ws.on('error', reject)
    let leaving = false
    ws.on('close', (code, reason) => {
      if (leaving) return
      console.error(`the relay closed a socket: ${code} ${reason}`)
      reject(new Error(`closed before Hello: ${code} ${reason}`))
    })
    ws.on('message', (data: Buffer) => {
      let at = 0
      let requestId = 0
      if (data[0] === 0x08) {
        at = 1
        for (let shift = 0; ; shift += 7) {
          const byte = data[at++]!
          requestId += (byte & 0x7f) * 2 ** shift
          if (byte < 0x80) break
        }
      }
      const tag = data[at]
      if (tag === TAG.ACCEPTED) handlers.accepted?.(requestId)
      else if (tag === TAG.ENVELOPE) {
        const envelope = v1.ServerFrame.decode(data).envelope!
        handlers.envelope?.(envelope.messageId as Buffer, (envelope.ciphertext?.content ?? Buffer.alloc(0)) as Buffer)
      } else if (tag === TAG.ERROR) handlers.error?.(v1.ServerFrame.decode(data))
      else if (data[at] === 0x12)
        resolve({ ...link, waiting: v1.ServerFrame.decode(data).hello?.queueWaiting ?? false })
    })
  })
}

/** Makes send frames for one recipient: the request id and the id of the message change, the rest is copied. */
export function sendTemplate(
  conversationId: string,
  to: { userId: string; deviceId: number; registrationId: number },
  bytes: number,
) {
  const marker = randomBytes(16)
  const content = Buffer.alloc(bytes, 7)
  randomBytes(8).copy(content)
  const place = randomBytes(8)
  place.copy(content)
  const template = Buffer.from(
    v1.ClientFrame.encode({
      signalMessage: {
        clientMessageId: marker,
        conversationId: uuidToBytes(conversationId),
        scope: v1.Scope.SCOPE_ALL,
        recipients: [
          {
            userId: uuidToBytes(to.userId),
            deviceId: to.deviceId,
            registrationId: to.registrationId,
            ciphertextType: 2,
            content,
          },
        ],
      },
    }).finish(),
  )
  const idAt = template.indexOf(marker)
  const contentAt = template.indexOf(place)
  const random = randomBytes(8)
  let counter = 0
  /** @param sentAt milliseconds, readable by the receiver from the first 8 bytes of the content. */
  return (requestId: number, sentAt: number): Buffer => {
    const head = Buffer.from([
      0x08,
      (requestId & 0x7f) | 0x80,
      ((requestId >>> 7) & 0x7f) | 0x80,
      (requestId >>> 14) & 0x7f,
    ])
    const frame = Buffer.concat([head, template])
    const id = head.length + idAt
    // UUIDv7 in form: time first, so the index grows at its right edge.
    frame.writeUIntBE(Date.now(), id, 6)
    frame.writeUInt16BE(0x7000, id + 6)
    random.copy(frame, id + 8)
    frame.writeUInt32BE(counter++, id + 12)
    frame[id + 8] = 0x80 | (random[0]! & 0x3f)
    frame.writeDoubleBE(sentAt, head.length + contentAt)
    return frame
  }
}

/** One Ack frame for these ids. */
export const ackFrame = (messageIds: Buffer[]): Buffer =>
  Buffer.from(v1.ClientFrame.encode({ ack: { messageIds } }).finish())

/** A SyncRequest from the start. */
export const syncFrame = (): Buffer => Buffer.from(v1.ClientFrame.encode({ requestId: 1, syncRequest: {} }).finish())
