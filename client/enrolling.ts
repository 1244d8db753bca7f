// Becoming a device: the first of a new user, or one more of a user whose identity came sealed. Private halves and what was asked for
// are stored before anything leaves, so that a lost answer finds the same keys again; enrolled is all of it, in one transaction.
import { RelayError } from '../proto/errors.ts'
import { REGISTRATION_ID_MAX } from '../proto/limits.ts'
import type { Core } from './core.ts'
import type { MadeKeys, OfferedAccount, Provision } from './crypto.ts'
import { noteUndiscovered } from './discovery.ts'
import { type Enrolled, FIRST_KEYS, introduction, isRefused } from './introduction.ts'
import { Mutex } from './mutex.ts'
import { published, publishedFrom } from './prekeys.ts'
import { forgetRenewals } from './renewal.ts'
import { Stage } from './stage.ts'
import { Table } from './tables.ts'
import { noteUsername } from './usernames.ts'

/** An enrolment whose answer has not been seen. @property provenAtMs of the last proof. @property link absent = a registration. */
type Attempt = { registrationId: number; keys: MadeKeys; provenAtMs: number; link?: Provision & { name: string } }
const attempts = new Table<Attempt>('enrolling')

/** Registers and links. */
export class Enrolling {
  private readonly core: Core
  /** One at a time: of two askings for one device the later proof voids the earlier, whose refusal would end what has come to be. [I-4.5] */
  private readonly turn = new Mutex()

  constructor(core: Core) {
    this.core = core
  }

  /** A new user with this as its first device. [I-1] @throws RelayError; the same keys are offered again next time. */
  register(options: { name?: string; invitation?: string } = {}): Promise<void> {
    return this.turn.run(() => this.askForUser(options))
  }

  /** Another way of becoming a device, not at the same time as these. @throws Error when it has become one. */
  alone(work: () => Promise<void>): Promise<void> {
    return this.turn.run(() => {
      this.refuseAgain()
      return work()
    })
  }

  /** One more device of a user who offered it. [I-4] @throws like `finishLink`. */
  link(offer: OfferedAccount, name: string): Promise<void> {
    return this.turn.run(() => {
      this.refuseAgain()
      const { userId, linkCode, username } = offer
      this.prepare((stage) => offer.adopt(stage), { userId, linkCode, username, name })
      return this.askForLink()
    })
  }

  /** Whether a link was asked for whose answer is not known. */
  get isLinking(): boolean {
    return this.attempt()?.link !== undefined
  }

  /**
   * Asks for it, again if need be: the same keys under the same code are the same device. [I-4.5]
   * @throws RelayError: after a refusal nothing is left of it; otherwise the outcome is not known, and it may be called again.
   */
  async finishLink(): Promise<void> {
    this.refuseAgain()
    // Whoever asked before may have been answered meanwhile.
    await this.turn.run(() => (this.core.account.isEnrolled ? undefined : this.askForLink()))
  }

  private async askForUser(options: { name?: string; invitation?: string }): Promise<void> {
    this.refuseAgain()
    const { crypto, account } = this.core
    let attempt = this.attempt()
    if (attempt?.link) this.abandon()
    if (!attempt || attempt.link) attempt = this.prepare((stage) => void crypto.createIdentity(stage))
    const json = this.introduce(attempt, 'register', '')
    try {
      this.enrol(await account.http.open<Enrolled>('POST', '/v1/accounts', { ...json, ...options }), attempt)
    } catch (error) {
      // The identity has an account already: ours, whose answer and secret were lost. Nobody knows it; the next try is another. [E-2.3]
      if (error instanceof RelayError && error.code === 'CONFLICT') this.abandon()
      throw error
    }
  }

  private async askForLink(): Promise<void> {
    const attempt = this.attempt()
    if (!attempt?.link) throw new Error('no link was asked for')
    const { userId, linkCode, name } = attempt.link
    const json = this.introduce(attempt, 'link', linkCode)
    const body = { ...json, ...(name && { name }), user_id: userId, link_code: linkCode }
    try {
      this.enrol(await this.core.account.http.open<Enrolled>('POST', '/v1/devices', body), attempt)
    } catch (error) {
      if (isRefused(error)) this.abandon()
      throw error
    }
  }

  private refuseAgain(): void {
    if (this.core.account.isEnrolled) throw new Error('this device is registered')
  }

  private attempt(): Attempt | null {
    return this.core.storage.transaction((tx) => attempts.get(tx, 'self'))
  }

  private prepare(identify: (stage: Stage) => void, link?: Attempt['link']): Attempt {
    const { storage, crypto, time, account } = this.core
    const stage = new Stage(storage)
    identify(stage)
    const registrationId = 1 + Math.floor(time.random() * REGISTRATION_ID_MAX)
    const keys = crypto.makeKeys(stage, FIRST_KEYS, account.now())
    const attempt: Attempt = { registrationId, keys, provenAtMs: 0, ...(link && { link }) }
    storage.transaction((tx) => {
      stage.apply(tx)
      attempts.put(tx, 'self', attempt)
    })
    return attempt
  }

  private introduce(attempt: Attempt, purpose: 'register' | 'link', code: string): Record<string, unknown> {
    const { crypto, storage, account } = this.core
    // [I-4.5] Later than any proof before, also where the clock went back.
    const timestampMs = Math.max(account.now(), attempt.provenAtMs + 1)
    storage.transaction((tx) => attempts.put(tx, 'self', { ...attempt, provenAtMs: timestampMs }))
    const stage = new Stage(storage)
    const prover = {
      identityKey: crypto.ownIdentity(stage),
      sign: (message: Uint8Array) => crypto.sign(stage, message),
    }
    return introduction(this.core, prover, attempt, { purpose, code, timestampMs })
  }

  private abandon(): void {
    this.core.storage.transaction((tx) => {
      attempts.delete(tx, 'self')
      this.core.crypto.abandonIdentity(tx)
    })
  }

  private enrol(answer: Enrolled, { registrationId, keys, link }: Attempt): void {
    const { storage, crypto, account } = this.core
    const self = { userId: answer.user_id, deviceId: answer.device_id, registrationId }
    const stage = new Stage(storage)
    crypto.trust(stage, self.userId, crypto.ownIdentity(stage))
    account.become(self, answer.device_secret, (tx) => {
      stage.apply(tx)
      published.put(tx, 'self', publishedFrom(keys, account.now()))
      noteUsername(tx, link?.username ?? '')
      attempts.delete(tx, 'self')
      forgetRenewals(this.core, tx)
      if (link) noteUndiscovered(tx)
    })
  }
}
