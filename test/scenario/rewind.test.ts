// The database went back a little under a running relay (a replica took over that had not got the last commits): no ack of what it
// forgot ends what was accepted since. I3
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Uuid, uuidV7 } from '../../proto/ids.ts'
import { waitingFor } from '../support/backlog.ts'
import { pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

/** Bob got three messages and acked none; the database forgot them and holds `since` others, given the same sequences. */
async function forgotten(since: number) {
  const { alice, bob, bobKey, conversation } = await pair(relay)
  const [from, to] = [await alice.live(), await bob.live()]
  for (let i = 0; i < 3; i++) await from.send(conversation, [bob.to()])
  const lost = []
  for (let i = 0; i < 3; i++) lost.push((await to.next('envelope')).messageId)
  const ids = Array.from({ length: since }, () => uuidV7(Date.now()))
  await relay.db.database.sql.begin(async (tx) => {
    await tx`select 1 from device_locks where device_key = ${bobKey} for update`
    const gone = await tx<{ message_id: Uuid; sequence: number }[]>`
      delete from message_deliveries_waiting where device_key = ${bobKey} returning message_id, sequence`
    expect(gone).toHaveLength(3)
    await tx`update messages set message_id = i, client_message_id = gen_random_uuid()
      from unnest(${ids.slice(0, 3)}::uuid[], ${gone.map((row) => row.message_id)}::uuid[]) x(i, o) where message_id = o`
    for (const id of ids.slice(3))
      await tx`insert into messages (message_id, conversation_id, sender_type, sender_user_id, sender_device_key, sender_device_id,
          client_message_id, sent_at)
        select ${id}, conversation_id, 1, sender_user_id, sender_device_key, sender_device_id, gen_random_uuid(), now()
        from messages where message_id = ${ids[0]!}`
    const before = Math.min(...gone.map((row) => row.sequence)) - 1
    await tx`insert into message_deliveries_waiting (device_key, sequence, message_id, ciphertext_type, content)
      select ${bobKey}, ${before}::bigint + n, i, 2, '\\x01' from unnest(${ids}::uuid[]) with ordinality x(i, n)`
    await tx`update device_sequences set last = ${before + since} where device_key = ${bobKey}`
  })
  return { bob, from, to, lost, ids }
}

it('an ack of what the database forgot does not end the messages that got its sequences', async () => {
  const { bob, from, to, lost, ids } = await forgotten(3)
  // Whether or not the connection was ended meanwhile.
  await to.ack(...lost).catch(() => {})
  expect(await waitingFor(relay.db.database.sql, bob)).toEqual(ids)
  await Promise.all([from.close(), to.close()])
})
