// Strangers in the SDK: what waits for a word, the word, and blocks, on a relay that asks. [V-6] [V-7]
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import type { Device } from '../../client/index.ts'
import { STRANGER_MAX_MESSAGES } from '../../proto/limits.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, type Options, quiet, say, shown, texts, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay({ config: { strangers: 'ask' } })
})
afterAll(() => relay.close())

const open: Device[] = []
const join = async (options: Options = {}): Promise<Device> => {
  const made = await joined(relay, options)
  open.push(made)
  return made
}
afterEach(() => Promise.all(open.splice(0).map((each) => each.close())))

it('what devices say by themselves accepts nothing; an answer does', async () => {
  const [ann, bob] = [await join(), await join()]
  const id = await ann.conversations.direct(bob.userId)
  say(ann, id, 'hello')
  await until(bob, 'message')
  for (const each of [ann, bob]) await quiet(each)
  // By now Bob's device has sent a heartbeat for Ann's first message, which nobody gets.
  expect(await bob.requests.list()).toEqual([{ conversationId: id, kind: 'direct', byUserId: ann.userId }])
  expect(await ann.requests.list()).toEqual([])
  const heard = until(ann, 'message', (message) => message.senderUserId === bob.userId)
  say(bob, id, 'hello yourself')
  await heard
  expect(await bob.requests.list()).toEqual([])
})

it.each([
  ['says so', (bob: Device, id: string) => bob.requests.accept(id)],
  ['answers', (bob: Device, id: string) => void bob.send(id, { text: 'what?' })],
])(
  'a device tells the stranger nothing by itself, and asks again for what it could not read when its user %s',
  async (_, accept) => {
    const [hers, his] = [new Tamper(), new Tamper()]
    const [ann, bob] = [await join({ transport: hers }), await join({ transport: his })]
    const heard: unknown[] = []
    hers.frames = (frame) => {
      if (frame.envelope?.ciphertext) heard.push(frame.envelope.ciphertext.ciphertextType)
      return [frame]
    }
    his.frames = (frame) => {
      const { ciphertext } = frame.envelope ?? {}
      if (ciphertext?.content) {
        his.frames = null
        ciphertext.content = Uint8Array.from(ciphertext.content)
        ciphertext.content[ciphertext.content.length - 1]! ^= 1
      }
      return [frame]
    }
    const id = await ann.conversations.direct(bob.userId)
    const broken = until(bob, 'undecryptable')
    say(ann, id, 'hello')
    await broken
    say(ann, id, 'hello?')
    await until(bob, 'message')
    for (const each of [bob, ann]) await quiet(each)
    expect(texts(bob, id)).toEqual(['hello?'])
    expect(heard).toEqual([])
    const repaired = until(bob, 'message', ({ body }) => body.text === 'hello')
    await accept(bob, id)
    await repaired
  },
)

it('the eleventh message fails, and goes out when the other one has accepted', async () => {
  const [ann, bob] = [await join(), await join()]
  const id = await ann.conversations.direct(bob.userId)
  const failed = until(ann, 'message_changed', ({ state }) => state === 'failed')
  for (let i = 0; i <= STRANGER_MAX_MESSAGES; i++) say(ann, id, `${i}`)
  const late = await failed
  expect(late.failure).toBe('FORBIDDEN')
  const accepted = until(ann, 'member_accepted')
  await bob.requests.accept(id)
  expect(await accepted).toEqual({ conversationId: id, userId: bob.userId })
  const all = until(bob, 'message', () => texts(bob, id).length === STRANGER_MAX_MESSAGES + 1)
  ann.retry(late.id)
  await all
})

it('who is invited reads nothing before accepting, then everything from there, under the name of the group', async () => {
  const [ann, bob, cy] = [await join(), await join(), await join()]
  const known = await ann.conversations.direct(bob.userId)
  await bob.requests.accept(known)
  const invited = until(cy, 'conversation')
  const id = await ann.conversations.group([bob.userId, cy.userId])
  ann.names.tell(id, 'Climbing')
  say(ann, id, 'too early')
  await until(bob, 'message')
  await invited
  for (const each of [ann, bob, cy]) await quiet(each)
  expect(await cy.requests.list()).toEqual([{ conversationId: id, kind: 'group', byUserId: ann.userId }])
  expect(await bob.requests.list()).toEqual([])
  expect(texts(cy, id)).toEqual([])
  const named = until(cy, 'group_named')
  await cy.requests.accept(id)
  expect(await named).toMatchObject({ conversationId: id, byUserId: ann.userId, groupName: 'Climbing' })
  const heard = until(cy, 'message')
  say(bob, id, 'welcome')
  await heard
  expect(texts(cy, id)).toEqual(['welcome'])
  const back = until(bob, 'message', ({ senderUserId }) => senderUserId === cy.userId)
  say(cy, id, 'glad')
  await back
  for (const each of [ann, bob, cy]) expect(each.conversations.get(id)?.ghosts).toEqual([])
})

it('declining an invitation is leaving; who declined is known to nobody, and an admin can take him out of the chain', async () => {
  const [ann, bob, cy] = [await join(), await join(), await join()]
  const id = await ann.conversations.group([bob.userId, cy.userId])
  await cy.requests.decline(id)
  expect(await cy.requests.list()).toEqual([])
  await ann.conversations.settle(id)
  const members = () => ann.conversations.get(id)!.members.map((each) => each.userId)
  expect(ann.conversations.get(id)).toMatchObject({ unsignedRevisions: [2], unconfirmed: null })
  await ann.conversations.removeMember(id, cy.userId)
  expect(members()).not.toContain(cy.userId)
})

it('declining a direct conversation ends it', async () => {
  const [ann, bob] = [await join(), await join()]
  const id = await ann.conversations.direct(bob.userId)
  await bob.requests.decline(id)
  expect(await bob.requests.list()).toEqual([])
  await ann.conversations.settle(id)
  expect(ann.conversations.get(id)?.archived).toBe(true)
})

it('a block ends what comes, and its sender sees it sent', async () => {
  const [ann, bob] = [await join(), await join()]
  const id = await ann.conversations.direct(bob.userId)
  await bob.requests.block(ann.userId)
  expect(await bob.requests.blocked()).toMatchObject([{ userId: ann.userId }])
  const sent = until(ann, 'message_changed', ({ state }) => state === 'sent')
  say(ann, id, 'hello?')
  await sent
  await quiet(bob)
  expect(texts(bob, id)).toEqual([])
  // What is blocked does not ask either.
  expect(await bob.requests.list()).toEqual([])
  await bob.requests.unblock(ann.userId)
  const heard = until(bob, 'message')
  say(ann, id, 'hello again')
  await heard
  expect(texts(bob, id)).toEqual(['hello again'])
})

it('who is invited to a group costs one repair there, however many messages go to the group and to himself', async () => {
  const wire = new Tamper()
  const [ann, bob, eve] = [await join({ transport: wire }), await join(), await join()]
  let repairs = 0
  wire.frames = (frame) => {
    if (frame.error?.deviceMismatch) repairs++
    return [frame]
  }
  const friends = await ann.conversations.direct(eve.userId)
  await say(ann, friends, 'hello')
  await shown(eve, friends, 'hello')
  await eve.requests.accept(friends)
  // Bob has not answered, so he is only invited to the group, and his devices are known all the same.
  const direct = await ann.conversations.direct(bob.userId)
  await say(ann, direct, 'hello')
  const group = await ann.conversations.group([bob.userId, eve.userId])
  await say(ann, group, 'first')
  await quiet(ann)
  repairs = 0
  for (const text of ['one', 'two']) {
    await say(ann, direct, text)
    await say(ann, group, text)
  }
  expect(repairs).toBe(0)
  await bob.requests.accept(group)
  await say(ann, group, 'welcome')
  await shown(bob, group, 'welcome')
  await quiet(ann)
  repairs = 0
  await say(ann, direct, 'three')
  await say(ann, group, 'three')
  await shown(bob, group, 'three')
  expect(repairs).toBe(0)
})

it('whom one blocks may still make a group with one, and one is told by whom', async () => {
  const [ann, bob, cy] = [await join(), await join(), await join()]
  for (const each of [bob, cy]) await each.requests.accept(await ann.conversations.direct(each.userId))
  const before = await ann.conversations.group([bob.userId, cy.userId])
  await bob.requests.block(ann.userId)
  const told = new Set<string>()
  bob.on('conversation', ({ conversationId }) => told.add(conversationId))
  const id = await ann.conversations.group([bob.userId, cy.userId])
  if (!told.has(id)) await until(bob, 'conversation', ({ conversationId }) => conversationId === id)
  await quiet(bob)
  expect(await bob.requests.list()).toEqual([])
  const both = [before, id].sort().map((conversationId) => ({ conversationId, byUserId: ann.userId }))
  const unwanted = async () =>
    (await bob.requests.unwanted()).sort((a, b) => (a.conversationId < b.conversationId ? -1 : 1))
  expect(await unwanted()).toEqual(both)
  expect(await cy.requests.unwanted()).toEqual([])
  await bob.requests.unblock(ann.userId)
  expect(await unwanted()).toEqual([])
})
