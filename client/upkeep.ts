// Keeping this device's prekeys published, fresh and its own: uploads that survive a crash, refills, rotation, and what to do when
// the relay or this store turns out to be an old copy.
import { RelayError } from '../proto/errors.ts'
import { KEYS_LOW_BELOW, REGISTRATION_ID_MAX } from '../proto/limits.ts'
import { base64, bigEndian, concat, utf8 } from './bytes.ts'
import type { Core } from './core.ts'
import type { KeyOrder, MadeKeys } from './crypto.ts'
import { deviceKeysBytes, keysJson, type Published, published } from './prekeys.ts'
import { Stage } from './stage.ts'
import { GONE_FOR_MS, noteStock } from './stock.ts'
import type { Writer } from './storage.ts'
import { Table } from './tables.ts'
import { idBytes } from './wire.ts'

const ROTATE_AFTER_MS = 7 * 24 * 3_600_000
const MAX_TRIES = 3

/** Made and stored, not known to be published. @property registrationId not 0: the device starts over with it. [K-8] */
type Pending = { keys: MadeKeys; registrationId: number }
const pending = new Table<Pending>('pending_keys')

/** Keys of a device that is no more. */
export const forgetPending = (from: Writer): void => pending.delete(from, 'self')

type CountsJson = {
  one_time: { count: number; oldest_id: number | null; highest_id: number | null }
  kyber_one_time: { count: number; oldest_id: number | null; highest_id: number | null }
  signed_prekey: { key_id: number } | null
  last_resort: { key_id: number; used: boolean } | null
}

/** Runs after each sync, and when keys run low; one run at a time. */
export class Upkeep {
  private readonly core: Core
  private running: Promise<void> | null = null
  private again = false
  /** The relay's one-time keys are void, and others are not published yet. */
  private isVoid = false

  constructor(core: Core) {
    this.core = core
  }

  /** @throws what HTTP throws: the next run continues. Several calls at once are one more run. */
  run(): Promise<void> {
    if (this.running) {
      this.again = true
      return this.running
    }
    this.running = this.runs().finally(() => {
      this.running = null
    })
    return this.running
  }

  /** Resolves when no run is under way. */
  async idle(): Promise<void> {
    await this.running
  }

  private async runs(): Promise<void> {
    do {
      this.again = false
      for (let tries = 0; tries < MAX_TRIES; tries++) {
        try {
          await this.once()
          break
        } catch (error) {
          if (!(error instanceof RelayError) || error.code !== 'CONFLICT') throw error
          // Ids or keys that the relay knows otherwise: this upload is given up, the next counts from the relay's highest.
          this.drop(error.message)
        }
      }
    } while (this.again)
  }

  private async once(): Promise<void> {
    const { http } = this.core.account
    await this.upload()
    if (this.isVoid) {
      const own = this.own()
      const count = this.core.connection.limits.keysPerUpload
      const kyberOneTime = { first: own.highestKyber + 1, count }
      await this.make({ oneTime: { first: own.highestOneTime + 1, count }, kyberOneTime }, 0)
      this.isVoid = false
    }
    const { match } = await http.call<{ match: boolean }>('POST', '/v1/keys/check', { digest: base64(this.digest()) })
    const counts = await http.call<CountsJson>('GET', '/v1/keys')
    if (this.isRewound(counts, match)) return this.startOver(counts)
    await this.prune(counts)
    const own = this.own()
    const order: KeyOrder = {}
    // The relay is the old copy: it gets the keys again that it had.
    const isStale = !match || own.rotatedAtMs + ROTATE_AFTER_MS < this.core.account.now()
    if (isStale) order.signed = Math.max(own.signed.keyId, counts.signed_prekey?.key_id ?? 0) + 1
    let kyber = Math.max(own.highestKyber, counts.kyber_one_time.highest_id ?? -1, counts.last_resort?.key_id ?? -1) + 1
    if (isStale || counts.last_resort?.used) order.lastResort = kyber++
    const count = this.core.connection.limits.keysPerUpload
    if (counts.one_time.count < KEYS_LOW_BELOW)
      order.oneTime = { first: Math.max(own.highestOneTime, counts.one_time.highest_id ?? -1) + 1, count }
    if (counts.kyber_one_time.count < KEYS_LOW_BELOW) order.kyberOneTime = { first: kyber, count }
    if (Object.keys(order).length > 0) await this.make(order, 0)
  }

  /** [K-9.1] One-time keys of a restored relay are void: new ones above all that were ever used. @throws what HTTP throws. */
  async replaceOneTime(): Promise<void> {
    this.isVoid = true
    await this.run()
    if (this.isVoid) throw new Error('the relay refused new one-time keys')
  }

  /** {private halves, pending} before anything leaves. [K-3.3] */
  private async make(order: KeyOrder, registrationId: number): Promise<void> {
    const { core } = this
    await core.mutex.run(() => {
      const stage = new Stage(core.storage)
      const keys = core.crypto.makeKeys(stage, order, core.account.now())
      const own = this.own()
      core.storage.transaction((tx) => {
        stage.apply(tx)
        pending.put(tx, 'self', { keys, registrationId })
        published.put(tx, 'self', {
          ...own,
          highestOneTime: Math.max(own.highestOneTime, keys.oneTime.at(-1)?.keyId ?? -1),
          highestKyber: Math.max(own.highestKyber, keys.kyberOneTime.at(-1)?.keyId ?? -1, keys.lastResort?.keyId ?? -1),
        })
      })
    })
    await this.upload()
  }

  /** What is pending, again if need be: the same upload twice is one. */
  private async upload(): Promise<void> {
    const { core } = this
    const upload = core.storage.transaction((tx) => pending.get(tx, 'self'))
    if (!upload) return
    const { keys, registrationId } = upload
    const replace = registrationId ? { replace: true, registration_id: registrationId } : {}
    await core.account.http.call('PUT', '/v1/keys', { ...keysJson(keys), ...replace })
    await core.mutex.run(() => {
      const own = this.own()
      const nowMs = core.account.now()
      const stage = new Stage(core.storage)
      const replaced = {
        ...(keys.signed && { signed: own.signed.keyId }),
        ...(keys.lastResort && own.lastResort && { lastResort: own.lastResort.keyId }),
      }
      // Of two clocks the one that keeps longer: a wrong one must not make keys old that messages under way need.
      const ownMs = core.time.now()
      core.crypto.retireKeys(stage, replaced, Math.max(nowMs, ownMs), Math.min(nowMs, ownMs) - GONE_FOR_MS)
      const changed: Published = {
        ...own,
        signed: keys.signed ?? own.signed,
        lastResort: keys.lastResort ?? own.lastResort,
        rotatedAtMs: keys.signed ? nowMs : own.rotatedAtMs,
      }
      core.storage.transaction((tx) => {
        stage.apply(tx)
        published.put(tx, 'self', changed)
        pending.delete(tx, 'self')
        if (!registrationId) return
        core.crypto.forgetSessions(tx)
        core.account.updateIn(tx, { registrationId })
      })
    })
  }

  /** The earlier of the two clocks: a wrong one may cost a deletion, not a key that is still needed. */
  private async prune(counts: CountsJson): Promise<void> {
    const { mutex, storage, account, time, crypto } = this.core
    await mutex.run(() =>
      storage.transaction((tx) => {
        const below = noteStock(tx, counts, account.self.registrationId, Math.min(account.now(), time.now()))
        if (below) crypto.pruneKeys(tx, below)
      }),
    )
  }

  private drop(why: string): void {
    this.core.storage.transaction((tx) => pending.delete(tx, 'self'))
    this.core.events.emit('problem', { what: 'keys_refused', detail: why })
  }

  /** The relay has keys of ours that we never made: this store is a copy from before. */
  private isRewound(counts: CountsJson, match: boolean): boolean {
    const own = this.own()
    const { signed_prekey: signed, last_resort: lastResort } = counts
    if ((counts.one_time.highest_id ?? -1) > own.highestOneTime) return true
    if (Math.max(counts.kyber_one_time.highest_id ?? -1, lastResort?.key_id ?? -1) > own.highestKyber) return true
    return !match && (signed?.key_id ?? -1) >= own.signed.keyId
  }

  /** New keys above all ids, a new registration id, no sessions: peers find this device stale and begin anew. [K-8] */
  private async startOver(counts: CountsJson): Promise<void> {
    const own = this.own()
    this.core.events.emit('problem', {
      what: 'rewound',
      detail: 'the relay has newer keys of this device than this store',
    })
    const before = this.core.account.self.registrationId
    const registrationId =
      1 + ((before + Math.floor(this.core.time.random() * (REGISTRATION_ID_MAX - 1))) % REGISTRATION_ID_MAX)
    const kyber =
      Math.max(own.highestKyber, counts.kyber_one_time.highest_id ?? -1, counts.last_resort?.key_id ?? -1) + 1
    const count = this.core.connection.limits.keysPerUpload
    const order = {
      signed: Math.max(own.signed.keyId, counts.signed_prekey?.key_id ?? 0) + 1,
      lastResort: kyber,
      oneTime: { first: Math.max(own.highestOneTime, counts.one_time.highest_id ?? -1) + 1, count },
      kyberOneTime: { first: kyber + 1, count },
    }
    await this.make(order, registrationId)
  }

  private own(): Published {
    const own = this.core.storage.transaction((tx) => published.get(tx, 'self'))
    if (!own) throw new Error('nothing was published from this store')
    return own
  }

  /** [K-7.1] */
  private digest(): Uint8Array {
    const { crypto, storage, account } = this.core
    const { userId, deviceId, registrationId } = account.self
    const { signed, lastResort } = this.own()
    const identityKey = crypto.ownIdentity(new Stage(storage))
    const keys = deviceKeysBytes({ identityKey, registrationId, signed, lastResort })
    // The digest has the identity key after the registration id, the proof before it.
    const reordered = concat(bigEndian(registrationId, 2), identityKey, keys.slice(35))
    return crypto.hash(concat(utf8('sealpost.v1 keys\0'), idBytes(userId), Uint8Array.of(deviceId), reordered))
  }
}
