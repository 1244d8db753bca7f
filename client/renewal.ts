// Beginning anew with another identity key: authorised by a recovery code on a device that has nothing, or by the present key on one
// that suspects a theft. A lost answer leaves a question, which is put with the key that may be in force: attempts lie on a stack. [I-6]
import { RelayError } from '../proto/errors.ts'
import { type Uuid, uuidToBytes } from '../proto/ids.ts'
import { REGISTRATION_ID_MAX } from '../proto/limits.ts'
import { base64, bigEndian, concat, utf8 } from './bytes.ts'
import type { Core } from './core.ts'
import type { KeyOrder, MadeKeys, Slot } from './crypto.ts'
import { type Enrolled, introduction, isRefused } from './introduction.ts'
import { Mutex } from './mutex.ts'
import { startAnew } from './newself.ts'
import { published } from './prekeys.ts'
import { Stage } from './stage.ts'
import type { Transaction } from './storage.ts'
import { next, ordered, Table } from './tables.ts'

/**
 * One new identity that was asked for, or will be. @property by the slot of the attempt whose key authorises it; absent = what the
 * caller gives. @property wasSent the relay may have it. @property repeats it is sent once more: the first time may yet be carried out.
 * @property doubted the repetition was refused, which says nothing of the first time: its key is asked before it is erased.
 */
type Attempt = {
  slot: Slot
  registrationId: number
  keys: MadeKeys
  by?: Slot
  wasSent: boolean
  repeats?: boolean
  doubted?: boolean
}

/** Ascending: each but the first was made because the answer to the one before was lost. */
const attempts = new Table<Attempt>('renewals')
const COUNTER = 'renewals'

/** Nothing is pending any more: this device is one. */
export function forgetRenewals(tx: Transaction): void {
  for (const { key } of attempts.scan(tx)) attempts.delete(tx, key)
}

/** Above whatever the store holds and whatever may be pending. */
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

  /** Learns what became of a replacement of one's own key whose answer was lost; nothing to do otherwise. @throws what leaves it unknown. */
  async finish(): Promise<void> {
    const { core } = this
    await this.turns.run(async () => {
      if (all(core).length === 0) return
      await this.run({ user: { userId: core.account.self.userId } }, { username: null }).catch((error) => {
        if (!isRefused(error)) throw error
      })
    })
  }

  private async run(warrant: Warrant, options: { name?: string; username: string | null }): Promise<void> {
    const { core } = this
    for (;;) {
      const stack = all(core)
      // [I-6.7] The last may be in force: the key it brought decides.
      const attempt = stack.find(({ wasSent }) => !wasSent) ?? prepare(core, stack)
      put(core, { ...attempt, wasSent: true })
      try {
        const answer = await ask(core, warrant, attempt, options.name)
        await startAnew(core, answer, attempt, options.username, forgetRenewals)
        return
      } catch (error) {
        if (!isRefused(error)) {
          // These two say that it was not done.
          const isUndone = error instanceof RelayError && ['RATE_LIMITED', 'OVERLOADED'].includes(error.code)
          if (isUndone) put(core, { ...attempt, wasSent: false })
          throw error
        }
        const mayBeDone = error.code === 'FORBIDDEN' || error.code === 'CONFLICT'
        if (attempt.repeats) put(core, { ...attempt, wasSent: mayBeDone, doubted: mayBeDone })
        else drop(core, attempt)
        if (attempt.repeats ? !mayBeDone : error.code !== 'FORBIDDEN') throw error
        const below = stack.filter(({ slot }) => slot < attempt.slot)
        // Its repetition was refused before, and its own key is not in force: it was not carried out.
        if (!attempt.repeats && below.at(-1)?.doubted) drop(core, below.pop()!)
        const before = below.at(-1)
        if (!before && !attempt.repeats) throw error
        // The key that was to authorise it is not in force: what would have brought it did not happen yet, and is repeated as it was.
        if (before && !before.doubted) put(core, { ...before, wasSent: false, repeats: true })
      }
    }
  }
}

const all = (core: Core): Attempt[] => core.storage.transaction((tx) => attempts.scan(tx).map(({ record }) => record))

const put = (core: Core, attempt: Attempt): void =>
  core.storage.transaction((tx) => attempts.put(tx, attempt.slot, attempt))

const drop = (core: Core, { slot }: Attempt): void =>
  core.storage.transaction((tx) => {
    attempts.delete(tx, slot)
    core.crypto.abandonIdentity(tx, slot)
  })

/** The private halves are stored before the public ones leave. */
function prepare(core: Core, stack: Attempt[]): Attempt {
  const { storage, crypto, time, account } = core
  const slot = storage.transaction((tx) => ordered(next(tx, COUNTER)))
  const stage = new Stage(storage)
  crypto.createIdentity(stage, slot)
  const used = new Set(stack.map(({ registrationId }) => registrationId))
  if (account.isEnrolled) used.add(account.self.registrationId)
  let registrationId: number
  // [I-6.4]
  do registrationId = 1 + Math.floor(time.random() * REGISTRATION_ID_MAX)
  while (used.has(registrationId))
  const by = stack.at(-1)?.slot
  const keys = crypto.makeKeys(stage, orderAfter(core, stack.length), account.now(), slot)
  const attempt: Attempt = { slot, registrationId, keys, wasSent: false, ...(by && { by }) }
  storage.transaction((tx) => {
    stage.apply(tx)
    attempts.put(tx, slot, attempt)
  })
  return attempt
}

function orderAfter(core: Core, tries: number): KeyOrder {
  const own = core.storage.transaction((tx) => published.get(tx, 'self'))
  const from = (highest: number | undefined) => (highest ?? 0) + (own ? LEAP : 1) + tries * LEAP
  const kyber = from(own?.highestKyber)
  return {
    signed: from(own?.signed.keyId),
    lastResort: kyber,
    oneTime: { first: from(own?.highestOneTime), count: 100 },
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
