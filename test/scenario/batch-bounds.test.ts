// What a relay holds when its database stands still (I10): frames up to a limit, OVERLOADED beyond, and everything it took commits.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { holdLocks } from '../server/barrier.ts'
import { deviceKeyOf, waitingFor } from '../support/backlog.ts'
import { Client, type ServerFrame } from '../support/client.ts'
import { queueFaults } from '../support/node.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ErrorCode, Scope } = sealpost.v1
const MIB = 1024 * 1024

let relay: TestRelay
beforeAll(async () => {
  // The locks are held while 90 MiB are on their way, which takes what it takes.
  relay = await testRelay({ lockMs: 60_000 })
})
afterAll(() => relay?.close())

const overloaded = (frame: ServerFrame) => frame.error?.code === ErrorCode.ERROR_CODE_OVERLOADED

it.each([
  { where: 'before the roster is known', lock: 'lock table conversation_members in access exclusive mode' },
  { where: 'before the commit', lock: null },
])(
  'large frames of several connections that wait $where: 64 MiB are held, more are OVERLOADED',
  async ({ lock }) => {
    const { sql } = relay.db.database
    const bob = await Client.register(relay)
    const tablets = [bob]
    while (tablets.length < 10) tablets.push(await bob.link())
    const senders = await Promise.all(Array.from({ length: 10 }, () => Client.register(relay)))
    const conversations = await Promise.all(senders.map((each) => each.direct(bob)))
    const sockets = await Promise.all(senders.map((each) => each.live()))
    const key = await deviceKeyOf(sql, bob)
    const held = await holdLocks(sql, (tx) =>
      lock ? tx.unsafe(lock) : tx`select 1 from device_locks where device_key = ${key} for update`,
    )
    // About 0.9 MiB each.
    const recipients = tablets.map((each) => each.to(Buffer.alloc(92 * 1024, 1)))
    const answers: Promise<ServerFrame>[] = []
    for (let n = 0; n < 10; n++)
      for (const [i, socket] of sockets.entries()) answers.push(socket.send(conversations[i]!, recipients))
    let refused = 0
    for (const answer of answers)
      void answer.then((frame) => {
        if (overloaded(frame)) refused++
      })
    // A round trip behind all of them: whatever is refused at once has been refused.
    await Promise.all(sockets.map((each) => each.fence()))
    const taken = answers.length - refused
    expect(taken).toBeGreaterThan(50)
    expect(taken * 0.9 * MIB).toBeLessThanOrEqual(64 * MIB)
    await held.release()
    const frames = await Promise.all(answers)
    const accepted = frames.filter((frame) => frame.messageAccepted)
    expect(accepted.length).toBe(taken)
    for (const frame of frames.filter(overloaded)) expect(frame.error!.retryAfterMs).toBeGreaterThan(0)
    expect(await waitingFor(sql, bob)).toHaveLength(taken + senders.length + 9)
    expect(await queueFaults(sql)).toEqual([])
    // There is room again.
    const later = await sockets[0]!.send(conversations[0]!, [bob.to()], { scope: Scope.SCOPE_SUBSET })
    expect(later.messageAccepted).toBeTruthy()
    await Promise.all(sockets.map((each) => each.close()))
  },
  60_000,
)
