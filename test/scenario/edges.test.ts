// Edges found in review: the first frame of a connection, clocks that differ, a row whose message is gone.
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { commitUnannounced } from '../support/backlog.ts'
import { Client, Socket } from '../support/client.ts'
import { pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

it('the first frame on every connection is Hello, whatever the client sent before it came [C-3]', async () => {
  const { bob } = await pair(relay)
  const socket = await Socket.open(bob.url, bob.token)
  const first = new Promise<boolean>((resolve) => {
    const push = socket.frames.push.bind(socket.frames)
    socket.frames.push = (...frames) => {
      resolve(frames[0]!.hello != null)
      return push(...frames)
    }
  })
  socket.write({ ack: {} })
  expect(await first).toBe(true)
  await socket.close()
})

it('a row whose message is gone does not stop the rest of the queue', async () => {
  const { sql } = relay.db.database
  const { alice, bob, conversation } = await pair(relay)
  const [lost] = await commitUnannounced(sql, { from: alice, to: bob, conversation, count: 3 })
  await sql`delete from messages where message_id = ${lost!}`
  const socket = await bob.connect()
  expect((await socket.sync()).messages?.length).toBeGreaterThanOrEqual(2)
  await socket.close()
})

it("acks commit when this machine's clock is a day ahead of the database's", async () => {
  const ahead = await testRelay({ clock: () => Date.now() + 24 * 3600 * 1000 })
  try {
    const nowMs = Date.now() + 24 * 3600 * 1000
    const [alice, bob] = [await Client.register(ahead, { nowMs }), await Client.register(ahead, { nowMs })]
    const conversation = await alice.direct(bob)
    const [from, to] = [await alice.connect(), await bob.live()]
    await from.send(conversation, [bob.to()])
    await to.ack((await to.next('envelope')).messageId)
  } finally {
    await ahead.close()
  }
})

it('a frame with more recipients than a conversation can have devices is refused as such, not compared one by one', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const from = await alice.live()
  const one = bob.to(new Uint8Array(1))
  const recipients = Array.from({ length: 20_000 }, () => ({ ...one, userId: randomBytes(16) }))
  const answer = await from.send(conversation, recipients)
  expect(answer.error?.deviceMismatch).toBeFalsy()
  await from.close()
})
