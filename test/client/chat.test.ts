// Two and more SDK devices that talk through a real relay, with either storage.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MemoryStorage } from '../../client/index.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, directory, joined, linked, live, say, shown, texts } from '../support/sdk.ts'

let relay: TestRelay
const files = directory()
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(async () => {
  await relay.close()
  files.end()
})

let made = 0
describe.each([
  { name: 'memory', storage: () => new MemoryStorage() },
  { name: 'SQLite', storage: () => files.sqlite(`chat-${++made}.db`) },
])('with $name', ({ storage }) => {
  it('two people talk, in both directions, and compare one safety number', async () => {
    const [alice, bob] = [await joined(relay, { storage: storage() }), await joined(relay, { storage: storage() })]
    const conversation = await alice.conversations.direct(bob.userId)
    const hello = await say(alice, conversation, 'hello')
    expect(hello).toMatchObject({ state: 'sent', senderUserId: alice.userId })
    const read = await shown(bob, conversation, 'hello')
    expect(read).toMatchObject({ state: 'received', messageId: hello.messageId, senderUserId: alice.userId })
    await say(bob, conversation, 'hello yourself')
    await shown(alice, conversation, 'hello yourself')
    for (let i = 0; i < 5; i++) alice.send(conversation, { text: `m${i}` })
    await shown(bob, conversation, 'm4')
    expect(texts(bob, conversation)).toEqual(['hello', 'hello yourself', 'm0', 'm1', 'm2', 'm3', 'm4'])
    expect(alice.safetyNumber(bob.userId)).toMatch(/^\d{60}$/)
    expect(bob.safetyNumber(alice.userId)).toBe(alice.safetyNumber(bob.userId))
    await Promise.all([alice.close(), bob.close()])
  })

  it('what is written offline is sent later, once, and what came while away is read in order', async () => {
    const [alice, bob] = [await joined(relay, { storage: storage() }), await joined(relay, { storage: storage() })]
    const conversation = await alice.conversations.direct(bob.userId)
    await say(alice, conversation, 'first')
    await shown(bob, conversation, 'first')
    bob.disconnect()
    for (const text of ['a', 'b', 'c']) await say(alice, conversation, text)
    const waiting = bob.send(conversation, { text: 'written offline' })
    expect(waiting.state).toBe('sending')
    await live(bob)
    await shown(alice, conversation, 'written offline')
    expect(texts(bob, conversation)).toEqual(['first', 'written offline', 'a', 'b', 'c'])
    expect(texts(alice, conversation)).toEqual(['first', 'a', 'b', 'c', 'written offline'])
    await Promise.all([alice.close(), bob.close()])
  })

  it('a group with several devices each: everybody reads everything, own devices included', async () => {
    const [alice, bob, carol] = [
      await joined(relay, { storage: storage() }),
      await joined(relay, { storage: storage() }),
      await joined(relay, { storage: storage() }),
    ]
    const laptop = await linked(alice, relay, { storage: storage() })
    const group = await alice.conversations.group([bob.userId, carol.userId])
    await say(alice, group, 'from alice')
    for (const each of [bob, carol, laptop]) await shown(each, group, 'from alice')
    await say(laptop, group, 'from the laptop')
    for (const each of [alice, bob, carol]) await shown(each, group, 'from the laptop')
    await say(carol, group, 'from carol')
    for (const each of [alice, bob, laptop]) await shown(each, group, 'from carol')
    expect(bob.conversations.get(group)).toMatchObject({ kind: 'group', ghosts: [], unsignedRevisions: [] })
    expect(bob.conversations.get(group)!.members).toHaveLength(3)
    await Promise.all([alice, bob, carol, laptop].map((each) => each.close()))
  })
})

it('a device that was closed is the same one when its file is opened again', async () => {
  const bob = await joined(relay)
  const first = await joined(relay, { storage: files.sqlite('again.db') })
  const conversation = await first.conversations.direct(bob.userId)
  await say(first, conversation, 'before')
  await first.close()
  await shown(bob, conversation, 'before')
  await say(bob, conversation, 'meanwhile')
  const again = device(relay, { storage: files.sqlite('again.db') })
  expect(again.isRegistered).toBe(true)
  await live(again)
  await say(again, conversation, 'after')
  await shown(bob, conversation, 'after')
  expect(texts(again, conversation)).toEqual(['before', 'meanwhile', 'after'])
  await Promise.all([again.close(), bob.close()])
})
