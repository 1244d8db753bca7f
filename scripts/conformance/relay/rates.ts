// [S-9.4]: how much one user may send, whatever numbers the operator set.
import { setTimeout as sleep } from 'node:timers/promises'
import { type Check, hold, NotRun, same } from '../check.ts'
import type { Device } from '../device.ts'
import { codeIn, type Frame, kindOf, type ServerFrame, type Socket, signalMessage } from '../socket.ts'
import type { Kit } from '../world.ts'

/** A relay that takes as many in one go does not limit. */
const MANY = 600
/** Refusals that close a connection, and enough more for the ones earned meanwhile. [S-9.4] */
const FREE = 1000
/** Fewer than the requests that one connection may have under way. [S-9.5] */
const LOT = 400

/** Each refusal is asked of the relay's database: a thousand of them take their time on a busy machine, milliseconds. [S-2.1] */
const WITHIN_MS = 150_000
/** Who gets them in turn: no queue is to be full before its sender has sent too much. */
const PEERS = 3

type Sent = { body: { signalMessage: ReturnType<typeof signalMessage> }; answer: ServerFrame }

/** Sends so many in one go and waits for the answers; what is refused stays refused. */
async function burst(socket: Socket, make: () => ReturnType<typeof signalMessage>, count: number): Promise<Sent[]> {
  const bodies = Array.from({ length: count }, () => ({ signalMessage: make() }))
  const requests = bodies.map((body) => socket.write(body))
  const sent: Sent[] = []
  for (const [at, request] of requests.entries())
    sent.push({ body: bodies[at]!, answer: await socket.take((each) => each.requestId === request, 'an answer') })
  return sent
}

/** Somebody nobody has used, live, with friends; and the next message to one of them. */
async function talkative(kit: Kit): Promise<{ alice: Device; a: Socket; make(): ReturnType<typeof signalMessage> }> {
  const [alice, peers] = [await kit.fresh(), await kit.users(PEERS)]
  const bodies: (() => ReturnType<typeof signalMessage>)[] = []
  for (const peer of peers) {
    const conversation = await alice.direct(peer)
    bodies.push(() => signalMessage(conversation, [peer.to(1)]))
  }
  let next = 0
  return { alice, a: await alice.live(), make: () => bodies[next++ % PEERS]!() }
}

/** Waits at least so long: a timer may go off a little early, and a relay does not round in one's favour. */
async function waited(ms: number): Promise<void> {
  const until = performance.now() + ms
  for (let left = ms; left > 0; left = until - performance.now()) await sleep(left)
}

const accepted = (frame: ServerFrame): Frame<'messageAccepted'> => {
  hold(frame.messageAccepted, 'MessageAccepted', kindOf(frame))
  return frame.messageAccepted
}

export const rateChecks: Check<Kit>[] = [
  {
    clauses: ['S-9.4'],
    withinMs: WITHIN_MS,
    title: 'who sends too much is RATE_LIMITED for exactly as long as it says; repeats and acks are not',
    async run(kit) {
      const { a, make } = await talkative(kit)
      const sent = await burst(a, make, MANY)
      const over = sent.filter(({ answer }) => codeIn(answer) === 'RATE_LIMITED')
      if (over.length === 0) throw new NotRun(`${MANY} messages in one go were taken: nothing is limited here`)
      const took = sent.filter(({ answer }) => answer.messageAccepted)
      same(took.length + over.length, MANY, 'as accepted and RATE_LIMITED')
      const again = accepted(await a.ask(took[0]!.body))
      same(
        [again.duplicate, again.messageId],
        [true, took[0]!.answer.messageAccepted!.messageId],
        'for a repeat while nothing is left',
      )
      await a.fence()
      // One behind which no other was: its time is exact.
      let last: Sent | undefined
      for (let tries = 0; tries < 10 && !last?.answer.error; tries++) last = (await burst(a, make, 30)).at(-1)
      same(last && codeIn(last.answer), 'RATE_LIMITED', 'for the last of 30 in one go')
      const waitMs = last?.answer.error?.retryAfterMs ?? 0
      await waited(waitMs)
      const { duplicate } = accepted((await burst(a, () => last!.body.signalMessage, 1))[0]!.answer)
      same(duplicate ?? false, false, 'for the refused one under its own id, as duplicate')
      return `${took.length} of ${MANY} taken; a repeat and an ack too; after ${waitMs} ms the refused one`
    },
  },
  {
    clauses: ['S-9.4', 'C-8'],
    withinMs: WITHIN_MS,
    title: 'who goes on although it is refused is closed with 4429, and may come back',
    async run(kit) {
      const { alice, a, make } = await talkative(kit)
      let refused = 0
      for (let lots = 0; lots < 12 && !a.closed; lots++) {
        const answers = await burst(a, make, LOT).catch(() => [])
        const over = answers.filter(({ answer }) => codeIn(answer) === 'RATE_LIMITED').length
        if (lots === 0 && over === 0) throw new NotRun(`${LOT} messages in one go were taken: nothing is limited here`)
        refused += over
      }
      same(await a.end(), 4429, `after more than ${FREE} refusals, as close code`)
      const back = await alice.connect()
      await back.fence()
      return `4429 after ${refused} refusals were answered and some more; it is no ban`
    },
  },
]
