// The life of a username with real libsignal proofs, and the budget of look-ups.
import { usernames as libsignal } from '@signalapp/libsignal-client'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { openLocalMeters } from '../../keys/meter.ts'
import { usernameRoutes } from '../../server/http/usernames.ts'
import { limitOf, usualRates } from '../../server/limits.ts'
import { openUsernames, USERNAME_LOCK_MS, type Usernames } from '../../server/usernames.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { callRoute } from './routes.ts'

const NOW = 1_800_000_000_000
const ANN = 'aaaaaaaa-0000-4000-8000-000000000001'
const BOB = 'bbbbbbbb-0000-4000-8000-000000000002'
const EVE = 'eeeeeeee-0000-4000-8000-000000000003'

/** A name as a client makes it: hash and proof by libsignal. */
const named = (nickname: string, discriminator = '42') => {
  const { hash, username } = libsignal.fromParts(nickname, discriminator, 3, 32)
  return { hash, proof: libsignal.generateProof(username) }
}
const CONFLICT = expect.objectContaining({ code: 'CONFLICT' })
const NOT_FOUND = expect.objectContaining({ code: 'NOT_FOUND' })

let db: TestDatabase
let usernames: Usernames
beforeAll(async () => {
  db = await testDatabase()
  await db.database.sql`insert into accounts (user_id) values (${ANN}), (${BOB}), (${EVE})`
})
afterAll(() => db?.close())
beforeEach(async () => {
  await db.database.sql`truncate usernames`
  const lookups = openLocalMeters(() => lookedUpAtMs)(limitOf('lookups', usualRates()))
  usernames = openUsernames({ sql: db.database.sql, lookups })
})

const set = (user: string, name: { hash: Uint8Array; proof: Uint8Array }, nowMs = NOW) =>
  usernames.set(user, name.hash, name.proof, nowMs)
let lookedUpAtMs = NOW
const LOOKUP_BURST = 20
const LOOKUP_REFILL_MS = 30_000
const find = (name: { hash: Uint8Array }, nowMs = NOW) => {
  lookedUpAtMs = nowMs
  return usernames.find(EVE, name.hash)
}

describe('a username', () => {
  const ann = named('ann')
  const other = named('ann_other')

  test('is found by its hash once set, and setting it again changes nothing', async () => {
    await set(ANN, ann)
    await set(ANN, ann)
    expect(await find(ann)).toBe(ANN)
  })

  test('unknown and released ones are one answer', async () => {
    const unknown = await find(ann).catch((error) => error)
    await set(ANN, ann)
    await usernames.release(ANN, NOW)
    const released = await find(ann).catch((error) => error)
    expect(unknown).toEqual(NOT_FOUND)
    expect(released).toEqual(unknown)
  })

  test('needs libsignal’s proof for exactly this hash', async () => {
    const INVALID = expect.objectContaining({
      code: 'INVALID_REQUEST',
      message: 'proof does not verify for username_hash',
    })
    const flipped = Uint8Array.from(ann.proof)
    flipped[7]! ^= 1
    await expect(usernames.set(ANN, ann.hash, other.proof, NOW)).rejects.toEqual(INVALID)
    await expect(usernames.set(ANN, ann.hash, flipped, NOW)).rejects.toEqual(INVALID)
    await expect(usernames.set(ANN, new Uint8Array(32), ann.proof, NOW)).rejects.toEqual(INVALID)
    await expect(find(ann)).rejects.toEqual(NOT_FOUND)
  })

  test('that another user holds is a conflict, and the loser keeps the name he had', async () => {
    await set(ANN, ann)
    await set(BOB, other)
    await expect(set(BOB, ann)).rejects.toEqual(CONFLICT)
    expect(await find(ann)).toBe(ANN)
    expect(await find(other)).toBe(BOB)
  })

  test('a user has one: a new one releases the old, which only he may take back', async () => {
    await set(ANN, ann)
    await set(ANN, other)
    await expect(find(ann)).rejects.toEqual(NOT_FOUND)
    await expect(set(BOB, ann)).rejects.toEqual(CONFLICT)
    await set(ANN, ann)
    expect(await find(ann)).toBe(ANN)
    await expect(set(BOB, other)).rejects.toEqual(CONFLICT)
  })

  test('released is locked for 30 days, then free to anybody', async () => {
    await set(ANN, ann)
    await usernames.release(ANN, NOW)
    await expect(set(BOB, ann, NOW + USERNAME_LOCK_MS - 1)).rejects.toEqual(CONFLICT)
    await set(BOB, ann, NOW + USERNAME_LOCK_MS)
    expect(await find(ann)).toBe(BOB)
    await expect(set(ANN, ann, NOW + USERNAME_LOCK_MS)).rejects.toEqual(CONFLICT)
  })

  test('releasing none is no error', async () => {
    await usernames.release(BOB, NOW)
    await usernames.release(BOB, NOW)
  })

  test('goes to one of many who take it at once', async () => {
    const tries = await Promise.allSettled([ANN, BOB, EVE].map((user) => set(user, ann)))
    expect(tries.filter((each) => each.status === 'fulfilled')).toHaveLength(1)
    for (const each of tries) if (each.status === 'rejected') expect(each.reason).toEqual(CONFLICT)
  })

  test('two users who swap names at once cannot deadlock', async () => {
    for (let round = 0; round < 10; round++) {
      await db.database.sql`truncate usernames`
      await set(ANN, ann)
      await set(BOB, other)
      const tries = await Promise.allSettled([set(ANN, other), set(BOB, ann)])
      for (const each of tries) if (each.status === 'rejected') expect(each.reason).toEqual(CONFLICT)
      const rows = await db.database.sql`select user_id from usernames where user_id is not null`
      expect(rows).toHaveLength(2)
    }
  })
})

describe('look-ups', () => {
  test('are 20 at once, then one every 30 seconds, for each caller by himself', async () => {
    const ann = named('ann')
    await set(ANN, ann)
    for (let i = 0; i < LOOKUP_BURST; i++) await find(ann)
    await expect(find(ann)).rejects.toMatchObject({ code: 'RATE_LIMITED', retryAfterMs: LOOKUP_REFILL_MS })
    await expect(find(ann, NOW + 10_000)).rejects.toMatchObject({ retryAfterMs: LOOKUP_REFILL_MS - 10_000 })
    expect(await usernames.find(BOB, ann.hash)).toBe(ANN)
    expect(await find(ann, NOW + LOOKUP_REFILL_MS)).toBe(ANN)
    await expect(find(ann, NOW + LOOKUP_REFILL_MS)).rejects.toMatchObject({ code: 'RATE_LIMITED' })
  })

  test('that find nothing cost as much', async () => {
    const nobody = named('nobody')
    for (let i = 0; i < LOOKUP_BURST; i++) await expect(find(nobody)).rejects.toEqual(NOT_FOUND)
    await expect(find(nobody)).rejects.toMatchObject({ code: 'RATE_LIMITED' })
  })
})

describe('over HTTP', () => {
  const routes = () => usernameRoutes({ usernames })
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
  const body = (name: { hash: Uint8Array; proof: Uint8Array }) => ({
    username_hash: base64(name.hash),
    proof: base64(name.proof),
  })
  const as = (userId: string) => ({ caller: { userId, deviceId: 1, deviceKey: 1, deviceUuid: userId }, nowMs: NOW })
  const ann = named('ann')
  const path = `/v1/usernames/${Buffer.from(ann.hash).toString('base64url')}`

  test('is set, found and released', async () => {
    expect(await callRoute(routes(), 'PUT', '/v1/username', { ...as(ANN), body: body(ann) })).toEqual({ status: 204 })
    expect(await callRoute(routes(), 'GET', path, as(BOB))).toEqual({ status: 200, body: { user_id: ANN } })
    expect(await callRoute(routes(), 'DELETE', '/v1/username', as(ANN))).toEqual({ status: 204 })
    await expect(callRoute(routes(), 'GET', path, as(BOB))).rejects.toEqual(NOT_FOUND)
  })

  test('malformed hashes and bodies are refused without charge', async () => {
    const INVALID = expect.objectContaining({ code: 'INVALID_REQUEST' })
    const hash = Buffer.from(ann.hash)
    for (const bad of [`${hash.toString('base64url')}=`, hash.toString('hex'), 'x', '%00', `${'A'.repeat(42)}B`]) {
      await expect(callRoute(routes(), 'GET', `/v1/usernames/${bad}`, as(BOB)), bad).rejects.toEqual(INVALID)
    }
    for (const bad of [
      {},
      { ...body(ann), proof: base64(ann.proof.subarray(1)) },
      { ...body(ann), username_hash: hash.toString('base64url') },
      { ...body(ann), username_hash: ` ${base64(ann.hash)}` },
      { ...body(ann), username_hash: 7 },
    ]) {
      await expect(callRoute(routes(), 'PUT', '/v1/username', { ...as(ANN), body: bad })).rejects.toEqual(INVALID)
    }
  })
})
