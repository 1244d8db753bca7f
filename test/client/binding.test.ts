// A relay that lies about what it carries: moved, retimed, renamed, doubled, reordered or damaged messages.
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Device } from '../../client/index.ts'
import type { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, quiet, say, shown, texts, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

type Frame = sealpost.v1.ServerFrame
let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

async function pair(): Promise<{ alice: Device; bob: Device; conversation: string; wire: Tamper }> {
  const wire = new Tamper()
  const [alice, bob] = [await joined(relay), await joined(relay, { transport: wire })]
  const conversation = await alice.conversations.direct(bob.userId)
  await say(alice, conversation, 'hello')
  await shown(bob, conversation, 'hello')
  await quiet(bob)
  return { alice, bob, conversation, wire }
}

/** Changes the next ciphertext that comes, once. */
function lieOnce(wire: Tamper, lie: (envelope: NonNullable<Frame['envelope']>) => void): void {
  wire.frames = (frame) => {
    if (frame.envelope?.ciphertext) {
      lie(frame.envelope)
      wire.frames = null
    }
    return [frame]
  }
}

it.each([
  {
    lie: 'another message id of the sender',
    change: (e: NonNullable<Frame['envelope']>) => {
      e.ciphertext!.clientMessageId = uuidToBytes(uuidV7(1))
    },
  },
  {
    lie: 'a time before it was written',
    change: (e: NonNullable<Frame['envelope']>) => {
      e.sentAtMs = e.sentAtMs! - 3_600_000
    },
  },
])('$lie is caught, and the next message is read', async ({ change }) => {
  const { alice, bob, conversation, wire } = await pair()
  lieOnce(wire, change)
  const caught = until(bob, 'quarantined')
  await say(alice, conversation, 'carried wrongly')
  const told = await caught
  expect(told).toMatchObject({ userId: alice.userId })
  // Who was not listening finds it on the shelf, and what it said.
  expect(bob.quarantined()).toEqual([
    { ...told, deviceId: 1, sentAtMs: expect.any(Number), body: { text: 'carried wrongly' } },
  ])
  await say(alice, conversation, 'carried rightly')
  await shown(bob, conversation, 'carried rightly')
  expect(texts(bob, conversation)).toEqual(['hello', 'carried rightly'])
  await Promise.all([alice.close(), bob.close()])
})

it('a ciphertext moved to another conversation is caught', async () => {
  const { alice, bob, conversation, wire } = await pair()
  const carol = await joined(relay)
  const group = await alice.conversations.group([bob.userId, carol.userId])
  await say(alice, group, 'in the group')
  await shown(bob, group, 'in the group')
  lieOnce(wire, (envelope) => {
    envelope.conversationId = uuidToBytes(group)
  })
  const caught = until(bob, 'quarantined')
  await say(alice, conversation, 'for you alone')
  await caught
  expect(texts(bob, group)).toEqual(['in the group'])
  expect(texts(bob, conversation)).toEqual(['hello'])
  await Promise.all([alice, bob, carol].map((each) => each.close()))
})

it('reply and time are the sender’s word: what the relay says of them is not shown', async () => {
  const { alice, bob, conversation, wire } = await pair()
  lieOnce(wire, (envelope) => {
    envelope.ciphertext!.replyToMessageId = uuidToBytes(uuidV7(2))
    envelope.sentAtMs = envelope.sentAtMs! + 3_600_000
  })
  const sent = await say(alice, conversation, 'said by me')
  const read = await shown(bob, conversation, 'said by me')
  expect(read.body.replyTo).toBeUndefined()
  expect(read.sentAtMs).toBe(sent.sentAtMs)
  await Promise.all([alice.close(), bob.close()])
})

it('a ciphertext under another sender’s name cannot be read', async () => {
  const { alice, bob, conversation, wire } = await pair()
  const carol = await joined(relay)
  lieOnce(wire, (envelope) => {
    envelope.ciphertext!.senderUserId = uuidToBytes(carol.userId)
  })
  const told = until(bob, 'undecryptable')
  await say(alice, conversation, 'by alice')
  const { messageId } = await told
  expect(texts(bob, conversation)).toEqual(['hello'])
  expect(bob.undecryptable()).toMatchObject([{ messageId, userId: carol.userId, reason: 'unreadable', body: null }])
  await Promise.all([alice, bob, carol].map((each) => each.close()))
})

it('a change of members that the relay keeps to itself is noticed: what is written to the others is not shown [P-3.3]', async () => {
  const wire = new Tamper()
  const [alice, bob, carol] = [await joined(relay), await joined(relay, { transport: wire }), await joined(relay)]
  const eve = await joined(relay)
  const group = await alice.conversations.group([bob.userId, carol.userId])
  await say(alice, group, 'the three of us')
  await shown(bob, group, 'the three of us')
  await quiet(bob)
  // Alice lets Eve in; Bob is told nothing of it, neither in his queue nor when he asks.
  wire.frames = (frame) => (frame.envelope?.systemEvent?.conversationChanged ? [] : [frame])
  wire.answers = (request, answer) => {
    if (request.method !== 'GET' || !request.url.includes(`/v1/conversations/${group}`)) return answer
    const body = JSON.parse(answer.body)
    const changes = body.changes.filter(({ revision }: { revision: number }) => revision < 2)
    return { ...answer, body: JSON.stringify({ ...body, revision: 1, changes }) }
  }
  await alice.conversations.addMembers(group, [eve.userId])
  const caught = until(bob, 'quarantined')
  await say(alice, group, 'the four of us')
  expect(await caught).toMatchObject({ conversationId: group, userId: alice.userId })
  for (const each of [carol, eve]) await shown(each, group, 'the four of us')
  expect(texts(bob, group)).toEqual(['the three of us'])
  expect(bob.quarantined()).toMatchObject([
    { reason: 'its sender sees other members than we do', body: { text: 'the four of us' } },
  ])
  expect(bob.undecryptable()).toEqual([])
  await Promise.all([alice, bob, carol, eve].map((each) => each.close()))
})

it('doubled and reordered envelopes: everything once', async () => {
  const { alice, bob, conversation, wire } = await pair()
  let kept: Frame | null = null
  wire.frames = (frame) => {
    if (!frame.envelope?.ciphertext) return [frame]
    if (!kept) {
      kept = frame
      return []
    }
    return [frame, kept, frame, kept]
  }
  await say(alice, conversation, 'first')
  await say(alice, conversation, 'second')
  await shown(bob, conversation, 'first')
  await quiet(bob)
  expect(texts(bob, conversation).sort()).toEqual(['first', 'hello', 'second'])
  wire.frames = null
  await say(bob, conversation, 'and back')
  await shown(alice, conversation, 'and back')
  await Promise.all([alice.close(), bob.close()])
})

it('a damaged message is asked for again, and shown once', async () => {
  const { alice, bob, conversation, wire } = await pair()
  await say(bob, conversation, 'we both spoke')
  await shown(alice, conversation, 'we both spoke')
  lieOnce(wire, (envelope) => {
    const content = Uint8Array.from(envelope.ciphertext!.content!)
    content[content.length - 20]! ^= 1
    envelope.ciphertext!.content = content
  })
  const told = until(bob, 'undecryptable')
  await say(alice, conversation, 'damaged on the way')
  await told
  await shown(bob, conversation, 'damaged on the way')
  await say(alice, conversation, 'the session goes on')
  await shown(bob, conversation, 'the session goes on')
  expect(texts(bob, conversation).filter((text) => text === 'damaged on the way')).toHaveLength(1)
  await Promise.all([alice.close(), bob.close()])
})

it('a conversation that is not the one that was asked for is not given to the app: its messages would go to others', async () => {
  const wire = new Tamper()
  const [alice, bob, carol] = [await joined(relay, { transport: wire }), await joined(relay), await joined(relay)]
  const [toCarol, group] = [
    await alice.conversations.direct(carol.userId),
    await alice.conversations.group([bob.userId, carol.userId]),
  ]
  const asks = [
    { instead: toCarol, ask: () => alice.conversations.direct(bob.userId) },
    { instead: group, ask: () => alice.conversations.group([bob.userId, carol.userId]) },
  ]
  for (const { instead, ask } of asks) {
    wire.answers = ({ method, url }, answer) =>
      method === 'POST' && url.endsWith('/v1/conversations')
        ? { ...answer, body: JSON.stringify({ ...JSON.parse(answer.body), conversation_id: instead }) }
        : answer
    const told = until(alice, 'problem', ({ what }) => what === 'chain')
    await expect(ask()).rejects.toMatchObject({ code: 'INTERNAL' })
    await told
    wire.answers = null
  }
  expect(await alice.conversations.direct(carol.userId)).toBe(toCarol)
  await Promise.all([alice, bob, carol].map((each) => each.close()))
})
