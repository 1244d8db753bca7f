// Complaints of "I could not read that" are not signed. A relay that makes them up, about messages it carried, gets one more copy of
// each for nobody, and nothing else: no message is lost, shown twice or shown to others, and nobody complains for ever.
import { DecryptionErrorMessage, PlaintextContent } from '@signalapp/libsignal-client'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Device } from '../../client/index.ts'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, quiet, say, shown, texts } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

const { Scope } = sealpost.v1
type Carried = { content: Uint8Array; type: number; sentAtMs: number; senderDeviceId: number }

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

/** Alice and Bob, who know each other, and what the relay carried to Bob. */
async function pair() {
  const [hers, his] = [new Tamper(), new Tamper()]
  const [alice, bob] = [await joined(relay, { transport: hers }), await joined(relay, { transport: his })]
  const conversation = await alice.conversations.direct(bob.userId)
  await say(alice, conversation, 'hello')
  await shown(bob, conversation, 'hello')
  await say(bob, conversation, 'hello yourself')
  await shown(alice, conversation, 'hello yourself')
  const carried: Carried[] = []
  his.frames = (frame) => {
    const { ciphertext, sentAtMs } = frame.envelope ?? {}
    if (ciphertext)
      carried.push({
        ...{ content: Uint8Array.from(ciphertext.content!), type: ciphertext.ciphertextType! },
        ...{ sentAtMs: sentAtMs!, senderDeviceId: ciphertext.senderDeviceId! },
      })
    return [frame]
  }
  return { alice, bob, conversation, hers, his, carried }
}

/** As the relay would forge it: in Bob's name, about a message it has seen. */
function forge(wire: Tamper, bob: Device, conversation: string, about: Carried): void {
  const error = DecryptionErrorMessage.forOriginal(
    ...([Uint8Array.from(about.content), about.type, about.sentAtMs, about.senderDeviceId] as const),
  )
  wire.say({
    envelope: {
      ...{ messageId: uuidToBytes(uuidV7(Date.now())), conversationId: uuidToBytes(conversation) },
      ...{ sentAtMs: Date.now(), sequence: 1_000_000 },
      ciphertext: {
        ...{ senderUserId: uuidToBytes(bob.userId), senderDeviceId: bob.deviceId, messageType: 1, ciphertextType: 8 },
        ...{ clientMessageId: uuidToBytes(uuidV7(Date.now())), content: PlaintextContent.from(error).serialize() },
      },
    },
  })
}

/** Sends for single devices: resends, complaints, heartbeats. */
const subsets = (wire: Tamper) =>
  wire.sent
    .map(({ signalMessage }) => signalMessage)
    .filter((message) => message?.scope === Scope.SCOPE_SUBSET)
    .flatMap((message) => message!.recipients!)

it('forged without end: one more copy of that message to that device, one session at most, nothing shown twice', async () => {
  const { alice, bob, conversation, hers, his, carried } = await pair()
  await say(alice, conversation, 'read at once')
  await shown(bob, conversation, 'read at once')
  const before = { hers: subsets(hers).length, his: subsets(his).length }
  const bundles = () => hers.requests.filter(({ url }) => url.endsWith('/v1/keys/bundles')).length
  const asked = bundles()
  for (let i = 0; i < 12; i++) {
    forge(hers, bob, conversation, carried[0]!)
    await quiet(alice)
  }
  await quiet(bob)
  expect(subsets(hers).length - before.hers).toBe(1)
  expect(bundles() - asked).toBeLessThanOrEqual(1)
  // Bob had read it: nothing new, and nothing to answer but a heartbeat in a session that began anew.
  await say(alice, conversation, 'and on')
  await shown(bob, conversation, 'and on')
  await say(bob, conversation, 'I read all of it')
  await shown(alice, conversation, 'I read all of it')
  await quiet(bob)
  expect(subsets(his).length - before.his).toBeLessThanOrEqual(1)
  const all = ['hello', 'hello yourself', 'read at once', 'and on', 'I read all of it']
  expect(texts(alice, conversation)).toEqual(all)
  expect(texts(bob, conversation)).toEqual(all)
  await Promise.all([alice.close(), bob.close()])
})

it('forged about each of many messages while they are under way: every one is shown once, in order, on both sides', async () => {
  const { alice, bob, conversation, hers, carried } = await pair()
  const said: string[] = []
  for (let i = 0; i < 20; i++) {
    said.push(`message ${i}`)
    await say(alice, conversation, `message ${i}`)
    await shown(bob, conversation, `message ${i}`)
    forge(hers, bob, conversation, carried.at(-1)!)
    bob.send(conversation, { text: `answer ${i}` })
  }
  await shown(alice, conversation, 'answer 19')
  await quiet(alice)
  await quiet(bob)
  expect(texts(bob, conversation).filter((text) => text.startsWith('message'))).toEqual(said)
  expect(texts(alice, conversation).filter((text) => text.startsWith('answer'))).toHaveLength(20)
  await Promise.all([alice.close(), bob.close()])
})

it('about a message of another conversation, another device or nobody, or no complaint at all: nothing is sent', async () => {
  const { alice, bob, conversation, hers, carried } = await pair()
  const carol = await joined(relay)
  const other = await alice.conversations.direct(carol.userId)
  await say(alice, conversation, 'for Bob alone')
  await shown(bob, conversation, 'for Bob alone')
  const [about] = carried
  await quiet(alice)
  const before = subsets(hers).length
  forge(hers, bob, other, about!)
  forge(hers, carol, conversation, about!)
  forge(hers, bob, conversation, { ...about!, senderDeviceId: 2 })
  forge(hers, bob, conversation, { ...about!, sentAtMs: about!.sentAtMs + 1 })
  // A complaint in words no complaint has.
  hers.say({
    envelope: {
      ...{ messageId: uuidToBytes(uuidV7(Date.now())), conversationId: uuidToBytes(conversation), sequence: 1_000_001 },
      ciphertext: {
        ...{ senderUserId: uuidToBytes(bob.userId), senderDeviceId: 1, messageType: 1, ciphertextType: 8 },
        ...{ clientMessageId: uuidToBytes(uuidV7(Date.now())), content: Uint8Array.from({ length: 40 }, (_, i) => i) },
      },
    },
  })
  await quiet(alice)
  expect(subsets(hers)).toHaveLength(before)
  await say(alice, conversation, 'still here')
  await shown(bob, conversation, 'still here')
  expect(texts(carol, other)).toEqual([])
  await Promise.all([alice, bob, carol].map((each) => each.close()))
})

it('by somebody it was withheld from, as no member had added him then: not told now, when he is one', async () => {
  const { alice, bob, hers, carried } = await pair()
  const [carol, mallory] = [await joined(relay), await joined(relay)]
  const group = await alice.conversations.group([bob.userId, carol.userId])
  await say(alice, group, 'before')
  await shown(bob, group, 'before')
  // The relay adds whom it likes.
  const { http } = (alice as unknown as { core: { account: { http: { call(...args: unknown[]): Promise<unknown> } } } })
    .core.account
  await http.call('POST', `/v1/conversations/${group}/members`, { user_ids: [mallory.userId] })
  await say(alice, group, 'not for him')
  await shown(bob, group, 'not for him')
  const about = carried.at(-1)!
  await http.call('DELETE', `/v1/conversations/${group}/members/${mallory.userId}`)
  await alice.conversations.addMembers(group, [mallory.userId])
  await say(alice, group, 'welcome')
  await shown(mallory, group, 'welcome')
  await quiet(alice)
  const before = subsets(hers).length
  forge(hers, mallory, group, about)
  await quiet(alice)
  expect(subsets(hers)).toHaveLength(before)
  await Promise.all([alice, bob, carol, mallory].map((each) => each.close()))
})
