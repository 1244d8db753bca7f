// The relay's HTTP API as calls: JSON both ways, refusals as RelayError, a token where one is needed. What calls mean is elsewhere.
import { ERROR_CODES, type ErrorCode, RelayError } from '../proto/errors.ts'
import type { HttpAnswer, HttpRequest, Transport } from './transport.ts'

type Json = Record<string, unknown>

/** Nobody answered; whether it was done is not known. */
export class Unreachable extends Error {}

/** Tokens for calls. */
export type TokenSource = (options: { fresh: boolean }) => Promise<{ token: string }>

/** The refusal in an answer. Bodies that are none count as INTERNAL: something else answered. [H-2] */
export function httpRefusal(status: number, body: string): RelayError {
  try {
    const { error } = JSON.parse(body) as { error: { code: ErrorCode; message: string; retry_after_ms: number } }
    const code = ERROR_CODES.includes(error.code) ? error.code : 'INTERNAL'
    return new RelayError(code, error.message, { retryAfterMs: error.retry_after_ms })
  } catch {
    return new RelayError(status >= 500 ? 'UNAVAILABLE' : 'INTERNAL', `HTTP ${status}`, { retryAfterMs: 1000 })
  }
}

/** Calls with this device's token; one that is refused is renewed once. */
export class Http {
  private readonly transport: Transport
  private readonly url: string
  private readonly tokens: TokenSource

  constructor(transport: Transport, url: string, tokens: TokenSource) {
    this.transport = transport
    this.url = url
    this.tokens = tokens
  }

  /** @returns the answer's JSON. @throws RelayError for a refusal; Unreachable; what the token source throws. */
  async call<T>(method: string, path: string, json?: Json): Promise<T> {
    for (let fresh = false; ; fresh = true) {
      const { token } = await this.tokens({ fresh })
      const answer = await this.send(method, path, { token, ...(json && { json }) })
      if (answer.status === 401 && !fresh) continue
      if (answer.status >= 300) throw httpRefusal(answer.status, answer.body)
      return (answer.body ? JSON.parse(answer.body) : null) as T
    }
  }

  /** A call without this device's token. @throws like `call`. */
  async open<T>(method: string, path: string, json: Json): Promise<T> {
    const answer = await this.send(method, path, { json })
    if (answer.status >= 300) throw httpRefusal(answer.status, answer.body)
    return JSON.parse(answer.body) as T
  }

  /** One form, as RFC 6749 wants it; any status is an answer. [T-3] */
  form(path: string, fields: Record<string, string>) {
    const body = Object.entries(fields)
      .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
      .join('&')
    const headers = { 'Content-Type': 'application/x-www-form-urlencoded' }
    return this.ask({ method: 'POST', url: this.url + path, headers, body })
  }

  private ask(request: HttpRequest): Promise<HttpAnswer> {
    return this.transport.request(request).catch((cause) => {
      throw new Unreachable('the relay does not answer', { cause })
    })
  }

  private send(method: string, path: string, { token, json }: { token?: string; json?: Json }) {
    const headers: Record<string, string> = {}
    if (token) headers.Authorization = `Bearer ${token}`
    if (json) headers['Content-Type'] = 'application/json'
    const body = json ? { body: JSON.stringify(json) } : {}
    return this.ask({ method, url: this.url + path, headers, ...body })
  }
}
