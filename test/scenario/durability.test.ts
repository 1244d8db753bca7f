// Durable before ack (I1): a relay killed with -9 right after an answer, restarted on the same database.
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { Client, idOf, Socket } from '../support/client.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { type KillableRelay, startKillable } from '../support/killable.ts'
import { queueFaults } from '../support/node.ts'

// A relay in a process of its own takes seconds to start on a busy machine.
vi.setConfig({ testTimeout: 120_000 })

let db: TestDatabase
const started: KillableRelay[] = []
beforeAll(async () => {
  db = await testDatabase()
})
afterEach(async () => {
  await Promise.all(started.splice(0).map((relay) => relay.kill()))
  expect(await queueFaults(db.database.sql)).toEqual([])
})
afterAll(() => db?.close())

const start = async (): Promise<KillableRelay> => {
  const relay = await startKillable(db)
  started.push(relay)
  return relay
}
/** Connects to the relay that runs now, wherever the client registered. */
const connect = async (relay: KillableRelay, client: Client): Promise<Socket> => {
  const socket = await Socket.open(relay.url, client.token)
  await socket.next('hello')
  return socket
}
const live = async (relay: KillableRelay, client: Client): Promise<Socket> => {
  const socket = await connect(relay, client)
  await socket.drain()
  return socket
}
async function pair(relay: KillableRelay) {
  const [alice, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
  return { alice, bob, conversation: await alice.direct(bob) }
}
const text = (n: number) => Buffer.from(`message ${n}`)

it('kill -9 right after the answer: what was accepted arrives, what was acked does not come again', async () => {
  let relay = await start()
  const { alice, bob, conversation } = await pair(relay)

  // The recipient is away.
  let from = await live(relay, alice)
  await (await live(relay, bob)).close()
  const first = (await from.send(conversation, [bob.to(text(1))])).messageAccepted!
  await relay.kill()

  // It has the envelope and has not acked it; then another one is accepted.
  relay = await start()
  from = await live(relay, alice)
  let to = await connect(relay, bob)
  expect((await to.sync()).messages!.map((each) => idOf(each.messageId))).toEqual([idOf(first.messageId)])
  await to.next('queueEmpty')
  const second = (await from.send(conversation, [bob.to(text(2))])).messageAccepted!
  await to.next('envelope')
  await relay.kill()

  // It acks one of them; the answer to the ack is the last thing the relay does.
  relay = await start()
  to = await connect(relay, bob)
  const both = (await to.sync()).messages!
  expect(both.map((each) => idOf(each.messageId))).toEqual([idOf(first.messageId), idOf(second.messageId)])
  await to.ack(first.messageId)
  await relay.kill()

  relay = await start()
  to = await connect(relay, bob)
  const rest = await to.drain()
  expect(rest.map((each) => Buffer.from(each.ciphertext!.content!).toString())).toEqual(['message 2'])
  // The repeat of an accepted send is known to the relay that never saw it.
  from = await live(relay, alice)
  const again = await from.send(conversation, [bob.to(text(1))], {
    clientMessageId: both[0]!.ciphertext!.clientMessageId!,
  })
  expect(again.messageAccepted).toMatchObject({ messageId: first.messageId, duplicate: true })
})

it.each([1, 120])(
  'kill -9 in a stream of sends, at answer %i: all accepted arrive once, the rest after the retry',
  async (at) => {
    let relay = await start()
    const { alice, bob, conversation } = await pair(relay)
    await (await live(relay, bob)).close()
    let from = await live(relay, alice)
    const clientIds = Array.from({ length: 300 }, () => uuidV7(Date.now()))
    const send = (socket: Socket, n: number) =>
      socket.send(conversation, [bob.to(text(n))], { clientMessageId: uuidToBytes(clientIds[n]!) })

    const accepted = new Map<number, string>()
    // A window of 20, so that the end finds some in every state: answered, committed, on their way, never sent.
    let next = 0
    const lane = async () => {
      for (let n = next++; n < clientIds.length; n = next++) {
        const answer = await send(from, n).catch(() => null)
        if (!answer) return
        // What arrives after the kill was answered before it: it counts.
        accepted.set(n, idOf(answer.messageAccepted!.messageId))
        if (accepted.size === at) relay.process.kill('SIGKILL')
      }
    }
    await Promise.all(Array.from({ length: 20 }, lane))
    await relay.process.ended
    expect(accepted.size).toBeGreaterThanOrEqual(at)
    expect(accepted.size).toBeLessThan(clientIds.length)

    relay = await start()
    let to = await connect(relay, bob)
    const waiting: string[] = []
    const numbers: number[] = []
    for (let last: Uint8Array | null = null, more = true; more; ) {
      const page = await to.sync(last)
      for (const each of page.messages ?? []) {
        waiting.push(idOf(each.messageId))
        numbers.push(clientIds.indexOf(idOf(each.ciphertext!.clientMessageId)))
      }
      last = page.messages?.at(-1)?.messageId ?? null
      more = page.hasMore ?? false
    }
    expect(new Set(waiting).size).toBe(waiting.length)
    for (const id of accepted.values()) expect(waiting).toContain(id)
    // Un-answered ones may be there too, but in order: what committed is a beginning of what was sent. [S-8.1]
    expect(numbers).toEqual(numbers.map((_, i) => i))
    await to.close()

    // The client sends everything again under the same ids.
    from = await live(relay, alice)
    const answers = await Promise.all(clientIds.map((_, n) => send(from, n)))
    for (const [n, answer] of answers.entries()) {
      const { messageId, duplicate } = answer.messageAccepted!
      if (accepted.has(n)) expect(idOf(messageId)).toBe(accepted.get(n))
      expect(duplicate).toBe(n < waiting.length)
    }
    to = await connect(relay, bob)
    const all = await to.drain()
    expect(all.map((each) => idOf(each.messageId))).toEqual(
      answers.map((each) => idOf(each.messageAccepted!.messageId)),
    )
    expect(all.map((each) => each.ciphertext!.content!.toString())).toEqual(clientIds.map((_, n) => text(n).toString()))
  },
)
