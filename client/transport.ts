// The way to the relay: an interface of one WebSocket and one HTTP call. Implementations are in transport/.

/** An open or opening socket. Every method is harmless after the end. */
export interface Socket {
  /** One binary frame. Lost without a word when the socket is not open. */
  send(frame: Uint8Array): void
  /** Ends it; `closed` still comes. */
  close(): void
  /** It tells by itself when the relay cannot be reached any more: nobody need ask whether it lives. Absent = it does not. */
  readonly noticesLoss?: boolean
}

/** What a socket tells. After `closed` it tells nothing more. */
export type SocketEvents = {
  opened(): void
  frame(bytes: Uint8Array): void
  /** The end, once. @param code the close code; 1006 when the connection broke or never was; 4401 when the upgrade was answered 401. */
  closed(code: number, reason: string): void
}

/** @property body absent = none. */
export type HttpRequest = {
  method: string
  url: string
  headers: Record<string, string>
  body?: string
}

/** Any status is an answer. */
export type HttpAnswer = { status: number; body: string }

/** How a device reaches its relay. Ready ones are in transport/, for WebSockets and for HTTP alone. */
export interface Transport {
  /** @param url ws:// or wss://, whole. @param token never logged; null = none is needed. [C-1] [I-5.2] */
  open(url: string, token: string | null, events: SocketEvents): Socket
  /** @throws when no answer came. */
  request(request: HttpRequest): Promise<HttpAnswer>
  /**
   * One frame over HTTP, and the frame that answers it: for messages that are too large for a socket. Absent = they cannot be sent.
   * @param url http:// or https://, whole. @throws when no answer came, or none of a relay. [C-9.1]
   */
  exchange?(url: string, token: string, frame: Uint8Array): Promise<Uint8Array>
}
