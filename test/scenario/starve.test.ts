// What waits or is slow for one device holds up nobody else: the writer's and the main pool's connections are few.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { uuidToBytes } from '../../proto/ids.ts'
import { holdLocks } from '../server/barrier.ts'
import { commitUnannounced } from '../support/backlog.ts'
import { Client } from '../support/client.ts'
import { type Pair, pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

let relay: TestRelay
let users: Pair
let others: Pair
beforeAll(async () => {
  relay = await testRelay({ lockMs: 60_000 })
  users = await pair(relay)
  others = await pair(relay)
})
afterAll(() => relay.close())

it('acks that wait for their rows do not hold up the sends of others', async () => {
  const { sql } = relay.db.database
  const { alice, bob, conversation, bobKey } = users
  const ids = await commitUnannounced(sql, { from: alice, to: bob, conversation, count: 4 })
  const from = await others.alice.live()
  // The pool is open, the roster cached.
  await from.send(others.conversation, [others.bob.to()])
  const held = await holdLocks(
    sql,
    (tx) => tx`select 1 from message_deliveries_waiting where device_key = ${bobKey} for update`,
  )
  const socket = await bob.connect()
  let answered = 0
  // Of an earlier connection: this one does not know where they lie.
  const acks = ids.map((id) => socket.ask({ ack: { messageIds: [uuidToBytes(id)] } }).then(() => answered++))
  await held.waiting(1)
  // All of them were read.
  await socket.fence()
  const sends = Array.from({ length: 4 }, () => from.send(others.conversation, [others.bob.to()]))
  for (const answer of await Promise.all(sends)) expect(answer.messageAccepted).toBeTruthy()
  expect(answered).toBe(0)
  await held.release()
  await Promise.all(acks)
  await Promise.all([socket.close(), from.close()])
})

it('changes of one conversation that wait for each other do not hold up sends and log-ins of others', async () => {
  const { sql } = relay.db.database
  const { alice, bob } = users
  const carol = await Client.register(relay)
  const group = await alice.group([bob, carol])
  const held = await holdLocks(sql, (tx) => tx`select 1 from conversations where conversation_id = ${group} for update`)
  let answered = 0
  const changes = Array.from({ length: 20 }, (_, i) =>
    alice.patch(`/v1/conversations/${group}`, { name: `${i}` }).then(() => answered++),
  )
  await held.waiting(4)
  for (let i = 0; i < 10; i++) await others.bob.refresh()
  expect(answered).toBe(0)
  await held.release()
  await Promise.all(changes)
})
