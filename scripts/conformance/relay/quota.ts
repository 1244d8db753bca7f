// [Q-8] [S-3.2] [S-9.3]: queues that are full, and the gap that says so.
import { type Check, hold, NotRun, same } from '../check.ts'
import type { Device } from '../device.ts'
import { ok } from '../http.ts'
import { codeIn, kindOf, type Socket, signalMessage } from '../socket.ts'
import type { Kit } from '../world.ts'

/** Filled in every run up to here; larger ones with --slow. */
const QUICK = 2000
const AT_ONCE = 500

/** Sends in a direct conversation until the other's queue is full. @returns how many it took. */
async function fill(from: Socket, send: () => ReturnType<typeof signalMessage>, most: number): Promise<number> {
  let sent = 0
  for (let isFull = false; !isFull && sent < most; ) {
    const requests = Array.from({ length: Math.min(AT_ONCE, most - sent) }, () => from.write({ signalMessage: send() }))
    // To the last of them: where sends are limited, one that is wanted later may be refused after its successors were taken.
    for (const requestId of requests) {
      const frame = await from.answer(requestId)
      if (frame.messageAccepted) sent++
      else if (codeIn(frame) === 'QUEUE_FULL') isFull = true
      else hold(false, 'MessageAccepted or QUEUE_FULL', kindOf(frame))
    }
  }
  return sent
}

function quotaOf(kit: Kit, socket: Socket): number {
  const quota = socket.hello.limits?.queueMessages ?? 0
  if (quota > QUICK && !kit.world.slow) throw new NotRun(`a queue holds ${quota} envelopes here; filled with --slow`)
  return quota
}

export const quotaChecks: Check<Kit>[] = [
  {
    clauses: ['S-9.3', 'Q-8', 'Q-8.2', 'Q-8.3', 'Q-8.4', 'Q-1.1'],
    title: 'a full queue refuses a direct message, takes events, and tells its device of the gap until it is acked',
    withinMs: 300_000,
    async run(kit) {
      const { bob, alice, conversation, a, b } = await kit.pair()
      const quota = quotaOf(kit, a)
      // What told of the conversation is out of the queue before it is filled.
      await b.drain()
      await b.close()
      const took = await fill(a, () => signalMessage(conversation, [bob.to(1)]), quota + 1)
      hold(took === quota, `QUEUE_FULL after ${quota} messages`, `${took} accepted`)
      const refused = await a.refused(
        { signalMessage: signalMessage(conversation, [bob.to(1)]) },
        'QUEUE_FULL',
        'a full queue',
      )
      same(refused.deviceMismatch ?? null, null, 'as mismatch')
      const event = await alice.post(`/v1/conversations/${conversation}/archive`)
      same(event.status, 200, 'for a change while the queue is full, HTTP')
      const socket = await bob.connect()
      const waiting = await socket.readAll()
      hold(waiting.at(-1)?.systemEvent?.conversationChanged, 'the event at the end of the full queue', waiting.at(-1))
      // A direct message that was refused is no loss: its sender was told.
      const page = await socket.sync(null, 1)
      const overflowed = page.gap?.overflowed ?? 0
      await socket.drain()
      return `QUEUE_FULL after ${took}; the event was taken all the same; overflowed ${overflowed}`
    },
  },
  {
    clauses: ['S-3.2', 'Q-8.2', 'Q-8.3', 'Q-8.4', 'Q-1.1'],
    title: 'in a group the full device is skipped and the others are served; its gap grows and is acked by its id',
    withinMs: 300_000,
    async run(kit) {
      const [alice, bob, carol] = (await kit.users(3)) as [Device, Device, Device]
      const group = await alice.group([bob, carol])
      const [a, b] = await Promise.all([alice.live(), bob.live()])
      const quota = quotaOf(kit, a)
      const direct = await alice.direct(bob)
      await b.drain()
      await b.close()
      await fill(a, () => signalMessage(direct, [bob.to(1)]), quota + 1)
      const c = await carol.live()
      const skippedBy = async (): Promise<unknown> => {
        const { skipped } = await a.accepted(group, [bob.to(1), carol.to(1)])
        await c.ack((await c.message()).messageId)
        return (skipped ?? []).map((each) => [each.userId, each.deviceId])
      }
      same(await skippedBy(), [[bob.user, bob.deviceId]], 'as skipped')
      const socket = await bob.connect()
      same(socket.hello.queueWaiting, true, 'as queue_waiting')
      const first = (await socket.sync(null, 1)).gap
      same(first?.overflowed, 1, 'as overflowed')
      same(first?.gapId?.length, 16, 'as length of gap_id')
      hold(Math.abs((first?.sinceMs ?? 0) - (socket.hello.serverTimeMs ?? 0)) < 300_000, 'since when', first?.sinceMs)
      const again = (await socket.sync(null, 1)).gap
      same([again?.gapId, again?.overflowed], [first?.gapId, 1], 'on the next page, as gap')
      same(await skippedBy(), [[bob.user, bob.deviceId]], 'as skipped the second time')
      const grown = (await socket.sync(null, 1)).gap
      same(grown?.overflowed, 2, 'as overflowed')
      hold(Buffer.compare(grown!.gapId!, first!.gapId!) !== 0, 'another gap_id', grown)
      await socket.ack(first!.gapId)
      hold((await socket.sync(null, 1)).gap != null, 'the gap still there after an ack of its former id', 'none')
      await socket.ack(grown!.gapId)
      same((await socket.sync(null, 1)).gap ?? null, null, 'after the ack, as gap')
      await socket.drain()
      same(await skippedBy(), [], 'once there is room, as skipped')
      await socket.drain()
      ok(await alice.get('/v1/devices'), 200)
      return `skipped names Bob’s device; gap 1, then 2 under another id; gone when that one was acked`
    },
  },
  {
    clauses: ['Q-8.2'],
    title: 'a full queue takes messages again when a fifth of it is gone',
    withinMs: 300_000,
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      const quota = quotaOf(kit, a)
      await b.close()
      await fill(a, () => signalMessage(conversation, [bob.to(1)]), quota + 1)
      const socket = await bob.connect()
      const page = await socket.sync()
      await socket.ack(page.messages![0]!.messageId)
      const one = kindOf(await a.send(conversation, [bob.to(1)]))
      same(one, 'QUEUE_FULL', 'with one place free, as answer')
      let acked = 1
      for (let more = page; acked < quota / 5 + 1; ) {
        const ids = (more.messages ?? []).map((each) => each.messageId)
        await socket.ack(...ids)
        acked += ids.length
        if (acked < quota / 5 + 1) more = await socket.sync()
      }
      same(
        kindOf(await a.send(conversation, [bob.to(1)])),
        'messageAccepted',
        `with ${acked} of ${quota} places free, as answer`,
      )
      await socket.drain()
      return `refused with 1 place free, accepted with ${acked} of ${quota}`
    },
  },
  {
    clauses: ['Q-8.1'],
    title: 'an envelope that was not acked within the life of the queue is dropped',
    slow: 'takes as long as an envelope lives, 30 days unless the operator chose otherwise',
    async run(kit) {
      const { hello } = await (await kit.user()).connect()
      const days = Math.round((hello.limits?.queueTtlMs ?? 0) / 86_400_000)
      throw new NotRun(`an envelope lives for ${days} days here`)
    },
  },
]
