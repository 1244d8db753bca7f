// The database went back a little under a running relay (a replica took over that had not got the last commits): what is accepted
// from then on is delivered all the same. I3
import { afterAll, beforeAll, expect, it } from 'vitest'
import { idOf } from '../support/client.ts'
import { type Pair, pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

/** Bob's queue is again as it was before its last `count` messages. */
const goBack = ({ bobKey }: Pair, count: number) =>
  relay.db.database.sql.begin(async (tx) => {
    await tx`select 1 from device_locks where device_key = ${bobKey} for update`
    const rows = await tx<{ message_id: string }[]>`
      delete from message_deliveries_waiting where device_key = ${bobKey} returning message_id`
    expect(rows).toHaveLength(count)
    await tx`delete from messages where message_id = any(${rows.map((row) => row.message_id)}::uuid[])`
    await tx`update device_sequences set last = last - ${count} where device_key = ${bobKey}`
  })

async function lostThree() {
  const users = await pair(relay)
  const [from, to] = [await users.alice.live(), await users.bob.live()]
  for (let i = 0; i < 3; i++) await from.send(users.conversation, [users.bob.to()])
  const lost = []
  for (let i = 0; i < 3; i++) lost.push((await to.next('envelope')).messageId)
  await goBack(users, 3)
  const answer = await from.send(users.conversation, [users.bob.to()])
  return { users, from, to, lost, messageId: idOf(answer.messageAccepted!.messageId) }
}

it('a connected device gets what is accepted afterwards, or is sent away to connect anew', async () => {
  const { users, from, to, messageId } = await lostThree()
  await Promise.race([to.next('envelope').catch(() => {}), to.end()])
  if (to.closed) {
    const again = await users.bob.connect()
    expect((await again.drain()).map((each) => idOf(each.messageId))).toEqual([messageId])
    await again.close()
  }
  await Promise.all([from.close(), to.close()])
})
