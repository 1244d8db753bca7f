// Whether a verified token still speaks for a device: gone, relinked, cached, bounded.
import { randomBytes, randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { Sql } from '../../server/database.ts'
import { IDENTITY_FRESH_MS, type Identity, openIdentity } from '../../server/identity.ts'
import { openTokens, type TokenDevice, type Tokens } from '../../server/tokens.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'

const NOW = 1_800_000_000_000
const UNAUTHENTICATED = expect.objectContaining({ code: 'UNAUTHENTICATED' })

let db: TestDatabase
let tokens: Tokens
let identity: Identity
beforeAll(async () => {
  db = await testDatabase()
  tokens = await openTokens({ sql: db.database.sql, realm: 'r', nowMs: NOW })
})
afterAll(() => db?.close())
beforeEach(() => {
  identity = openIdentity({ sql: db.database.sql, tokens })
})

async function device(
  userId: string = randomUUID(),
  deviceId = 1,
): Promise<TokenDevice & { deviceKey: number; token: string }> {
  const deviceUuid = randomUUID()
  await db.database.sql`insert into accounts (user_id) values (${userId}) on conflict do nothing`
  const [row] = await db.database.sql`insert into devices (device_uuid, user_id, device_id, secret_hash)
    values (${deviceUuid}, ${userId}, ${deviceId}, ${randomBytes(32)}) returning device_key`
  const { token } = await tokens.issue({ userId, deviceId, deviceUuid }, NOW)
  return { userId, deviceId, deviceUuid, deviceKey: row!.device_key, token }
}
const unlink = (deviceUuid: string) => db.database.sql`delete from devices where device_uuid = ${deviceUuid}`

test('a token speaks for the device whose row it names', async () => {
  const { token, ...rest } = await device()
  expect(await identity.authenticate(token, NOW)).toEqual(rest)
})

test('no token, a bad token and a token whose device is gone are one answer', async () => {
  const { token, deviceUuid } = await device()
  await unlink(deviceUuid)
  const refusals = await Promise.all(
    [null, '', 'x.y.z', token].map((each) => identity.authenticate(each, NOW).catch((error) => error)),
  )
  for (const refusal of refusals) expect(refusal).toEqual(UNAUTHENTICATED)
  expect(new Set(refusals.map((each) => each.message)).size).toBe(1)
})

test('an old token never speaks for the device that has its number now', async () => {
  const old = await device(undefined, 5)
  await unlink(old.deviceUuid)
  const next = await device(old.userId, 5)
  await expect(identity.authenticate(old.token, NOW)).rejects.toEqual(UNAUTHENTICATED)
  expect(await identity.authenticate(next.token, NOW)).toMatchObject({ deviceKey: next.deviceKey })
})

test('an unlink on another node is noticed within five seconds, one on this node at once', async () => {
  const { token, deviceUuid } = await device()
  await identity.authenticate(token, NOW)
  await unlink(deviceUuid)
  expect(await identity.authenticate(token, NOW + IDENTITY_FRESH_MS - 1)).toMatchObject({ deviceUuid })
  await expect(identity.authenticate(token, NOW + IDENTITY_FRESH_MS)).rejects.toEqual(UNAUTHENTICATED)

  const other = await device()
  await identity.authenticate(other.token, NOW)
  await unlink(other.deviceUuid)
  identity.forget(other.deviceUuid)
  await expect(identity.authenticate(other.token, NOW)).rejects.toEqual(UNAUTHENTICATED)
})

test('a look-up under way while its device is unlinked is not remembered', async () => {
  const { token, deviceUuid } = await device()
  // The row was read, and its answer is still under way when the unlink commits.
  const late = (async (text: TemplateStringsArray, ...values: string[]) => {
    const rows = await db.database.sql(text, ...values)
    await unlink(deviceUuid)
    slow.forget(deviceUuid)
    return rows
  }) as unknown as Sql
  const slow = openIdentity({ tokens, sql: late })
  expect(await slow.authenticate(token, NOW)).toMatchObject({ deviceUuid })
  await expect(slow.authenticate(token, NOW)).rejects.toEqual(UNAUTHENTICATED)
})

test('expired while its row is remembered is expired', async () => {
  const { token } = await device()
  await identity.authenticate(token, NOW + 3_599_000)
  await expect(identity.authenticate(token, NOW + 3_600_000)).rejects.toEqual(UNAUTHENTICATED)
})

test('the memory is bounded: the oldest makes room', async () => {
  const small = openIdentity({ sql: db.database.sql, tokens, maxCached: 2 })
  const devices = [await device(), await device(), await device()]
  for (const { token } of devices) await small.authenticate(token, NOW)
  for (const { deviceUuid } of devices) await unlink(deviceUuid)
  await expect(small.authenticate(devices[0]!.token, NOW)).rejects.toEqual(UNAUTHENTICATED)
  expect(await small.authenticate(devices[2]!.token, NOW)).toMatchObject({ deviceUuid: devices[2]!.deviceUuid })
})
