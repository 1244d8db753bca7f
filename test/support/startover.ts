// A client that lost everything but its identity key: new keys under a new registration id, in place of the old. [K-8]
import { AddressBook } from './addressbook.ts'
import { prekeyJson } from './enrolment.ts'
import { TestDevice } from './keys.ts'
import type { Messenger } from './messenger.ts'

/** Forgets sessions, prekeys and addresses; publishes two fresh one-time keys of a kind. */
export async function startOver(messenger: Messenger): Promise<void> {
  const { client, device } = messenger
  const { body: counts } = await client.get('/v1/keys')
  // [K-8.2]
  const next = 1 + Math.max(0, counts.one_time.highest_id, counts.kyber_one_time.highest_id)
  const fresh = new TestDevice({ identity: device.identity, registrationId: (device.registrationId % 16383) + 1 })
  fresh.userId = device.userId
  fresh.deviceId = device.deviceId
  const answer = await client.put('/v1/keys', {
    replace: true,
    registration_id: fresh.registrationId,
    signed_prekey: prekeyJson(fresh.makeSignedPrekey(counts.signed_prekey.key_id + 1)),
    last_resort_kyber_prekey: prekeyJson(fresh.makeLastResort(next)),
    one_time_prekeys: fresh.makeOneTimePrekeys(2, next).map(prekeyJson),
    one_time_kyber_prekeys: fresh.makeKyberPrekeys(2, next + 1).map(prekeyJson),
  })
  if (answer.status !== 200) throw new Error(`HTTP ${answer.status}: ${JSON.stringify(answer.body)}`)
  messenger.device = fresh
  messenger.book = new AddressBook()
}
