// Identity keys of others as the app meets them: a change is kept here until the user decides. The keys themselves are in client/crypto/.
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { clearWithheld, noteDevice } from './book.ts'
import { fetchUser } from './bundles.ts'
import { isSame } from './bytes.ts'
import type { Core } from './core.ts'
import { Stage } from './stage.ts'
import type { Transaction } from './storage.ts'
import { Table } from './tables.ts'

/** User id → the key that is not the known one. */
const offers = new Table<{ identityKey: Uint8Array }>('identity_offers')

/** Keeps the offer. @returns whether it is news. */
export function noteOffer(tx: Transaction, userId: Uuid, identityKey: Uint8Array): boolean {
  const before = offers.get(tx, userId)
  if (before && isSame(before.identityKey, identityKey)) return false
  offers.put(tx, userId, { identityKey })
  return true
}

/** The key a user is said to have now, while the app has not decided. */
export const offeredIdentity = (core: Core, userId: Uuid): Uint8Array | null =>
  core.storage.transaction((tx) => offers.get(tx, userId))?.identityKey ?? null

/** The number to compare before that key is believed; null when there is none. */
export function offeredSafetyNumber(core: Core, userId: Uuid): string | null {
  const offered = offeredIdentity(core, userId)
  return offered && core.crypto.safetyNumber(new Stage(core.storage), core.account.self, userId, offered)
}

/** Believes the offered key. Sessions under the old one end. @throws Error when it is not, or not any more, the one that is offered. */
export async function acceptIdentity(core: Core, userId: Uuid, compared: Uint8Array | null): Promise<void> {
  await core.mutex.run(() => {
    const offered = offeredIdentity(core, userId)
    if (!offered) throw new Error('this user has the identity key it had')
    // The relay may have offered another one since its user compared numbers.
    if (!compared || !isSame(offered, compared)) throw new Error('another key is offered by now: compare that one')
    const stage = new Stage(core.storage)
    core.crypto.trust(stage, userId, offered)
    core.storage.transaction((tx) => {
      stage.apply(tx)
      offers.delete(tx, userId)
      clearWithheld(tx, userId)
    })
  })
}

/** Looks whether the relay hands out another key for a user than the one known here. [V-5] @throws what fetching throws. */
export async function lookAgain(core: Core, userId: Uuid): Promise<void> {
  const { storage, crypto, events, account } = core
  const known = storage.transaction((tx) => crypto.identityOf(tx, userId))
  if (!known || userId === account.self.userId) return
  const other = (await fetchUser(core, userId)).find(({ identityKey }) => !isSame(identityKey, known))
  if (!other) return
  const { identityKey: offered } = other
  if (storage.transaction((tx) => noteOffer(tx, userId, offered))) events.emit('identity_changed', { userId, offered })
}

/** Gets to know users of whom no key is known, by their bundles; sessions are opened, since the keys are spent. */
export async function meet(core: Core, userIds: Uuid[]): Promise<void> {
  for (const userId of userIds) {
    const bundles = await fetchUser(core, userId).catch((error: unknown) => {
      if (error instanceof RelayError && error.code === 'NOT_FOUND') return []
      throw error
    })
    await core.mutex.run(async () => {
      const stage = new Stage(core.storage)
      const nowMs = core.account.now()
      for (const bundle of bundles) {
        const { deviceId, registrationId } = bundle
        if (core.crypto.session(stage, { userId, deviceId }, nowMs)) continue
        const opening = await core.crypto.openSession(stage, core.account.self, userId, bundle, nowMs)
        if (opening === 'opened') noteDevice(stage, { userId, deviceId, registrationId })
      }
      core.storage.transaction((tx) => stage.apply(tx))
    })
  }
}
