// Beginning anew with another identity key: authorised by a recovery code on a device that has nothing, or by the present key on one
// that suspects a theft. A request whose answer is lost may be carried out yet, so the key it brings is kept until what authorised it
// is known to be used up; only then is that key asked. What was used up is never good again, so nothing is decided by time. [I-6.7]
import { RelayError } from '../proto/errors.ts'
import { type Uuid, uuidToBytes } from '../proto/ids.ts'
import { REGISTRATION_ID_MAX } from '../proto/limits.ts'
import { base64, bigEndian, concat, utf8 } from './bytes.ts'
import type { Core } from './core.ts'
import type { Crypto, KeyOrder, MadeKeys, Slot } from './crypto.ts'
import { type Enrolled, introduction, isRefused } from './introduction.ts'
import { Mutex } from './mutex.ts'
import { startAnew } from './newself.ts'
import { published } from './prekeys.ts'
import { Stage } from './stage.ts'
import type { Transaction } from './storage.ts'
import { next, ordered, Table } from './tables.ts'

/**
 * One new identity that was asked for, or will be. @property warrant whose: other warrants say nothing of it.
 * @property by the slot of the attempt whose key authorises it; absent = the warrant itself.
 *
 *   new      it was never sent, or the relay said that it was not done
 *   sent     it may have been carried out, or be carried out yet; it is repeated as it is
 *   refused  the same, and the relay would not have it again as it is: another one is sent beside it
 *   decided  what authorises it is used up: it was carried out, or never will be. Its key tells, by authorising the next one
 */
type Attempt = {
  slot: Slot
  warrant: string
  registrationId: number
  keys: MadeKeys
  by?: Slot
  state: 'new' | 'sent' | 'refused' | 'decided'
}

/** In the order in which they were made: whatever authorises one is before it. */
const attempts = new Table<Attempt>('renewals')
const COUNTER = 'renewals'

/**
 * Nothing is pending any more: this device is one, of whomever, and the private keys go with what was asked for. Where that was the recovery
 * of another user and its request is carried out later still, nobody has that user's key: whoever began it must not become another user.
 */
export function forgetRenewals({ crypto }: Core, tx: Transaction): void {
  const pending = attempts.scan(tx).map(({ record }) => record)
  dropIn(crypto, tx, pending)
}

/** Above whatever the store holds and whatever may be pending, an enrolment whose answer was lost among it (FIRST_KEYS). */
const LEAP = 1000

/** Whom, and by what: a recovery code, or absent the present identity key of this device. [I-6.1] [I-6.8] */
export type Warrant = { user: { userId: Uuid } | { usernameHash: Uint8Array }; code?: string }

/** Asks for new identities, one at a time. */
export class Renewal {
  private readonly core: Core
  private readonly turns = new Mutex()

  constructor(core: Core) {
    this.core = core
  }

  /**
   * Becomes the user's only device, under a new identity key. To be called again with the same warrant after anything but a refusal.
   * @param options.name of the device. @param options.username what the user holds, '' = not known, null = as it was.
   * @throws RelayError FORBIDDEN: the warrant does not hold, and nothing is left; anything else: call again.
   */
  begin(warrant: Warrant, options: { name?: string; username: string | null }): Promise<void> {
    return this.turns.run(() => this.run(warrant, options))
  }

  /**
   * Learns what became of a replacement of one's own key whose answer was lost; nothing to do otherwise, nor for one of which its user was
   * told that it was not done: that takes a new word. @throws what leaves it unknown.
   */
  async finish(): Promise<void> {
    const { core } = this
    await this.turns.run(async () => {
      if (all(core).every(({ state }) => state === 'new')) return
      await this.run({ user: { userId: core.account.self.userId } }, { username: null }).catch((error) => {
        if (!isRefused(error)) throw error
      })
    })
  }

  private async run(warrant: Warrant, options: { name?: string; username: string | null }): Promise<void> {
    const { core } = this
    const name = nameOf(core, warrant)
    for (;;) {
      const pending = all(core).filter((each) => each.warrant === name)
      // The oldest first: while it may be in force, what it authorised is not decided.
      const base = pending.find(({ state }) => state === 'decided')
      const isNext = ({ by, state }: Attempt) => by === base?.slot && (state === 'new' || state === 'sent')
      const attempt = pending.find(isNext) ?? prepare(core, name, base?.slot)
      put(core, { ...attempt, state: 'sent' })
      try {
        const answer = await ask(core, warrant, attempt, options.name)
        // Its key authorised nothing so far, and every other is used up: nobody comes after it.
        await startAnew(core, answer, attempt, options.username, (tx) => forgetRenewals(core, tx))
        return
      } catch (error) {
        const wasNew = attempt.state === 'new'
        if (!isRefused(error)) {
          // These two say that it was not done.
          const isUndone = error instanceof RelayError && ['RATE_LIMITED', 'OVERLOADED'].includes(error.code)
          if (isUndone) put(core, attempt)
          throw error
        }
        // CONFLICT of one that was sent before: its key was in force already.
        const isUsedUp = error.code === 'FORBIDDEN' || (error.code === 'CONFLICT' && !wasNew)
        if (!isUsedUp) {
          if (wasNew) drop(core, [attempt])
          else put(core, { ...attempt, state: 'refused' })
          throw error
        }
        if (decide(core, pending, base, wasNew ? [attempt] : []) === 0) throw error
      }
    }
  }
}

/**
 * A key that was to authorise something, or the warrant itself when `base` is absent, is not in force and never will be: it is erased.
 * What it authorised is decided, but for what was never under way. @returns how many keys may be in force.
 */
function decide(core: Core, pending: Attempt[], base: Attempt | undefined, refused: Attempt[]): number {
  const left = pending.filter((each) => each !== base && refused.every(({ slot }) => slot !== each.slot))
  core.storage.transaction((tx) => {
    dropIn(core.crypto, tx, base ? [base, ...refused] : refused)
    for (const each of left)
      if (each.by === base?.slot && each.state !== 'decided') attempts.put(tx, each.slot, { ...each, state: 'decided' })
  })
  return left.length
}

const all = (core: Core): Attempt[] => core.storage.transaction((tx) => attempts.scan(tx).map(({ record }) => record))

const put = (core: Core, attempt: Attempt): void =>
  core.storage.transaction((tx) => attempts.put(tx, attempt.slot, attempt))

const drop = (core: Core, gone: Attempt[]): void => core.storage.transaction((tx) => dropIn(core.crypto, tx, gone))

function dropIn(crypto: Crypto, tx: Transaction, gone: Attempt[]): void {
  for (const { slot } of gone) {
    attempts.delete(tx, slot)
    crypto.abandonIdentity(tx, slot)
  }
}

/** The same for the same words of its user: a code mistyped the second time says nothing of what was asked with the first. */
function nameOf({ crypto }: Core, { user, code = '' }: Warrant): string {
  const named = 'userId' in user ? user.userId : base64(user.usernameHash)
  return base64(crypto.hash(utf8(`${named} ${code}`)))
}

/** The private halves are stored before the public ones leave. */
function prepare(core: Core, warrant: string, by: Slot | undefined): Attempt {
  const { storage, crypto, time, account } = core
  const pending = all(core)
  const slot = storage.transaction((tx) => ordered(next(tx, COUNTER)))
  const stage = new Stage(storage)
  crypto.createIdentity(stage, slot)
  const used = new Set(pending.map((each) => each.registrationId))
  if (account.isEnrolled) used.add(account.self.registrationId)
  let registrationId: number
  // [I-6.4]
  do registrationId = 1 + Math.floor(time.random() * REGISTRATION_ID_MAX)
  while (used.has(registrationId))
  const keys = crypto.makeKeys(stage, orderAfter(core, pending.at(-1)?.keys), account.now(), slot)
  const attempt: Attempt = { slot, warrant, registrationId, keys, state: 'new', ...(by && { by }) }
  storage.transaction((tx) => {
    stage.apply(tx)
    attempts.put(tx, slot, attempt)
  })
  return attempt
}

function orderAfter(core: Core, last: MadeKeys | undefined): KeyOrder {
  const own = core.storage.transaction((tx) => published.get(tx, 'self'))
  const after = (pending: number | undefined, highest: number | undefined) => (pending ?? highest ?? 0) + LEAP
  const kyber = after(last?.kyberOneTime.at(-1)?.keyId, own?.highestKyber)
  return {
    signed: after(last?.signed?.keyId, own?.signed.keyId),
    lastResort: kyber,
    oneTime: { first: after(last?.oneTime.at(-1)?.keyId, own?.highestOneTime), count: 100 },
    kyberOneTime: { first: kyber + 1, count: 100 },
  }
}

async function ask(core: Core, warrant: Warrant, attempt: Attempt, name: string | undefined): Promise<Enrolled> {
  const { crypto, account, storage } = core
  const stage = new Stage(storage)
  const timestampMs = account.now()
  const identityKey = crypto.ownIdentity(stage, attempt.slot)
  const { user } = warrant
  const code = attempt.by === undefined ? (warrant.code ?? '') : ''
  // [I-6.1]
  const handover = concat(
    utf8(`sealpost.v1 replace\0${account.realm}`),
    'userId' in user ? uuidToBytes(user.userId) : user.usernameHash,
    identityKey,
    bigEndian(timestampMs, 8),
  )
  const prover = { identityKey, sign: (message: Uint8Array) => crypto.sign(stage, message, attempt.slot) }
  const answer = await account.http.open<Enrolled>('PUT', '/v1/identity', {
    ...introduction(core, prover, attempt, { purpose: 'identity', code, timestampMs }),
    ...('userId' in user ? { user_id: user.userId } : { username_hash: base64(user.usernameHash) }),
    ...(code ? { recovery_code: code } : { old_signature: base64(crypto.sign(stage, handover, attempt.by)) }),
    ...(name && { name }),
  })
  if ('userId' in user && answer.user_id !== user.userId) throw new Error('the relay answered for another user')
  return answer
}
