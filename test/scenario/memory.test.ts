// Memory is bounded whatever the backlog and the reader's speed: 50,000 messages, a reader that stops, a reader that floods. I10
import { afterAll, beforeAll, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { BUFFERED_MAX_BYTES, PAGE_MAX_BYTES } from '../../proto/limits.ts'
import { commitUnannounced, numberOf } from '../support/backlog.ts'
import type { Client, Socket } from '../support/client.ts'
import { heldBytes } from '../support/held.ts'
import { type Pair, pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { openRig, type Rig } from '../support/rig.ts'

const { ErrorCode } = sealpost.v1
const MiB = 1024 * 1024

let relay: TestRelay
let rig: Rig
beforeAll(async () => {
  relay = await testRelay({ lockMs: 60_000 })
  rig = await openRig(relay.db)
})
afterAll(async () => {
  rig.close()
  await relay.close()
})

const commit = ({ alice, bob, conversation }: Pair, count: number, bytes: number) =>
  commitUnannounced(relay.db.database.sql, { from: alice, to: bob, conversation, count, bytes })
function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void
  const promise = new Promise<void>((done) => {
    resolve = done
  })
  return { promise, resolve }
}
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Takes what comes, acks it a hundred at a time; nothing is kept. @returns when so many came, in order. */
async function readAll(socket: Socket, count: number): Promise<void> {
  let last: Uint8Array | null = null
  for (let next = 0; next < count; ) {
    const page: Awaited<ReturnType<Socket['sync']>> = await socket.sync(last)
    for (const each of page.messages!) expect(numberOf(each.ciphertext?.content)).toBe(next++)
    last = page.messages!.at(-1)!.messageId!
    socket.write({ ack: { messageIds: page.messages!.map((each) => each.messageId!) } })
    expect(page.hasMore).toBe(next < count)
    socket.frames.length = 0
  }
}

it('50,000 messages for a slow reader: memory stays flat, and once it reads, all of it comes in order', async () => {
  const users = await pair(relay)
  const count = 50_000
  await commit(users, count, 512)
  const { socket, session } = await rig.connect(users.bob)
  const before = await heldBytes()

  // It asks on and on and reads nothing: one page is answered, one waits for the network, the rest is refused.
  socket.ws.pause()
  let most = 0
  for (let i = 0; i < 300; i++) {
    socket.write({ syncRequest: {} })
    await turn()
    most = Math.max(most, session.connection.bufferedBytes())
  }
  expect(most).toBeLessThan(BUFFERED_MAX_BYTES + PAGE_MAX_BYTES)
  expect((await heldBytes()) - before).toBeLessThan(16 * MiB)
  socket.ws.resume()
  await socket.fence()
  socket.frames.length = 0

  await readAll(socket, count)
  expect((await heldBytes()) - before).toBeLessThan(16 * MiB)
  await socket.close()
}, 60_000)

it('a live reader that stops: the relay stops at 256 KiB buffered, and goes on when it reads again', async () => {
  const users = await pair(relay)
  const size = 90 * 1024
  const { socket, session } = await rig.connect(users.bob)
  socket.ws.pause()
  await commit(users, 250, size)
  session.hear(Number.POSITIVE_INFINITY)
  let [most, still, last] = [0, 0, -1]
  // Until ours is full behind the kernel's, and nothing moves for a while: neither by reads of the queue that are slow, nor by more of them.
  while (most < BUFFERED_MAX_BYTES || still < 200) {
    await new Promise((resolve) => setTimeout(resolve, 1))
    const buffered = session.connection.bufferedBytes()
    most = Math.max(most, buffered)
    still = buffered === last ? still + 1 : 0
    last = buffered
  }
  expect(session.behind).toBe(true)
  expect(most).toBeGreaterThanOrEqual(BUFFERED_MAX_BYTES)
  expect(most).toBeLessThan(BUFFERED_MAX_BYTES + size + 1024)
  socket.ws.resume()
  for (let i = 0; i < 250; i++) expect(numberOf((await socket.next('envelope')).ciphertext?.content)).toBe(i)
  await socket.close()
})

it('a page waits until the network took what went before', async () => {
  const users = await pair(relay)
  await commit(users, 120, 90 * 1024)
  const { socket, session } = await rig.connect(users.bob)
  socket.ws.pause()
  const pages: Promise<unknown>[] = []
  let most = 0
  // Until ours is full behind the kernel's, however slowly pages are read, and then so often again.
  for (let i = 0, full = 0; full < 300; i++) {
    if (i % 25 === 0) pages.push(socket.ask({ syncRequest: {} }))
    await new Promise((resolve) => setTimeout(resolve, 1))
    most = Math.max(most, session.connection.bufferedBytes())
    if (most > BUFFERED_MAX_BYTES) full++
  }
  expect(most).toBeLessThan(BUFFERED_MAX_BYTES + PAGE_MAX_BYTES + 64 * 1024)
  socket.ws.resume()
  await Promise.all(pages)
  await socket.close()
})

it('a flood of requests nobody reads the answers of is bounded, and the others are served', async () => {
  const users: Pair = await pair(relay)
  const flooder: Client = users.bob
  const socket = await flooder.connect()
  socket.ws.pause()
  const before = await heldBytes()
  for (let round = 0; round < 40; round++) {
    for (let i = 0; i < 500; i++) socket.write({ ack: { messageIds: [new Uint8Array(16)] } })
    await turn()
  }
  const from = await users.alice.live()
  await from.fence()
  await from.close()
  expect((await heldBytes()) - before).toBeLessThan(32 * MiB)
  socket.ws.terminate()
}, 60_000)

it('sends that wait for the database are bounded in bytes; what is too much is OVERLOADED and may come again', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const from = await alice.live()
  const large = () => {
    const content = Buffer.alloc(96 * 1024)
    const recipients = Array.from({ length: 9 }, (_, i) => ({ ...bob.to(content), deviceId: i + 1 }))
    return from.send(conversation, recipients)
  }
  const refusals: number[] = []
  let asked: ReturnType<Socket['send']>[] = []
  await relay.db.database.sql.begin(async (tx) => {
    await tx`set local idle_in_transaction_session_timeout = 0`
    // Who is in the conversation cannot be read: nothing gets further than that.
    await tx`lock table conversations in access exclusive mode`
    asked = Array.from({ length: 100 }, large)
    const { promise, resolve } = deferred()
    for (const each of asked)
      each.then(({ error }) => {
        refusals.push(error!.code!)
        resolve()
      })
    await promise
  })
  const answers = await Promise.all(asked)
  expect(refusals[0]).toBe(ErrorCode.ERROR_CODE_OVERLOADED)
  const overloaded = answers.filter(({ error }) => error?.code === ErrorCode.ERROR_CODE_OVERLOADED)
  expect(overloaded.every(({ error }) => error!.retryAfterMs! > 0)).toBe(true)
  expect((await from.send(conversation, [bob.to()])).messageAccepted).toBeTruthy()
  await from.close()
}, 60_000)
