// A device that talks to a running relay over real HTTP: registers, links, asks, and opens its socket (socket.ts).
import { randomBytes } from 'node:crypto'
import type { IdentityKeyPair } from '@signalapp/libsignal-client'
import type { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes } from '../../proto/ids.ts'
import { type EnrolmentOptions, enrolmentJson } from './enrolment.ts'
import { TestDevice } from './keys.ts'
import { type HttpAnswer, must, request } from './request.ts'
import { Socket } from './socket.ts'

export { enrolmentJson } from './enrolment.ts'
export { type HttpAnswer, request } from './request.ts'
export { idOf, type Kind, type ServerFrame, Socket } from './socket.ts'

export type RegisterOptions = EnrolmentOptions & { identity?: IdentityKeyPair; bearer?: string }

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
    const linkCode: string = body.link_code
    const json = enrolmentJson(device, this.realm, { ...options, linkCode, userId: this.userId })
    const answer = must(await request(this.url, 'POST', '/v1/devices', { json }))
    return Client.enrolled(this, device, answer)
  }

  /** The device that an enrolment was answered with. */
  static async enrolled(
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
