// A directory on a database of its own, with devices enrolled as the server would: for the tests of this folder.
import { randomUUID } from 'node:crypto'
import { expect } from 'vitest'
import type { FetchBudget } from '../../keys/budget.ts'
import { type Directory, type DirectoryOptions, type KeyCaller, openDirectory } from '../../keys/directory.ts'
import type { DeviceBundle, DeviceKeys, Upload } from '../../keys/prekeys.ts'
import { verifyKeys } from '../../keys/verify.ts'
import type { Sql } from '../../server/database.ts'
import { testDatabase } from '../support/database.ts'
import { TestDevice } from '../support/keys.ts'

/** A budget that never refuses, for tests about something else. */
export const unlimited: FetchBudget = {
  charge: async () => 0,
  admit: async (_caller, groups) => ({ admitted: true, oneTime: new Set(groups.flatMap((group) => group.deviceKeys)) }),
}

export const NO_KEYS: DeviceKeys = {
  signedPrekey: null,
  lastResortKyberPrekey: null,
  oneTimePrekeys: [],
  oneTimeKyberPrekeys: [],
}

export const upload = (part: Partial<Upload>): Upload => ({ ...NO_KEYS, replace: false, registrationId: null, ...part })

export type Enrolled = KeyCaller & { device: TestDevice }

/** A caller without keys of its own. */
export const stranger = (): KeyCaller => ({ userId: randomUUID(), deviceId: 1, deviceKey: nextDeviceKey++ })

let nextDeviceKey = 1

export type World = {
  url: string
  sql: Sql
  directory: Directory
  /** Milliseconds; tests move it. */
  clock: { nowMs: number }
  open(options?: Partial<DirectoryOptions>): Directory
  /** A user's device; signed prekey id 1 and last-resort id 1000 unless `keys` says otherwise. */
  enrol(options?: {
    of?: Enrolled
    deviceId?: number
    registrationId?: number
    keys?: (device: TestDevice) => Partial<DeviceKeys>
  }): Promise<Enrolled>
  /** The bundle of a device for somebody who never asked before. */
  claim(target: Enrolled): Promise<DeviceBundle>
  /** Claims until nothing is left. @returns the ids of the one-time keys handed out; last-resort keys have ids from 1000. */
  drain(target: Enrolled): Promise<{ ec: number[]; kyber: number[] }>
  /** All rows of a device, for "nothing changed". */
  rowsOf(device: Enrolled): Promise<unknown>
  /** Publishes and expects the refusal, with nothing stored. */
  refused(caller: Enrolled, part: Partial<Upload>, code: string, message: RegExp): Promise<void>
  close(): Promise<void>
}

export async function openWorld(): Promise<World> {
  const db = await testDatabase({ lockMs: 60_000 })
  const { sql } = db.database
  const clock = { nowMs: 1_780_000_000_000 }
  const open = (options: Partial<DirectoryOptions> = {}): Directory =>
    openDirectory({ sql, clock: () => clock.nowMs, budget: unlimited, ...options })
  const directory = open()
  const claim = async ({ userId, deviceId }: Enrolled): Promise<DeviceBundle> => {
    const [user] = await directory.bundles(stranger(), [{ userId, deviceId }])
    return user!.devices[0]!
  }
  const rowsOf = async ({ deviceKey }: Enrolled): Promise<unknown> => {
    const tables = ['devices', 'signed_prekeys', 'one_time_prekeys', 'kyber_prekeys', 'tombstones', 'highest_ids']
    return Promise.all(
      tables.map(async (table) => [
        ...(await sql`select * from ${sql(`keys.${table}`)} where device_key = ${deviceKey} order by 1, 2, 3`),
      ]),
    )
  }
  return {
    claim,
    async drain(target) {
      const ec: number[] = []
      const kyber: number[] = []
      for (;;) {
        const { oneTimePrekey, kyberPrekey } = await claim(target)
        if (oneTimePrekey) ec.push(oneTimePrekey.keyId)
        const lastResort = kyberPrekey === null || kyberPrekey.keyId >= 1000
        if (!lastResort) kyber.push(kyberPrekey.keyId)
        if (!oneTimePrekey && lastResort) return { ec, kyber }
      }
    },
    rowsOf,
    async refused(caller, part, code, message) {
      const before = await rowsOf(caller)
      await expect(directory.publish(caller, upload(part))).rejects.toMatchObject({
        name: 'RelayError',
        code,
        message: expect.stringMatching(message),
      })
      expect(await rowsOf(caller)).toEqual(before)
    },
    ...{ url: db.url, sql, directory, clock, open, close: db.close },
    async enrol({ of, deviceId = of ? of.deviceId + 1 : 1, registrationId = 4711, keys } = {}) {
      const device = new TestDevice({ registrationId, ...(of && { identity: of.device.identity }) })
      const made = keys?.(device) ?? {
        signedPrekey: device.makeSignedPrekey(1),
        lastResortKyberPrekey: device.makeLastResort(1000),
      }
      const verified = await verifyKeys(device.identityKey, { ...NO_KEYS, ...made })
      const caller = { userId: of?.userId ?? randomUUID(), deviceId, deviceKey: nextDeviceKey++ }
      await sql.begin((tx) => directory.enrol(tx, { ...caller, registrationId }, verified))
      device.userId = caller.userId
      device.deviceId = deviceId
      return { ...caller, device }
    },
  }
}
