// A relay that never comes to an end, or to an answer: it is left or not asked again, and a right one is used as ever.
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { HttpRequest, SocketEvents, Transport } from '../../client/index.ts'
import { withFallback } from '../../client/index.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, live, quiet, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

const syncs = (wire: Tamper) => wire.sent.filter(({ syncRequest }) => syncRequest).length

it('no answer to a sync: the connection is left after 30 s, the next one is good', async () => {
  const [wire, time] = [new Tamper(), new FakeTime()]
  const alice = device(relay, { transport: wire, time })
  await alice.register()
  wire.passes = ({ syncRequest }) => !syncRequest
  const syncing = until(alice, 'state', ({ name }) => name === 'syncing')
  alice.connect()
  await syncing
  await wire.asked(({ syncRequest }) => !!syncRequest)
  // Answers to its empty acks come meanwhile: the network is well.
  for (let second = 0; second < 29; second++) {
    const heard = second % 2 === 1 ? wire.heard() : null
    time.advance(1000)
    await heard
  }
  expect(alice.state.name).toBe('syncing')
  time.advance(1000)
  expect(alice.state.name).toBe('offline')
  wire.passes = null
  alice.retryNow()
  await live(alice)
  await alice.close()
})

it('empty pages that promise more: the connection is left after three', async () => {
  const wire = new Tamper()
  const alice = device(relay, { transport: wire })
  await alice.register()
  wire.frames = (frame) => {
    if (frame.syncResponse) frame.syncResponse.hasMore = true
    return frame.queueEmpty ? [] : [frame]
  }
  const offline = until(alice, 'state', ({ name }) => name === 'offline')
  alice.connect()
  await offline
  expect(syncs(wire)).toBe(3)
  wire.frames = null
  alice.retryNow()
  await live(alice)
  await alice.close()
})

it('a page of a chain that brings what is known, and promises more: asked for once', async () => {
  const wire = new Tamper()
  const [alice, bob] = [await joined(relay, { transport: wire }), await joined(relay)]
  const id = await alice.conversations.direct(bob.userId)
  await quiet(alice)
  const [link] = JSON.parse(
    (
      await wire.request({
        method: 'GET',
        url: `${relay.url}/v1/conversations/${id}?after_revision=0`,
        headers: wire.requests.findLast(({ headers }) => headers?.Authorization)!.headers!,
      } as HttpRequest)
    ).body,
  ).changes
  wire.requests = []
  let asked = 0
  wire.answers = (request, answer) => {
    if (!request.url.includes(`/v1/conversations/${id}?`)) return answer
    if (++asked > 5) return answer
    return { ...answer, body: JSON.stringify({ ...JSON.parse(answer.body), changes: [link], has_more_changes: true }) }
  }
  await alice.conversations.refresh(id)
  expect(asked).toBe(1)
  await Promise.all([alice.close(), bob.close()])
})

it('WebSockets that open and bring nothing: the second way is taken after two', () => {
  const opened: string[] = []
  const way = (name: string): Transport & { events: SocketEvents | null } => ({
    events: null,
    request: () => Promise.reject(new Error('not asked')),
    open(_url, _token, events) {
      opened.push(name)
      this.events = events
      return { send() {}, close() {} }
    },
  })
  const [first, second] = [way('first'), way('second')]
  const both = withFallback(first, second)
  const closed: number[] = []
  const events = { opened() {}, frame() {}, closed: (code: number) => closed.push(code) }
  for (let attempt = 0; attempt < 2; attempt++) {
    both.open('ws://relay.test', 'token', events)
    first.events!.opened()
    first.events!.closed(1006, '')
  }
  both.open('ws://relay.test', 'token', events)
  expect([opened, closed]).toEqual([
    ['first', 'first', 'second'],
    [1006, 1006],
  ])
})
