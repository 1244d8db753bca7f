// Who this device is to the relay, its tokens, and what it knows of the relay's clock. How it came to be one is in enrolling.ts.
// The device secret is a password and lives here; private keys do not.
import { DeviceGone } from './connection.ts'
import type { Crypto, Self } from './crypto.ts'
import { Http, Unreachable } from './http.ts'
import type { Storage, Transaction } from './storage.ts'
import { Table } from './tables.ts'
import type { Time } from './time.ts'
import type { Transport } from './transport.ts'

/** What is known of oneself, once enrolled. @property skewMs the relay's clock minus ours. @property epoch hex, '' = none seen. */
export type Enrolment = Self & { secret: string; realm: string; skewMs: number; epoch: string }

/** Less than this is within what clocks do; times are then our own. */
const SKEW_MATTERS_MS = 5 * 60_000

const enrolments = new Table<Enrolment>('account')

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

  get realm(): string {
    return this.options.realm
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

  /** Becomes this device, together with everything else of it that `work` stores. What was known of the relay is kept. */
  become(self: Self, secret: string, work: (tx: Transaction) => void): void {
    const { skewMs, epoch } = this.enrolment ?? { skewMs: 0, epoch: '' }
    const enrolment: Enrolment = { ...self, secret, realm: this.options.realm, skewMs, epoch }
    this.options.storage.transaction((tx) => {
      enrolments.put(tx, 'self', enrolment)
      work(tx)
    })
    this.enrolment = enrolment
    this.token = null
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
