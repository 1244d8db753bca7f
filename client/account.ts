// Who this device is to the relay: registration, linking, its tokens, and what it knows of the relay's clock.
// The device secret is a password and lives here; private keys do not.
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { REGISTRATION_ID_MAX } from '../proto/limits.ts'
import { base64, bigEndian, concat, utf8 } from './bytes.ts'
import { DeviceGone } from './connection.ts'
import type { Crypto, KeyOrder, MadeKeys, Self } from './crypto.ts'
import { Http, Unreachable } from './http.ts'
import { deviceKeysBytes, keysJson, published, publishedFrom } from './prekeys.ts'
import { Stage } from './stage.ts'
import type { Storage, Transaction } from './storage.ts'
import { Table } from './tables.ts'
import type { Time } from './time.ts'
import type { Transport } from './transport.ts'

/** What is known of oneself, once enrolled. @property skewMs the relay's clock minus ours. @property epoch hex, '' = none seen. */
export type Enrolment = Self & { secret: string; realm: string; skewMs: number; epoch: string }

/** Keys made for an enrolment whose answer has not been seen. */
type Attempt = { registrationId: number; keys: MadeKeys }

/** Published once and counted on from there: EC 1 to 100, Kyber 2 to 101 beside the last-resort key 1. */
const FIRST_KEYS: KeyOrder = {
  signed: 1,
  lastResort: 1,
  oneTime: { first: 1, count: 100 },
  kyberOneTime: { first: 2, count: 100 },
}
/** Less than this is within what clocks do; times are then our own. */
const SKEW_MATTERS_MS = 5 * 60_000

const enrolments = new Table<Enrolment>('account')
const attempts = new Table<Attempt>('enrolling')

/** The realm comes from the same source as the url, not from the relay. */
export type AccountOptions = {
  storage: Storage
  crypto: Crypto
  transport: Transport
  time: Time
  url: string
  realm: string
}

/** One store, one device of one user. */
export class Account {
  readonly http: Http
  private readonly options: AccountOptions
  private enrolment: Enrolment | null
  private token: { token: string; endsAtMs: number } | null = null
  private refreshing: Promise<{ token: string; expiresInMs: number }> | null = null

  constructor(options: AccountOptions) {
    this.options = options
    this.http = new Http(options.transport, options.url, (which) => this.tokens(which))
    this.enrolment = options.storage.transaction((tx) => enrolments.get(tx, 'self'))
  }

  get isEnrolled(): boolean {
    return this.enrolment !== null
  }
  /** @throws Error before registration. */
  get self(): Enrolment {
    if (!this.enrolment) throw new Error('this device is not registered')
    return this.enrolment
  }

  /** Now as the relay has it, once a Hello told of a difference worth minding. */
  now(): number {
    const skewMs = this.enrolment?.skewMs ?? 0
    return this.options.time.now() + (Math.abs(skewMs) > SKEW_MATTERS_MS ? skewMs : 0)
  }

  /** Changes what is kept of oneself. */
  update(change: Partial<Enrolment>): void {
    this.options.storage.transaction((tx) => this.updateIn(tx, change))
  }
  /** The same inside of a transaction. */
  updateIn(tx: Transaction, change: Partial<Enrolment>): void {
    const changed = { ...this.self, ...change }
    enrolments.put(tx, 'self', changed)
    this.enrolment = changed
  }

  /** A new user with this as its first device. [I-1] @throws RelayError; the same keys are offered again next time. */
  async register(options: { name?: string; invitation?: string } = {}): Promise<void> {
    if (this.enrolment) throw new Error('this device is registered')
    const { stage, attempt } = this.prepare((stage) => {
      this.options.crypto.createIdentity(stage)
    })
    const json = this.enrolmentJson(stage, attempt, { purpose: 'register', linkCode: '' })
    try {
      this.enrol(await this.http.open<Enrolled>('POST', '/v1/accounts', { ...json, ...options }), attempt)
    } catch (error) {
      // The identity has an account already: ours, whose answer and secret were lost. Nobody knows it; the next try is another.
      if (error instanceof RelayError && error.code === 'CONFLICT') this.abandon()
      throw error
    }
  }

  /** One more device of a user whose identity came sealed. [I-4] */
  async link(options: { userId: Uuid; linkCode: string; name?: string; stage: Stage }): Promise<void> {
    if (this.enrolment) throw new Error('this device is registered')
    const { stage, attempt } = this.prepare(() => {}, options.stage)
    const json = this.enrolmentJson(stage, attempt, { purpose: 'link', linkCode: options.linkCode })
    const named = options.name === undefined ? {} : { name: options.name }
    const body = { ...json, ...named, user_id: options.userId, link_code: options.linkCode }
    this.enrol(await this.http.open<Enrolled>('POST', '/v1/devices', body), attempt)
  }

  // Private halves are stored before their public ones leave; a lost answer finds the same keys again.
  private prepare(identify: (stage: Stage) => void, given?: Stage): { stage: Stage; attempt: Attempt } {
    const { storage, crypto } = this.options
    const before = storage.transaction((tx) => attempts.get(tx, 'self'))
    const stage = given ?? new Stage(storage)
    if (before && !given) return { stage, attempt: before }
    identify(stage)
    const registrationId = 1 + Math.floor(this.options.time.random() * REGISTRATION_ID_MAX)
    const attempt = { registrationId, keys: crypto.makeKeys(stage, FIRST_KEYS, this.now()) }
    storage.transaction((tx) => {
      stage.apply(tx)
      attempts.put(tx, 'self', attempt)
    })
    return { stage, attempt }
  }

  private abandon(): void {
    this.options.storage.transaction((tx) => {
      attempts.delete(tx, 'self')
      this.options.crypto.abandonIdentity(tx)
    })
  }

  private enrolmentJson(stage: Stage, attempt: Attempt, proof: { purpose: 'register' | 'link'; linkCode: string }) {
    const { crypto, realm } = this.options
    const identityKey = crypto.ownIdentity(stage)
    const { registrationId, keys } = attempt
    const timestampMs = this.now()
    // [I-2.1]
    const message = concat(
      utf8(`sealpost.v1 ${proof.purpose}\0${realm}`),
      crypto.hash(utf8(proof.linkCode)),
      crypto.hash(deviceKeysBytes({ identityKey, registrationId, signed: keys.signed!, lastResort: keys.lastResort })),
      bigEndian(timestampMs, 8),
    )
    return {
      ...keysJson(keys),
      registration_id: registrationId,
      identity_key: base64(identityKey),
      identity_proof: { timestamp_ms: timestampMs, signature: base64(crypto.sign(stage, message)) },
    }
  }

  private enrol(answer: Enrolled, { registrationId, keys }: Attempt): void {
    const { storage, crypto, realm } = this.options
    const self = { userId: answer.user_id, deviceId: answer.device_id, registrationId }
    const enrolment: Enrolment = { ...self, secret: answer.device_secret, realm, skewMs: 0, epoch: '' }
    const stage = new Stage(storage)
    crypto.trust(stage, self.userId, crypto.ownIdentity(stage))
    storage.transaction((tx) => {
      stage.apply(tx)
      enrolments.put(tx, 'self', enrolment)
      published.put(tx, 'self', publishedFrom(keys, this.now()))
      attempts.delete(tx, 'self')
    })
    this.enrolment = enrolment
  }

  /** An access token with its remaining life. [T-3] @throws DeviceGone when the relay refuses the device. */
  tokens({ fresh }: { fresh: boolean }): Promise<{ token: string; expiresInMs: number }> {
    const held = this.token
    const expiresInMs = held ? held.endsAtMs - this.options.time.now() : 0
    if (!fresh && held && expiresInMs > 30_000) return Promise.resolve({ token: held.token, expiresInMs })
    this.refreshing ??= this.refresh().finally(() => {
      this.refreshing = null
    })
    return this.refreshing
  }

  private async refresh(): Promise<{ token: string; expiresInMs: number }> {
    const { userId, deviceId, secret } = this.self
    const answer = await this.http.form('/oauth/token', {
      grant_type: 'client_credentials',
      client_id: `${userId}.${deviceId}`,
      client_secret: secret,
    })
    const json = parsed(answer.body)
    // [T-3.1] Only the relay's own word counts: what else stands at this address may answer 401 to everything.
    if (json.error === 'invalid_client') throw new DeviceGone('the relay does not know this device')
    const { access_token: token, expires_in } = json
    if (answer.status !== 200 || typeof token !== 'string' || typeof expires_in !== 'number')
      throw new Unreachable(`the token endpoint answered HTTP ${answer.status}`)
    const expiresInMs = expires_in * 1000
    this.token = { token, endsAtMs: this.options.time.now() + expiresInMs }
    return { token, expiresInMs }
  }
}

/** A JSON object, or nothing of it. */
function parsed(body: string): Record<string, unknown> {
  try {
    return (JSON.parse(body) as Record<string, unknown> | null) ?? {}
  } catch {
    return {}
  }
}

type Enrolled = { user_id: Uuid; device_id: number; device_secret: string }
