// A relay whose database fails under it: answers lost, connections killed, all of it away. Nothing acknowledged is lost, nothing
// comes twice, and it comes back by itself. I1 I2
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { waitingFor } from '../support/backlog.ts'
import { Client, idOf, type Socket } from '../support/client.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { queueFaults } from '../support/node.ts'
import { pair } from '../support/pair.ts'
import { type LossyProxy, openProxy } from '../support/proxy.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ErrorCode } = sealpost.v1

let db: TestDatabase
let proxy: LossyProxy
let relay: TestRelay
beforeAll(async () => {
  db = await testDatabase()
  proxy = await openProxy(db.url)
  // The relay goes through the proxy, the test looks past it.
  relay = await testRelay({ db: { ...db, url: proxy.url } })
})
afterAll(async () => {
  await relay?.close()
  await proxy?.close()
  await db?.close()
})
afterEach(async () => {
  expect(await queueFaults(db.database.sql)).toEqual([])
})

it('a commit whose answer was lost: the sender gets its id, the connected recipient gets it once', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const [from, to] = [await alice.live(), await bob.live()]
  await from.send(conversation, [bob.to()])
  await to.next('envelope')
  const content = Buffer.from(uuidV7(Date.now()))
  const clientMessageId = uuidToBytes(uuidV7(Date.now()))
  const lost = proxy.lose('answer', content.toString('hex'))
  const sending = from.send(conversation, [bob.to(content)], { clientMessageId })
  await lost
  const [, committed] = await waitingFor(db.database.sql, bob)
  const { messageAccepted } = await sending
  expect(messageAccepted).toMatchObject({ duplicate: false, skipped: [] })
  expect(idOf(messageAccepted!.messageId)).toBe(committed)
  // Nobody could offer the row: the session finds it itself.
  expect((await to.next('envelope')).ciphertext!.content).toEqual(content)
  const again = await from.send(conversation, [bob.to(content)], { clientMessageId })
  expect(again.messageAccepted).toMatchObject({ messageId: messageAccepted!.messageId, duplicate: true })
  // What is sent after it comes after it, and nothing twice.
  const last = await from.send(conversation, [bob.to()])
  expect((await to.next('envelope')).messageId).toEqual(last.messageAccepted!.messageId)
  await to.fence()
  expect(to.envelopes()).toEqual([])
  await Promise.all([from.close(), to.close()])
})

it('connections killed under traffic: what was acknowledged arrives once and in order, the rest is UNAVAILABLE with a time', async () => {
  const { sql } = db.database
  const bob = await Client.register(relay)
  const senders = await Promise.all([1, 2, 3].map(() => Client.register(relay)))
  const conversations = await Promise.all(senders.map((each) => each.direct(bob)))
  const [to, ...sockets] = await Promise.all([bob, ...senders].map((each) => each.live()))
  let killed = 0
  const kill = async () => {
    const rows = await sql`select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and application_name in ('sealpost-writer', 'sealpost-reader')`
    killed += rows.length
  }
  const accepted: string[][] = senders.map(() => [])
  await Promise.all(
    sockets.map(async (socket, i) => {
      for (let n = 0; n < 60; n++) {
        const clientMessageId = uuidToBytes(uuidV7(Date.now()))
        for (;;) {
          const answer = await socket.send(conversations[i]!, [bob.to()], { clientMessageId })
          if (answer.messageAccepted) {
            accepted[i]!.push(idOf(answer.messageAccepted.messageId))
            break
          }
          expect(answer.error?.code).toBe(ErrorCode.ERROR_CODE_UNAVAILABLE)
          expect(answer.error?.retryAfterMs).toBeGreaterThan(0)
        }
        if (i === 0 && n % 10 === 5) await kill()
      }
    }),
  )
  expect(killed).toBeGreaterThan(6)
  const all = accepted.flat()
  expect(new Set(all).size).toBe(180)
  const got: string[] = []
  let sequence = 0
  while (got.length < all.length) {
    const envelope = await to!.next('envelope')
    expect(envelope.sequence).toBeGreaterThan(sequence)
    sequence = envelope.sequence as number
    got.push(idOf(envelope.messageId))
    // The ack may meet a killed connection too; it is asked again then.
    await ackSurely(to!, envelope.messageId!)
  }
  await to!.fence()
  expect(to!.envelopes()).toEqual([])
  expect(new Set(got)).toEqual(new Set(all))
  expect(await waitingFor(sql, bob)).toEqual([])
  await Promise.all([to!, ...sockets].map((each) => each.close()))
})

async function ackSurely(socket: Socket, messageId: Uint8Array): Promise<void> {
  for (;;) {
    const answer = await socket.ask({ ack: { messageIds: [messageId] } })
    if (answer.ackCommitted) return
    expect(answer.error?.code).toBe(ErrorCode.ERROR_CODE_UNAVAILABLE)
  }
}

it('the database away: UNAVAILABLE on an open connection, no new ones, and all of it back by itself', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const [from, to] = [await alice.live(), await bob.live()]
  await from.send(conversation, [bob.to()])
  const first = await to.next('envelope')
  await proxy.down()
  const clientMessageId = uuidToBytes(uuidV7(Date.now()))
  const asked = [
    from.send(conversation, [bob.to()], { clientMessageId }),
    to.ask({ ack: { messageIds: [first.messageId!] } }),
    to.ask({ syncRequest: {} }),
    from.send(uuidV7(1), [bob.to()]),
  ]
  for (const answer of await Promise.all(asked)) {
    expect(answer.error?.code).toBe(ErrorCode.ERROR_CODE_UNAVAILABLE)
    expect(answer.error?.retryAfterMs).toBeGreaterThan(0)
  }
  expect((await bob.get('/v1/devices')).status).toBe(503)
  expect([from.closed, to.closed]).toEqual([null, null])
  await proxy.up()
  expect((await from.send(conversation, [bob.to()], { clientMessageId })).messageAccepted).toMatchObject({
    duplicate: false,
  })
  // A sync that failed has not ended: the next one does, and live goes on.
  const page = await to.sync()
  expect(page.messages).toHaveLength(2)
  await to.ack(...page.messages!.map((each) => each.messageId))
  await to.next('queueEmpty')
  await from.send(conversation, [bob.to()])
  await to.next('envelope')
  await Promise.all([from.close(), to.close()])
})
