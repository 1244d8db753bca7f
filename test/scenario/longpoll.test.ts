// A device without a socket: it asks for its queue, and waits for what comes. The rules are the socket's. [C-9]
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidFromBytes, uuidV7 } from '../../proto/ids.ts'
import { PAGE_MAX_BYTES } from '../../proto/limits.ts'
import { commitUnannounced, numberOf } from '../support/backlog.ts'
import { idOf, type ServerFrame, type Socket } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import {
  envelopesIn,
  kinds,
  numbered,
  type Polled,
  poll,
  postAck,
  postMessage,
  waitingPoll,
} from '../support/http-frames.ts'
import { pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { request } from '../support/request.ts'
import { pass, receipt, told, typing, unasked, watch } from '../support/signals.ts'

const { ErrorCode } = sealpost.v1
const time = new FakeTime()
let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay({ time })
})
afterAll(() => relay?.close())

const numbers = (frames: ServerFrame[]): number[] =>
  envelopesIn(frames).map((each) => numberOf(each.ciphertext?.content))
const idsIn = (frames: ServerFrame[]): Uint8Array[] => envelopesIn(frames).map((each) => each.messageId!)
const codeOf = ({ frames }: Polled): string => ErrorCode[frames.at(-1)?.error?.code ?? 0]!.replace('ERROR_CODE_', '')
const QUIET = ['hello', 'syncResponse', 'queueEmpty']

const connections = async (): Promise<number> => {
  const { body } = await request(relay.url, 'GET', '/metrics')
  return Number(/^sealpost_connections (\d+)/m.exec(body as string)![1])
}

describe('asking without waiting [C-9.7]', () => {
  it('Hello, the page, QueueEmpty; what is not acked comes again, what is does not (I3)', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const first = await postMessage(alice, conversation, [bob.to(numbered(0))])
    await postMessage(alice, conversation, [bob.to(numbered(1))])
    const { status, headers, frames } = await poll(bob)
    expect([status, headers.get('content-type'), headers.get('cache-control')]).toEqual([
      200,
      'application/x-protobuf',
      'no-store',
    ])
    expect(kinds(frames)).toEqual(QUIET)
    expect(idOf(frames[0]!.hello!.userId)).toBe(bob.userId)
    expect(frames[0]!.hello!.queueWaiting).toBe(true)
    expect(numbers(frames)).toEqual([0, 1])
    expect(numbers((await poll(bob)).frames)).toEqual([0, 1])
    await postAck(bob, first)
    expect(numbers((await poll(bob)).frames)).toEqual([1])
  })

  it('pages: QueueEmpty with the last; a cursor that is unknown is the start [Q-3.1]', async () => {
    const { alice, bob, conversation } = await pair(relay)
    await commitUnannounced(relay.db.database.sql, { from: alice, to: bob, conversation, count: 250, bytes: 64 })
    const seen: number[] = []
    for (let cursor = '', more = true; more; ) {
      const { frames } = await poll(bob, `last_message_id=${cursor}`)
      seen.push(...numbers(frames))
      more = frames[1]!.syncResponse!.hasMore!
      expect(kinds(frames)).toEqual(more ? QUIET.slice(0, 2) : QUIET)
      cursor = uuidFromBytes(idsIn(frames).at(-1)!)
    }
    expect(seen).toEqual(Array.from({ length: 250 }, (_, i) => i))
    const { frames } = await poll(bob, `limit=3&last_message_id=${uuidV7(Date.now())}`)
    expect(numbers(frames)).toEqual([0, 1, 2])
  })

  it('a page has at most 1 MiB', async () => {
    const { alice, bob, conversation } = await pair(relay)
    await commitUnannounced(relay.db.database.sql, { from: alice, to: bob, conversation, count: 30, bytes: 90_000 })
    const { frames } = await poll(bob)
    expect(frames[1]!.syncResponse!.hasMore).toBe(true)
    const bytes = envelopesIn(frames).reduce((sum, each) => sum + each.ciphertext!.content!.length, 0)
    expect(bytes).toBeLessThanOrEqual(PAGE_MAX_BYTES)
    expect(bytes).toBeGreaterThan(PAGE_MAX_BYTES - 100_000)
  })

  it('bad numbers and ids are INVALID_REQUEST, and displace nobody', async () => {
    const { bob } = await pair(relay)
    const socket = await bob.live()
    const wrong = ['limit=0', 'limit=101', 'limit=-1', 'limit=x', 'limit=1e1', 'limit=', 'wait_seconds=61']
    for (const query of [...wrong, 'wait_seconds=-1', 'wait_seconds=0.5', 'wait_seconds=60&last_message_id=x']) {
      const answer = await poll(bob, query)
      expect([query, answer.status, codeOf(answer)]).toEqual([query, 400, 'INVALID_REQUEST'])
    }
    await socket.fence()
    await socket.close()
  })
})

describe('waiting [C-9.8]', () => {
  it('ends with what comes', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const { answer } = await waitingPoll(relay, bob)
    const id = await postMessage(alice, conversation, [bob.to(numbered(7))])
    const { frames } = await answer
    expect(kinds(frames)).toEqual([...QUIET, 'envelope'])
    expect(idsIn(frames)).toEqual([id])
    // It was not acked: it is in the next page, and nobody waits. Behind the cursor somebody does.
    expect(numbers((await poll(bob, 'wait_seconds=60')).frames)).toEqual([7])
    const later = await waitingPoll(relay, bob, `&last_message_id=${idOf(id)}`)
    await postMessage(alice, conversation, [bob.to(numbered(8))])
    expect(numbers((await later.answer).frames)).toEqual([8])
  })

  it('ends with its time, and not before', async () => {
    const { bob } = await pair(relay)
    const { answer } = await waitingPoll(relay, bob)
    await until(async () => (await connections()) >= 1)
    let isOver = false
    answer.then(() => {
      isOver = true
    })
    for (let i = 0; i < 20; i++) await connections()
    time.advance(59_999)
    for (let i = 0; i < 20; i++) await connections()
    expect(isOver).toBe(false)
    time.advance(1)
    expect(kinds((await answer).frames)).toEqual(QUIET)
    time.advance(3_000)
    await until(async () => (await connections()) === 0)
  })

  it('ends with any frame that comes by itself', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const writing = await waitingPoll(relay, bob)
    const from = await alice.live()
    from.write(typing(conversation))
    expect(kinds((await writing.answer).frames)).toEqual([...QUIET, 'typing'])
    const second = await bob.link()
    // The page with the news of it.
    await poll(bob).then(({ frames }) => postAck(bob, ...idsIn(frames)))
    const own = await waitingPoll(relay, bob)
    const id = await postMessage(alice, conversation, [bob.to(), second.to()])
    await own.answer
    await postAck(bob, id)
    const reading = await waitingPoll(relay, bob)
    const socket = await second.connect()
    await socket.ask(receipt(conversation, id))
    expect(kinds((await reading.answer).frames)).toEqual([...QUIET, 'statusUpdate'])
    await Promise.all([from.close(), socket.close()])
  })

  it('signals between two requests come with the next, and for others the user stays online; after 3 s it is over', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const from = await alice.live()
    // Bob has been seen, and goes.
    time.advance(10_000)
    expect(await watch(from, bob)).toEqual({ [bob.userId]: false })
    const first = await waitingPoll(relay, bob)
    expect(await newsFor(from)).toEqual({ [bob.userId]: true })
    const id = await postMessage(alice, conversation, [bob.to()])
    await first.answer
    await postAck(bob, id)
    from.write(typing(conversation))
    await from.fence()
    expect(kinds((await poll(bob, 'wait_seconds=60')).frames)).toEqual([
      'hello',
      'typing',
      'syncResponse',
      'queueEmpty',
    ])
    await pass(time, 2_900)
    expect(await unasked(from, 'presence')).toEqual([])
    expect(await newsFor(from)).toEqual({ [bob.userId]: false })
    await from.close()
  })

  it('a gap that waits is told at once', async () => {
    const { bob, bobKey } = await pair(relay)
    await relay.db.database.sql`insert into gaps (device_key, gap_id, overflowed, expired, since)
      values (${bobKey}, gen_random_uuid(), 3, 0, now())`
    const { frames } = await poll(bob, 'wait_seconds=60')
    const { gap } = frames[1]!.syncResponse!
    expect(gap!.overflowed).toBe(3)
    await postAck(bob, gap!.gapId)
    expect((await poll(bob)).frames[1]!.syncResponse!.gap).toBe(null)
  })

  it('a client that hangs up ends it; what came for it comes again', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const before = await connections()
    const hangUp = new AbortController()
    const { answer } = await waitingPoll(relay, bob, '', hangUp.signal)
    await until(async () => (await connections()) === before + 1)
    hangUp.abort()
    await expect(answer).rejects.toThrow()
    await until(async () => (await connections()) === before)
    await postMessage(alice, conversation, [bob.to(numbered(3))])
    expect(numbers((await poll(bob)).frames)).toEqual([3])
  })
})

/** What a watcher is told next, while time goes on. */
async function newsFor(socket: Socket): Promise<Record<string, boolean>> {
  while ((await unasked(socket, 'presence')).length === 0) await pass(time, 250)
  return told(socket)
}

const until = async (holds: () => Promise<boolean>): Promise<void> => {
  while (!(await holds()));
}

describe('one consumer per device (I6) [C-9.9]', () => {
  it('a poll that waits displaces a socket, one that only reads does not', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const socket = await bob.live()
    expect((await poll(bob)).status).toBe(200)
    await socket.fence()
    const { answer } = await waitingPoll(relay, bob)
    expect(await socket.end()).toBe(4409)
    await postMessage(alice, conversation, [bob.to(numbered(1))])
    expect(numbers((await answer).frames)).toEqual([1])
    expect(socket.envelopes()).toEqual([])
  })

  it('a socket, or a newer poll, displaces a poll: CONFLICT, and it brings nothing', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const first = await waitingPoll(relay, bob)
    const second = await waitingPoll(relay, bob)
    const displaced = await first.answer
    expect([displaced.status, codeOf(displaced), displaced.frames.length]).toEqual([409, 'CONFLICT', 1])
    const socket = await bob.live()
    expect([(await second.answer).status, codeOf(await second.answer)]).toEqual([409, 'CONFLICT'])
    await postMessage(alice, conversation, [bob.to(numbered(2))])
    expect(numberOf((await socket.next('envelope')).ciphertext?.content)).toBe(2)
    await socket.close()
  })

  it('many at once, sockets and polls: one is left, and it gets what comes', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const polls: Promise<Polled>[] = []
    const sockets: Promise<Socket | null>[] = []
    let ended = 0
    for (let i = 0; i < 10; i++) {
      const asked = poll(bob, 'wait_seconds=60')
      asked.then(() => ended++)
      polls.push(asked)
      const connecting = bob.connect().catch(() => null)
      connecting.then((socket) => (socket ? socket.end() : null)).then(() => ended++)
      sockets.push(connecting)
    }
    const open = await Promise.all(sockets)
    await until(async () => (await connections()) >= 0 && ended === 19)
    await postMessage(alice, conversation, [bob.to(numbered(9))])
    const live = open.filter((each) => each && !each.closed)
    await live[0]?.sync()
    await live[0]?.close()
    const answers = await Promise.all(polls)
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1 - live.length)
    for (const each of answers)
      expect(each.status === 200 ? numbers(each.frames) : codeOf(each)).toEqual(each.status === 200 ? [9] : 'CONFLICT')
  })

  it('order is kept when a device goes from one to the other and back, on both sides', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const seen: number[] = []
    const to = (n: number) => [bob.to(numbered(n))]
    let next = 0
    for (let round = 0; round < 6; round++) {
      const out = await alice.live()
      for (let i = 0; i < 5; i++) await out.send(conversation, to(next++))
      await out.close()
      for (let i = 0; i < 5; i++) await postMessage(alice, conversation, to(next++))
      if (round % 2 === 0) {
        const { frames } = await poll(bob, 'wait_seconds=60')
        seen.push(...numbers(frames))
        await postAck(bob, ...idsIn(frames))
      } else {
        const socket = await bob.connect()
        seen.push(...(await socket.drain()).map((each) => numberOf(each.ciphertext?.content)))
        await socket.close()
      }
    }
    expect(seen).toEqual(Array.from({ length: next }, (_, i) => i))
  })
})

describe('the end of a device and of its token [C-9.9]', () => {
  it('unlinked while it waits: UNAUTHENTICATED, and so ever after', async () => {
    const { bob } = await pair(relay)
    const second = await bob.link()
    // The page with the news of its own linking.
    await poll(second).then(({ frames }) => postAck(second, ...idsIn(frames)))
    const { answer } = await waitingPoll(relay, second)
    await bob.delete(`/v1/devices/${second.deviceId}`)
    const ended = await answer
    expect([ended.status, codeOf(ended)]).toEqual([401, 'UNAUTHENTICATED'])
    expect((await poll(second)).status).toBe(401)
  })

  it('a poll ends with its token; the next needs another one', async () => {
    const { bob } = await pair(relay)
    time.advance(3_600_000 - 20_000)
    const { answer } = await waitingPoll(relay, bob)
    for (let i = 0; i < 20; i++) await connections()
    time.advance(21_000)
    expect((await answer).status).toBe(200)
    const late = await poll(bob, 'wait_seconds=60')
    expect([late.status, codeOf(late)]).toEqual([401, 'UNAUTHENTICATED'])
    await bob.refresh()
    expect((await poll(bob)).status).toBe(200)
  })
})

it('polls that wait are connections: past the limit OVERLOADED, for sockets too; reading alone is not', async () => {
  const small = await testRelay({ config: { maxConnections: 1 } })
  try {
    const { alice, bob } = await pair(small)
    const hangUp = new AbortController()
    const { answer } = await waitingPoll(small, bob, '', hangUp.signal)
    const refused = await poll(alice, 'wait_seconds=60')
    expect([refused.status, codeOf(refused)]).toEqual([503, 'OVERLOADED'])
    expect(refused.headers.get('retry-after')).toBe('1')
    await expect(alice.connect()).rejects.toThrow('503')
    expect((await poll(alice)).status).toBe(200)
    hangUp.abort()
    await expect(answer).rejects.toThrow()
  } finally {
    await small.close()
  }
})

it('a relay that goes away sends polls home with a time to come back, and takes none any more [C-8]', async () => {
  const other = await testRelay()
  const { alice, bob, conversation } = await pair(other)
  const { answer } = await waitingPoll(other, bob)
  const closing = other.close()
  const { status, headers, frames } = await answer
  expect([status, headers.get('retry-after'), kinds(frames)]).toEqual([503, '1', ['goingAway', 'error']])
  expect(frames[1]!.error!.code).toBe(ErrorCode.ERROR_CODE_UNAVAILABLE)
  await postMessage(alice, conversation, [bob.to()]).then(
    () => expect.unreachable(),
    () => {},
  )
  await closing
})
