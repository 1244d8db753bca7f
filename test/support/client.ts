// A device that talks to a running relay over real HTTP and a real WebSocket: registers, links, connects, sends frames, waits for answers.
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { IdentityKeyPair } from '@signalapp/libsignal-client'
import { WebSocket } from 'ws'
import { identityProofMessage } from '../../keys/verify.ts'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidFromBytes, uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { TestDevice } from './keys.ts'

const v1 = sealpost.v1
export type ServerFrame = sealpost.v1.ServerFrame
export type Kind = Exclude<keyof sealpost.v1.ServerFrame.$Properties, 'requestId' | 'body' | '$unknowns'>
type Frame<K extends Kind> = NonNullable<sealpost.v1.ServerFrame.$Properties[K]>

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
const prekeyJson = (key: { keyId: number; publicKey: Uint8Array; signature?: Uint8Array }) => ({
  key_id: key.keyId,
  public_key: base64(key.publicKey),
  ...(key.signature && { signature: base64(key.signature) }),
})

// biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape
export type HttpAnswer = { status: number; body: any; headers: Headers }

/** One HTTP request; the answer's JSON, whatever the status. */
export async function request(
  url: string,
  method: string,
  path: string,
  options: {
    token?: string | undefined
    json?: unknown
    body?: string | Uint8Array
    headers?: Record<string, string>
  } = {},
): Promise<HttpAnswer> {
  const init: RequestInit = { method, headers: { ...options.headers } }
  const headers = init.headers as Record<string, string>
  if (options.token) headers.Authorization = `Bearer ${options.token}`
  if (options.json !== undefined) {
    headers['Content-Type'] = 'application/json'
    init.body = JSON.stringify(options.json)
  } else if (options.body !== undefined) init.body = options.body as string
  const answer = await fetch(url + path, init)
  const text = await answer.text()
  return { status: answer.status, headers: answer.headers, body: text && isJson(answer) ? JSON.parse(text) : text }
}
const isJson = (answer: Response): boolean => (answer.headers.get('content-type') ?? '').includes('json')

/** A refusal from a request that was meant to succeed. */
const must = (answer: HttpAnswer): HttpAnswer => {
  if (answer.status >= 300) throw new Error(`HTTP ${answer.status}: ${JSON.stringify(answer.body)}`)
  return answer
}

export type RegisterOptions = {
  identity?: IdentityKeyPair
  oneTime?: number
  kyberOneTime?: number
  /** False: a device that speaks X3DH only. */
  kyber?: boolean
  invitation?: string
  bearer?: string
  nowMs?: number
}

/** What a device sends to be let in. */
export function enrolmentJson(
  device: TestDevice,
  realm: string,
  options: RegisterOptions & { linkCode?: string } = {},
): Record<string, unknown> {
  const { linkCode, oneTime = 2, kyberOneTime = 2, kyber = true, nowMs = Date.now() } = options
  const signedPrekey = device.makeSignedPrekey(1)
  const lastResortKyberPrekey = kyber ? device.makeLastResort(1) : null
  const message = identityProofMessage({
    purpose: linkCode === undefined ? 'register' : 'link',
    realm,
    linkCode: linkCode ?? '',
    registrationId: device.registrationId,
    identityKey: device.identityKey,
    signedPrekey,
    lastResortKyberPrekey,
    timestampMs: nowMs,
  })
  return {
    registration_id: device.registrationId,
    identity_key: base64(device.identityKey),
    signed_prekey: prekeyJson(signedPrekey),
    ...(lastResortKyberPrekey && { last_resort_kyber_prekey: prekeyJson(lastResortKyberPrekey) }),
    one_time_prekeys: device.makeOneTimePrekeys(oneTime).map(prekeyJson),
    one_time_kyber_prekeys: kyber ? device.makeKyberPrekeys(kyberOneTime, 2).map(prekeyJson) : [],
    identity_proof: { timestamp_ms: nowMs, signature: base64(device.sign(message)) },
    ...(options.invitation && { invitation: options.invitation }),
  }
}

/** A registered device and what it needs to speak: keys, secret, token. */
export class Client {
  readonly url: string
  readonly realm: string
  readonly device: TestDevice
  readonly secret: string
  token = ''

  private constructor(url: string, realm: string, device: TestDevice, secret: string) {
    this.url = url
    this.realm = realm
    this.device = device
    this.secret = secret
  }

  get userId(): string {
    return this.device.userId
  }
  get deviceId(): number {
    return this.device.deviceId
  }

  /** Registers a new user with this first device. */
  static async register(relay: { url: string; realm: string }, options: RegisterOptions = {}): Promise<Client> {
    const device = new TestDevice(options.identity ? { identity: options.identity } : {})
    const answer = must(
      await request(relay.url, 'POST', '/v1/accounts', {
        json: enrolmentJson(device, relay.realm, options),
        token: options.bearer,
      }),
    )
    return Client.enrolled(relay, device, answer)
  }

  /** Links one more device to this primary's user. */
  async link(options: RegisterOptions & { registrationId?: number } = {}): Promise<Client> {
    const { body } = must(await this.post('/v1/devices/link-code'))
    const device = new TestDevice({
      identity: this.device.identity,
      ...(options.registrationId && { registrationId: options.registrationId }),
    })
    const json = enrolmentJson(device, this.realm, { ...options, linkCode: body.link_code })
    const answer = must(
      await request(this.url, 'POST', '/v1/devices', {
        json: { ...json, user_id: this.userId, link_code: body.link_code },
      }),
    )
    return Client.enrolled(this, device, answer)
  }

  private static async enrolled(
    relay: { url: string; realm: string },
    device: TestDevice,
    { body }: HttpAnswer,
  ): Promise<Client> {
    device.userId = body.user_id
    device.deviceId = body.device_id
    const client = new Client(relay.url, relay.realm, device, body.device_secret)
    await client.refresh()
    return client
  }

  /** Gets a new access token. */
  async refresh(): Promise<string> {
    const form = new URLSearchParams({
      grant_type: 'client_credentials',
      client_id: `${this.userId}.${this.deviceId}`,
      client_secret: this.secret,
    })
    const headers = { 'Content-Type': 'application/x-www-form-urlencoded' }
    this.token = must(
      await request(this.url, 'POST', '/oauth/token', { body: form.toString(), headers }),
    ).body.access_token
    return this.token
  }

  get(path: string): Promise<HttpAnswer> {
    return request(this.url, 'GET', path, { token: this.token })
  }
  post(path: string, json: unknown = {}): Promise<HttpAnswer> {
    return request(this.url, 'POST', path, { token: this.token, json })
  }
  put(path: string, json: unknown): Promise<HttpAnswer> {
    return request(this.url, 'PUT', path, { token: this.token, json })
  }
  patch(path: string, json: unknown): Promise<HttpAnswer> {
    return request(this.url, 'PATCH', path, { token: this.token, json })
  }
  delete(path: string): Promise<HttpAnswer> {
    return request(this.url, 'DELETE', path, { token: this.token })
  }

  /** The direct conversation with another user. */
  async direct(peer: Client): Promise<string> {
    return must(await this.post('/v1/conversations', { kind: 'direct', user_id: peer.userId })).body.conversation_id
  }

  /** A group with these users and oneself as its admin. */
  async group(peers: { userId: string }[], name = 'group'): Promise<string> {
    const json = { kind: 'group', name, user_ids: peers.map((each) => each.userId) }
    return must(await this.post('/v1/conversations', json)).body.conversation_id
  }

  /** How a sender addresses this device. */
  to(content: Uint8Array = randomBytes(64), type = 3): sealpost.v1.Recipient.$Properties {
    return {
      userId: uuidToBytes(this.userId),
      deviceId: this.deviceId,
      registrationId: this.device.registrationId,
      ciphertextType: type,
      content,
    }
  }

  /** Opens the socket and waits for Hello. @throws when the upgrade is refused. */
  async connect(): Promise<Socket> {
    const socket = await Socket.open(this.url, this.token)
    await socket.next('hello')
    return socket
  }

  /** Connects and empties the queue, so that the session is live. @returns the socket, everything acked. */
  async live(): Promise<Socket> {
    const socket = await this.connect()
    await socket.drain()
    return socket
  }
}

type Waiter = { take(frame: ServerFrame): boolean; fail(error: Error): void }

/** One WebSocket. Frames wait in order until somebody asks for them. */
export class Socket {
  readonly ws: WebSocket
  hello: Frame<'hello'> = {}
  /** Frames nobody has taken yet. */
  readonly frames: ServerFrame[] = []
  closed: { code: number; reason: string } | null = null
  private readonly waiters: Waiter[] = []
  private requestId = 0

  constructor(ws: WebSocket) {
    this.ws = ws
    ws.binaryType = 'nodebuffer'
    ws.on('message', (data: Buffer) => {
      const frame = v1.ServerFrame.decode(data)
      if (frame.hello) this.hello = frame.hello
      const waiter = this.waiters.findIndex((each) => each.take(frame))
      if (waiter >= 0) this.waiters.splice(waiter, 1)
      else this.frames.push(frame)
    })
    ws.on('error', () => {})
    ws.on('close', (code, reason) => {
      this.closed = { code, reason: reason.toString() }
      for (const each of this.waiters.splice(0)) each.fail(new Error(`closed ${code} ${reason}`))
    })
  }

  static async open(url: string, token: string | null, options: { subprotocols?: string[] } = {}): Promise<Socket> {
    const address = `${url.replace(/^http/, 'ws')}/v1/ws`
    const headers = token ? { Authorization: `Bearer ${token}` } : {}
    const ws = new WebSocket(address, options.subprotocols ?? [], { headers, perMessageDeflate: false })
    const socket = new Socket(ws)
    await once(ws, 'open')
    return socket
  }

  /** The next frame of that kind, past or future, optionally the answer to one request. @throws when the socket closes first. */
  async next<K extends Kind>(kind: K, requestId?: number): Promise<Frame<K>> {
    const fits = (frame: ServerFrame): boolean =>
      frame[kind] != null && (requestId === undefined || frame.requestId === requestId)
    const at = this.frames.findIndex(fits)
    if (at >= 0) return this.frames.splice(at, 1)[0]![kind] as Frame<K>
    if (this.closed) throw new Error(`closed ${this.closed.code}`)
    return new Promise((resolve, reject) => {
      this.waiters.push({
        take: (frame) => {
          if (!fits(frame)) return false
          resolve(frame[kind] as Frame<K>)
          return true
        },
        fail: reject,
      })
    })
  }

  /** Sends a frame under a new request id. */
  write(body: sealpost.v1.ClientFrame.$Properties): number {
    const requestId = ++this.requestId
    this.ws.send(v1.ClientFrame.encode({ requestId, ...body }).finish())
    return requestId
  }

  /** Sends a frame and waits for what answers it, of whatever kind. */
  async ask(body: sealpost.v1.ClientFrame.$Properties): Promise<ServerFrame> {
    if (this.closed) throw new Error(`closed ${this.closed.code}`)
    const requestId = this.write(body)
    const at = this.frames.findIndex((frame) => frame.requestId === requestId)
    if (at >= 0) return this.frames.splice(at, 1)[0]!
    return new Promise((resolve, reject) => {
      this.waiters.push({
        take: (frame) => {
          if (frame.requestId !== requestId) return false
          resolve(frame)
          return true
        },
        fail: reject,
      })
    })
  }

  /** Sends a message; ids may be given to repeat one. */
  send(
    conversationId: string,
    recipients: sealpost.v1.Recipient.$Properties[],
    more: sealpost.v1.SignalMessage.$Properties = {},
  ): Promise<ServerFrame> {
    const signalMessage = {
      clientMessageId: uuidToBytes(uuidV7(Date.now())),
      conversationId: uuidToBytes(conversationId),
      scope: v1.Scope.SCOPE_ALL,
      recipients,
      ...more,
    }
    return this.ask({ signalMessage })
  }

  /** Acks and waits for the commit. */
  async ack(...messageIds: (Uint8Array | null | undefined)[]): Promise<void> {
    const answer = await this.ask({ ack: { messageIds: messageIds.map((id) => id!) } })
    if (!answer.ackCommitted) throw new Error(`ack was answered ${JSON.stringify(answer)}`)
  }

  /** One page; QueueEmpty stays in the frames when there is one. */
  async sync(lastMessageId?: Uint8Array | null, limit = 0): Promise<Frame<'syncResponse'>> {
    const answer = await this.ask({ syncRequest: { lastMessageId: lastMessageId ?? new Uint8Array(0), limit } })
    if (!answer.syncResponse) throw new Error(`sync was answered ${JSON.stringify(answer)}`)
    return answer.syncResponse
  }

  /** Syncs and acks until the queue is empty. @returns everything that waited, in order. */
  async drain(): Promise<sealpost.v1.Envelope.$Properties[]> {
    const all: sealpost.v1.Envelope.$Properties[] = []
    for (;;) {
      const page = await this.sync()
      const ids = (page.messages ?? []).map((each) => each.messageId)
      all.push(...(page.messages ?? []))
      await this.ack(...ids, ...(page.gap ? [page.gap.gapId] : []))
      if (page.hasMore) continue
      await this.next('queueEmpty')
      return all
    }
  }

  /** Resolves when everything the relay sent before now has arrived: a round trip, since a socket keeps order. */
  async fence(): Promise<void> {
    await this.ack()
  }

  /** Envelopes that arrived and nobody took. */
  envelopes(): sealpost.v1.Envelope.$Properties[] {
    return this.frames.filter((frame) => frame.envelope).map((frame) => frame.envelope!)
  }

  /** Resolves with the close code. */
  async end(): Promise<number> {
    if (!this.closed) await once(this.ws, 'close')
    return this.closed!.code
  }

  /** Leaves, and waits until the relay has seen it. */
  async close(): Promise<void> {
    if (this.closed) return
    this.ws.close()
    await once(this.ws, 'close')
  }
}

export const idOf = (bytes: Uint8Array | null | undefined): string => uuidFromBytes(bytes!)
