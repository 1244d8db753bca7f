// A connection over one uWebSockets socket: queues frames of a turn, writes them together, and is harmless after the end.
import type uws from 'uWebSockets.js'
import { BUFFERED_MAX_BYTES } from '../proto/limits.ts'
import type { Admission, Connection, ConnectionEvents } from './connection.ts'
import type { Outgoing } from './frames.ts'

/** What hangs on a uWebSockets socket. */
export type Data = { admission: Admission; address: string; events: ConnectionEvents; link: Link }

/** A connection over one uWebSockets socket. `ws` is null from the moment of close: calls after it would throw. */
export class Link implements Connection {
  readonly address: string
  private ws: uws.WebSocket<Data> | null
  private queued: Outgoing[] = []
  private queuedBytes = 0
  private closing: { code: number; reason: string } | null = null

  constructor(ws: uws.WebSocket<Data>, address: string) {
    this.ws = ws
    this.address = address
  }

  send(frame: Outgoing): boolean {
    if (!this.ws || this.closing) return false
    this.queued.push(frame)
    this.queuedBytes += frame.bytes.length
    if (this.queued.length === 1) schedule(this)
    return true
  }

  bufferedBytes(): number {
    return this.ws ? this.ws.getBufferedAmount() + this.queuedBytes : 0
  }

  ping(): void {
    this.ws?.ping()
  }

  close(code: number, reason: string): void {
    if (!this.ws || this.closing) return
    this.closing = { code, reason }
    schedule(this)
  }

  /** One system call for everything queued in this turn. */
  flush(): void {
    const ws = this.ws
    if (!ws) return
    const wasFull = this.bufferedBytes() >= BUFFERED_MAX_BYTES
    const frames = this.queued
    this.queued = []
    this.queuedBytes = 0
    if (frames.length > 0) {
      const { events } = ws.getUserData()
      ws.cork(() => {
        for (const frame of frames) {
          // 2 = dropped at MAX_BACKPRESSURE. A stream with a hole is worse than none: what is un-acked comes again after a reconnect.
          if (ws.send(frame.bytes, true) === 2) {
            ws.close()
            return
          }
          events.sent(frame)
        }
      })
    }
    if (this.ws && this.closing) this.ws.end(this.closing.code, this.closing.reason)
    // What the network takes at once was never backpressure to uWebSockets, so it will not tell of a drain.
    else if (this.ws && wasFull && this.bufferedBytes() < BUFFERED_MAX_BYTES) this.ws.getUserData().events.drained()
  }

  over(): void {
    this.ws = null
    this.queued = []
    this.queuedBytes = 0
  }
}

let dirty: Link[] = []
function schedule(link: Link): void {
  if (dirty.length === 0) setImmediate(flushAll)
  dirty.push(link)
}
function flushAll(): void {
  const links = dirty
  dirty = []
  for (const link of links) link.flush()
}
