// A link whose answer was lost is asked for again: the same device, another secret, and nothing for anybody else. [I-4.5]
import { afterAll, beforeAll, expect, test } from 'vitest'
import { identityProofMessage } from '../../keys/verify.ts'
import { LINK_CODE_TTL_MS } from '../../proto/limits.ts'
import { verifyCredentials } from '../../server/credentials.ts'
import type { Enrolment } from '../../server/enrolment.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import type { TestDevice } from '../support/keys.ts'
import { enrolment, NOW, openWorld, REALM, refusal, sibling, type World } from './relay-world.ts'

let db: TestDatabase
let world: World
beforeAll(async () => {
  db = await testDatabase()
  world = await openWorld(db.database)
})
afterAll(() => db?.close())

/** The request with a proof of another time. */
function provenAt(request: Enrolment, device: TestDevice, linkCode: string, timestampMs: number): Enrolment {
  const { registrationId, identityKey, keys } = request
  const { signedPrekey, lastResortKyberPrekey } = keys
  const lasting = { registrationId, identityKey, signedPrekey, lastResortKyberPrekey }
  const message = identityProofMessage({ purpose: 'link', realm: REALM, linkCode, ...lasting, timestampMs })
  const signature = device.identity.privateKey.sign(Uint8Array.from(message))
  return { ...request, identityProof: { timestampMs, signature } }
}

async function linking() {
  const user = await world.register()
  const device = sibling(user.device)
  const code = await world.newCode(user)
  const request = enrolment(device, { purpose: 'link', linkCode: code })
  const ask = (asked: Enrolment, nowMs = NOW + 1) =>
    world.devices.link(user.caller.userId, { linkCode: code }, asked, nowMs)
  const enrolled = await ask(request)
  const again = (atMs: number) => provenAt(request, device, code, atMs)
  return { user, device, code, request, ask, enrolled, again }
}

test('the same device gets in again, with a new secret that voids the old, and nobody hears of it twice', async () => {
  const { user, ask, enrolled, again } = await linking()
  const heard = world.fannedOut.length
  const second = await ask(again(NOW + 1))
  expect(second).toEqual({ ...enrolled, deviceSecret: expect.any(String) })
  const clientId = `${second.userId}.${second.deviceId}`
  expect(await verifyCredentials(world.sql, clientId, enrolled.deviceSecret)).toBeNull()
  expect(await verifyCredentials(world.sql, clientId, second.deviceSecret)).toMatchObject({ deviceId: 2 })
  expect(await world.numbers(user)).toEqual([1, 2])
  expect(world.fannedOut).toHaveLength(heard)
  await ask(again(NOW + 2))
})

test('a recorded request, other keys, an ended code and an unlinked device are all a used code', async () => {
  const { user, device, code, request, ask, again } = await linking()
  await expect(ask(request)).rejects.toEqual(refusal('FORBIDDEN'))
  await ask(again(NOW + 5))
  await expect(ask(again(NOW + 5))).rejects.toEqual(refusal('FORBIDDEN'))
  await expect(ask(again(NOW + 4))).rejects.toEqual(refusal('FORBIDDEN'))
  const others = enrolment(device, { purpose: 'link', linkCode: code, timestampMs: NOW + 6 })
  await expect(ask(others)).rejects.toEqual(refusal('FORBIDDEN'))
  const renamed = { ...request, registrationId: (request.registrationId % 16383) + 1 }
  await expect(ask(provenAt(renamed, device, code, NOW + 6))).rejects.toEqual(refusal('FORBIDDEN'))
  await expect(ask(again(NOW + 6), NOW + LINK_CODE_TTL_MS)).rejects.toEqual(refusal('FORBIDDEN'))
  expect(await world.numbers(user)).toEqual([1, 2])
  await world.devices.unlink(user.caller, 2, NOW)
  await expect(ask(again(NOW + 7))).rejects.toEqual(refusal('FORBIDDEN'))
  expect(await world.numbers(user)).toEqual([1])
})

test('a used code does not count among the three that a user may have', async () => {
  const { user, ask, again } = await linking()
  const codes = [await world.newCode(user), await world.newCode(user), await world.newCode(user)]
  await ask(again(NOW + 1))
  for (const each of codes) await world.join(user, each)
})
