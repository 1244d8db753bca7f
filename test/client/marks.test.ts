// What was seen is remembered for as long as it may come again, and no longer; what cannot be decided about has a limit.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Held, hold } from '../../client/incoming.ts'
import { MemoryStorage } from '../../client/index.ts'
import { changeMessage } from '../../client/messages.ts'
import { enqueue, expireFailed, OUTBOX_MAX, OUTBOX_MAX_AGE_MS, rowOf, setAside } from '../../client/outbox.ts'
import { isSeen, noteMessage, noteSeen, pruneSeen } from '../../client/seen.ts'
import type { sealpost } from '../../proto/generated/relay.js'
import { uuidV7 } from '../../proto/ids.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, live, quiet, say, shown, texts } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

const DAY_MS = 24 * 3_600_000

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

it('a relay whose clock is months ahead makes nothing be read twice', async () => {
  const wire = new Tamper()
  const [alice, bob] = [await joined(relay), await joined(relay, { transport: wire })]
  const conversation = await alice.conversations.direct(bob.userId)
  let first: sealpost.v1.ServerFrame | undefined
  wire.frames = (frame) => {
    if (frame.envelope?.ciphertext) first ??= frame
    if (frame.hello) frame.hello.serverTimeMs = Date.now() + 61 * DAY_MS
    return [frame]
  }
  await say(alice, conversation, 'once')
  await shown(bob, conversation, 'once')
  bob.disconnect()
  await live(bob)
  wire.say(first!)
  await quiet(bob)
  expect([texts(bob, conversation), bob.undecryptable(), bob.quarantined()]).toEqual([['once'], [], []])
  await Promise.all([alice.close(), bob.close()])
})

it('a message that came in the envelope of another is forgotten with it', () => {
  const storage = new MemoryStorage()
  const sender = { userId: '11111111-0000-4000-8000-000000000000', deviceId: 1 }
  const [messageId, ...ids] = [uuidV7(1000), uuidV7(1001), uuidV7(1002)] as [string, string, string]
  const seen = () =>
    storage.transaction((tx) =>
      ids.map((clientMessageId) => isSeen(tx, { messageId: uuidV7(2000), sender, clientMessageId })),
    )
  storage.transaction((tx) => {
    noteSeen(tx, { messageId, sender, clientMessageId: ids[0]! }, 1000)
    noteMessage(tx, messageId, sender, ids[1]!)
    pruneSeen(tx, 1000 + 60 * DAY_MS)
  })
  expect(seen()).toEqual([true, true])
  storage.transaction((tx) => pruneSeen(tx, 1001 + 60 * DAY_MS))
  expect(seen()).toEqual([false, false])
})

it('of a conversation whose members stay unknown, 200 messages wait; the oldest are handed back, none is dropped', () => {
  const storage = new MemoryStorage()
  const row = (conversationId: string, n: number): Held => ({
    incoming: {
      ...{ conversationId, messageId: uuidV7(n), clientMessageId: uuidV7(n), sentAtMs: n, type: 2, withheld: 0 },
      sender: { userId: '11111111-0000-4000-8000-000000000000', deviceId: 1 },
    },
    ...{ body: { text: String(n) }, sentAtMs: n, rosterHash: new Uint8Array(32), resendOf: '', username: '' },
  })
  const put = (conversationId: string, n: number) =>
    storage.transaction((tx) => hold(tx, row(conversationId, n))).map(({ body }) => body.text)
  const [one, other] = ['aaaaaaaa', 'bbbbbbbb'].map((head) => `${head}-0000-4000-8000-000000000000`) as [string, string]
  const handed = Array.from({ length: 205 }, (_, n) => put(one, n)).flat()
  expect(handed).toEqual(['0', '1', '2', '3', '4'])
  expect(put(other, 0)).toEqual([])
})

it('messages that failed leave room for others, can be repeated for 6 days, and then only be seen', async () => {
  const storage = new MemoryStorage()
  const [alice, bob] = [await joined(relay, { storage }), await joined(relay)]
  const conversation = await alice.conversations.direct(bob.userId)
  await quiet(alice)
  alice.disconnect()
  const failed = alice.send(conversation, { text: 'failed' })
  const row = (id: string) => storage.transaction((tx) => rowOf(tx, id))!
  const at = row(failed.id)
  storage.transaction((tx) => {
    setAside(tx, at, 'unanswered')
    changeMessage(tx, { ...failed }, { state: 'failed', failure: 'unanswered' })
    for (let n = 0; n < OUTBOX_MAX; n++) {
      const { kind, queuedAtMs, to, body, resendOf } = at
      const another = { kind, conversationId: conversation, queuedAtMs, to, body, resendOf, clientMessageId: uuidV7(n) }
      setAside(tx, enqueue(tx, another), 'unanswered')
    }
  })
  const next = alice.send(conversation, { text: 'next' })
  expect(next.state).toBe('sending')
  storage.transaction((tx) => expireFailed(tx, at.queuedAtMs + OUTBOX_MAX_AGE_MS))
  expect(row(failed.id).failure).toBe('unanswered')
  storage.transaction((tx) => expireFailed(tx, at.queuedAtMs + OUTBOX_MAX_AGE_MS + 1))
  expect(row(failed.id)).toBeNull()
  expect(() => alice.retry(failed.id)).toThrow('too old')
  expect(alice.messages(conversation).map(({ message }) => message.state)).toEqual(['failed', 'sending'])
  await Promise.all([alice.close(), bob.close()])
})
