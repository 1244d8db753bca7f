// Users, devices and keys as the scripted relay has them: in memory, and as the protocol says unless a scenario lies. [H-4] [H-5] [H-6]
import { randomUUID } from 'node:crypto'
import { uuidToBytes } from '../../../proto/ids.ts'
import { base64, be, fromBase64, sha256, utf8 } from '../bytes.ts'
import type { PrekeyJson } from '../keys.ts'
import type { BundlesJson } from '../peer.ts'

/** What was published, JSON as it came. */
export type Published = {
  signed: PrekeyJson
  lastResort: PrekeyJson | null
  oneTime: PrekeyJson[]
  kyber: PrekeyJson[]
  /** Highest ids ever, −1 = none. */
  highest: { ec: number; kyber: number }
  lastResortUsed: boolean
}

/** @property secret of the client's devices; '' for the kit's own. */
export type Entry = Published & {
  userId: string
  deviceId: number
  registrationId: number
  secret: string
  createdAtMs: number
}

// biome-ignore lint/suspicious/noExplicitAny: bodies of another program
type Json = any

const highest = (keys: PrekeyJson[], before: number): number => Math.max(before, ...keys.map((each) => each.key_id))

export class Directory {
  /** User id → identity key, base64. */
  readonly identities = new Map<string, string>()
  readonly devices: Entry[] = []

  /** A user's first device, or a further one. */
  enrol(json: Json, who: { userId?: string; deviceId?: number; secret?: string; atMs: number }): Entry {
    const { userId = randomUUID(), deviceId = 1, secret = '', atMs } = who
    this.identities.set(userId, json.identity_key)
    const [oneTime, kyber] = [json.one_time_prekeys ?? [], json.one_time_kyber_prekeys ?? []]
    const lastResort: PrekeyJson | null = json.last_resort_kyber_prekey ?? null
    const entry: Entry = {
      ...{ userId, deviceId, registrationId: json.registration_id, secret, createdAtMs: atMs },
      ...{ signed: json.signed_prekey, lastResort, oneTime, kyber, lastResortUsed: false },
      highest: { ec: highest(oneTime, -1), kyber: highest(kyber, lastResort?.key_id ?? -1) },
    }
    this.devices.push(entry)
    return entry
  }

  of(userId: string): Entry[] {
    return this.devices.filter((each) => each.userId === userId)
  }
  find(userId: string, deviceId: number): Entry | undefined {
    return this.devices.find((each) => each.userId === userId && each.deviceId === deviceId)
  }

  /** [K-2] [K-3] [K-8], believing everything: whether the client does it right is for the scenarios to say. */
  upload(entry: Entry, json: Json): void {
    const add = (stock: PrekeyJson[], keys: PrekeyJson[] = []): PrekeyJson[] => [
      ...stock,
      ...keys.filter((key) => !stock.some((each) => each.key_id === key.key_id)),
    ]
    const fresh = json.replace === true
    entry.oneTime = add(fresh ? [] : entry.oneTime, json.one_time_prekeys)
    entry.kyber = add(fresh ? [] : entry.kyber, json.one_time_kyber_prekeys)
    entry.highest.ec = highest(json.one_time_prekeys ?? [], entry.highest.ec)
    entry.highest.kyber = highest(json.one_time_kyber_prekeys ?? [], entry.highest.kyber)
    if (json.signed_prekey) entry.signed = json.signed_prekey
    if (json.last_resort_kyber_prekey) {
      entry.lastResortUsed &&= entry.lastResort?.key_id === json.last_resort_kyber_prekey.key_id
      entry.lastResort = json.last_resort_kyber_prekey
      entry.highest.kyber = highest([json.last_resort_kyber_prekey], entry.highest.kyber)
    }
    if (fresh && json.registration_id) entry.registrationId = json.registration_id
  }

  /** GET /v1/keys. [K-6] */
  counts(entry: Entry): Json {
    const of = (keys: PrekeyJson[], most: number) => ({
      ...{ count: keys.length, oldest_id: keys[0]?.key_id ?? null, highest_id: most < 0 ? null : most },
    })
    const { lastResort, createdAtMs: created_at_ms } = entry
    return {
      one_time: of(entry.oneTime, entry.highest.ec),
      kyber_one_time: of(entry.kyber, entry.highest.kyber),
      signed_prekey: { key_id: entry.signed.key_id, created_at_ms },
      last_resort: lastResort && { key_id: lastResort.key_id, created_at_ms, used: entry.lastResortUsed },
    }
  }

  /** Takes one-time keys out of stock. [K-4] */
  bundles(userId: string, deviceIds: number[]): BundlesJson {
    const devices = this.of(userId).filter((each) => deviceIds.includes(each.deviceId))
    return {
      user_id: userId,
      identity_key: this.identities.get(userId) ?? '',
      devices: devices.map((entry) => {
        const kyber = entry.kyber.shift() ?? entry.lastResort
        if (kyber && kyber === entry.lastResort) entry.lastResortUsed = true
        return {
          ...{ device_id: entry.deviceId, registration_id: entry.registrationId, signed_prekey: entry.signed },
          ...{ one_time_prekey: entry.oneTime.shift() ?? null, kyber_prekey: kyber },
        }
      }),
    }
  }

  /** [K-7.1], base64. */
  digest({ userId, deviceId, registrationId, signed, lastResort }: Entry): string {
    const key = (json: PrekeyJson) => [be(json.key_id, 4), fromBase64(json.public_key)]
    const last = lastResort ? [be(1, 1), ...key(lastResort)] : [be(0, 1)]
    const head = [utf8('sealpost.v1 keys\0'), uuidToBytes(userId), be(deviceId, 1), be(registrationId, 2)]
    return base64(sha256(...head, fromBase64(this.identities.get(userId)!), ...key(signed), ...last))
  }
}
