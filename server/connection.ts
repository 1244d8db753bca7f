// One open socket as the rest of the relay sees it. The bytes behind it are socket.ts's business.
import type { Outgoing } from './frames.ts'

/** A way to one device. Every method is harmless after the end. */
export type Connection = {
  /** Remote address, text form. */
  readonly address: string
  /**
   * Queues one frame; frames of one event-loop turn leave together. Neither sent nor buffered is delivered: only an Ack is (I3).
   * @returns false when the connection is over.
   */
  send(frame: Outgoing): boolean
  /** Bytes not yet taken by the network, queued ones included. */
  bufferedBytes(): number
  /** Asks for a sign of life; an answer that does not come ends the connection. [C-4] */
  ping(): void
  /** Says goodbye with a close code after what is queued. [C-8] */
  close(code: number, reason: string): void
}

/** What a connection tells its session. */
export type ConnectionEvents = {
  /** A binary frame; the bytes are the receiver's to keep. */
  frame(bytes: Uint8Array): void
  /** A text frame came; there are none in the protocol. [C-2] */
  text(): void
  /** A frame was handed to the network, or to what uWebSockets holds for it. */
  sent(frame: Outgoing): void
  /** Buffered bytes left. */
  drained(): void
  /** The end, once. @param code WebSocket close code. */
  closed(code: number): void
}

/** An accepted upgrade: called when the socket is open, unless the client left before. */
export type Admission = { open(connection: Connection): ConnectionEvents; abandoned(): void }

/** [C-8] */
export const CLOSE = {
  GOING_AWAY: 1001,
  TOO_LARGE: 1009,
  MALFORMED: 4400,
  CREDENTIAL_GONE: 4401,
  CONNECTED_ELSEWHERE: 4409,
  FLOODING: 4429,
} as const
