// A device of the kit on the relay under test: registered, with a token, able to ask over HTTP and to open sockets.
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { uuidToBytes } from '../../proto/ids.ts'
import { type EnrolmentJson, type EnrolmentOptions, enrolment, type Published } from './enrolment.ts'
import { type Answer, ok, type Refusal, type RequestOptions, request } from './http.ts'
import { DeviceKeys } from './keys.ts'
import { codeIn, type Recipient, Socket, type SocketOptions, UpgradeRefused } from './socket.ts'

/** The relay under test, and where refusals are noted. @property realm part of every proof. [I-2.1] @property patienceMs how long is waited for a frame. */
export type Relay = { url: string; realm: string; refusals: Refusal[]; patienceMs: number }

/** What the relay said to a new device. */
type Enrolled = { user_id: string; device_id: number; device_secret: string }

/** A relay that has too much to do is asked again, as by any client; so often. [S-9.5] [E-2.3] */
const TRIES = 5
const BUSY = new Set(['OVERLOADED', 'UNAVAILABLE'])
const LONGEST_WAIT_MS = 3000

/** One request to the relay, its refusal noted. One that is not done for lack of time or room is made again. */
export async function call(relay: Relay, method: string, path: string, options: RequestOptions = {}): Promise<Answer> {
  for (let tries = 1; ; tries++) {
    const answer = await request(relay.url, method, path, options)
    const error = answer.body?.error
    if (typeof error?.code !== 'string') return answer
    const { code, retry_after_ms: retryAfterMs } = error
    relay.refusals.push({ where: `${method} ${path.split('?')[0]}`, status: answer.status, code, retryAfterMs })
    if (!BUSY.has(code) || !(retryAfterMs > 0) || tries === TRIES) return answer
    await sleep(Math.min(retryAfterMs, LONGEST_WAIT_MS))
  }
}

/** An access token, by RFC 6749. [T-3] */
export function askToken(
  relay: Relay,
  fields: Record<string, string>,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const body = new URLSearchParams(fields).toString()
  const type = { 'Content-Type': 'application/x-www-form-urlencoded', ...headers }
  return call(relay, 'POST', '/oauth/token', { body, headers: type })
}

export class Device {
  readonly relay: Relay
  readonly keys: DeviceKeys
  readonly published: Published
  readonly userId: string
  readonly deviceId: number
  readonly secret: string
  token = ''
  /** Open or not, of the check at hand. */
  readonly sockets = new Set<Socket>()
  /** Conversations this device made, of the check at hand. */
  readonly conversations: string[] = []
  /** Devices linked by this one that are still there. */
  readonly links: Device[] = []

  private constructor(relay: Relay, keys: DeviceKeys, published: Published, enrolled: Enrolled) {
    this.relay = relay
    this.keys = keys
    this.published = published
    this.userId = enrolled.user_id
    this.deviceId = enrolled.device_id
    this.secret = enrolled.device_secret
  }

  /** A new user's first device. @param change what else goes into the body. @throws Violation when it is refused. */
  static async register(relay: Relay, options: EnrolmentOptions = {}, change: EnrolmentJson = {}): Promise<Device> {
    const keys = new DeviceKeys()
    const { json, published } = enrolment(keys, relay.realm, options)
    const answer = ok(await call(relay, 'POST', '/v1/accounts', { json: { ...json, ...change } }), 201)
    return Device.enrolled(relay, keys, published, answer.body)
  }

  /** With what the relay answered, and a token. */
  static async enrolled(relay: Relay, keys: DeviceKeys, published: Published, body: Enrolled): Promise<Device> {
    const device = new Device(relay, keys, published, body)
    await device.refresh()
    return device
  }

  /** One more device of this primary's user. */
  async link(options: EnrolmentOptions & { registrationId?: number } = {}): Promise<Device> {
    const { registrationId = otherThan(this.keys.registrationId) } = options
    const keys = new DeviceKeys({ identity: this.keys.identity, registrationId })
    const code: string = ok(await this.post('/v1/devices/link-code')).body.link_code
    const { json, published } = enrolment(keys, this.relay.realm, { ...options, purpose: 'link', code })
    const body = { ...json, user_id: this.userId, link_code: code }
    const answer = ok(await call(this.relay, 'POST', '/v1/devices', { json: body }), 201)
    const linked = await Device.enrolled(this.relay, keys, published, answer.body)
    this.links.push(linked)
    return linked
  }

  /** A new access token, which becomes this device's. */
  async refresh(): Promise<string> {
    const { clientId: client_id, secret: client_secret } = this
    const answer = ok(await askToken(this.relay, { grant_type: 'client_credentials', client_id, client_secret }), 200)
    this.token = answer.body.access_token
    return this.token
  }

  get clientId(): string {
    return `${this.userId}.${this.deviceId}`
  }
  /** 16 bytes. */
  get user(): Uint8Array {
    return uuidToBytes(this.userId)
  }

  get(path: string): Promise<Answer> {
    return call(this.relay, 'GET', path, { token: this.token })
  }
  post(path: string, json: unknown = {}): Promise<Answer> {
    return call(this.relay, 'POST', path, { token: this.token, json })
  }
  put(path: string, json: unknown): Promise<Answer> {
    return call(this.relay, 'PUT', path, { token: this.token, json })
  }
  patch(path: string, json: unknown): Promise<Answer> {
    return call(this.relay, 'PATCH', path, { token: this.token, json })
  }
  delete(path: string): Promise<Answer> {
    return call(this.relay, 'DELETE', path, { token: this.token })
  }

  /** The direct conversation with a user, who accepts it, if he is a device of the kit. [V-6.1] */
  async direct(peer: { userId: string }, more: object = {}): Promise<string> {
    const conversation = await this.request(peer, more)
    await agreed([peer], conversation)
    return conversation
  }

  /** The same, and he is not asked: enough for ten messages and for each other's keys. [V-6.2] [K-4.8] */
  async request(peer: { userId: string }, more: object = {}): Promise<string> {
    const answer = ok(
      await this.post('/v1/conversations', { kind: 'direct', user_id: peer.userId, ...more }),
      [200, 201],
    )
    this.conversations.push(answer.body.conversation_id)
    return answer.body.conversation_id
  }

  /** A group with these users, who accept as above, and this device's as its admin. */
  async group(peers: { userId: string }[], more: object = {}): Promise<string> {
    const json = { kind: 'group', user_ids: peers.map((each) => each.userId), ...more }
    const answer = ok(await this.post('/v1/conversations', json), 201)
    this.conversations.push(answer.body.conversation_id)
    await agreed(peers, answer.body.conversation_id)
    return answer.body.conversation_id
  }

  /** How a sender addresses this device: so many random bytes unless content is given. */
  to(content: Uint8Array | number = 64, more: Recipient = {}): Recipient {
    return {
      userId: this.user,
      deviceId: this.deviceId,
      registrationId: this.keys.registrationId,
      ciphertextType: 2,
      content: typeof content === 'number' ? randomBytes(content) : content,
      ...more,
    }
  }

  /** Opens a socket. Hello is not waited for. */
  async open(options: SocketOptions = {}, token: string | null = this.token): Promise<Socket> {
    const socket = await this.upgrade(options, token)
    this.sockets.add(socket)
    socket.onError = (frame) =>
      this.relay.refusals.push({
        ...{ where: 'socket', status: null, code: codeIn(frame), retryAfterMs: frame.error?.retryAfterMs ?? 0 },
      })
    return socket
  }

  /** @throws UpgradeRefused; a relay that has too much to do is asked again. [C-1.3] */
  private async upgrade(options: SocketOptions, token: string | null): Promise<Socket> {
    const { url, patienceMs } = this.relay
    for (let tries = 1; ; tries++) {
      try {
        return await Socket.open(url, token, { patienceMs, ...options })
      } catch (error) {
        if (!(error instanceof UpgradeRefused) || error.status !== 503 || tries === TRIES) throw error
        await sleep(1000)
      }
    }
  }

  /** Opens a socket and takes Hello. */
  async connect(options: SocketOptions = {}): Promise<Socket> {
    for (let tries = 1; ; tries++) {
      const socket = await this.open(options)
      const greeted = await socket.next('hello').then(
        () => true,
        (error) => {
          if (socket.closed?.code !== 1001 || tries === TRIES) throw error
          return false
        },
      )
      if (greeted) return socket
      await sleep(1000)
    }
  }

  /** Connects, empties the queue, and is sent what comes from now on. */
  async live(): Promise<Socket> {
    const socket = await this.connect()
    await socket.drain()
    return socket
  }
}

/** Those who were asked accept; where everybody knows everybody that changes nothing. [V-6.7] */
async function agreed(peers: object[], conversation: string): Promise<void> {
  for (const peer of peers)
    if (peer instanceof Device) ok(await peer.post(`/v1/conversations/${conversation}/accept`), 200)
}

/** A registration id that is not this one. */
export const otherThan = (registrationId: number): number => 1 + (registrationId % 16383)
