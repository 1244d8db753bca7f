// The messenger among strangers, without its screen, on a relay that asks: requests, what accepts and ends them, blocks. [V-6] [V-7]
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { STRANGER_MAX_MESSAGES } from '../../proto/limits.ts'
import { Desk, WITHIN_MS } from '../support/desk.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { linked, quiet } from '../support/sdk.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay({ config: { strangers: 'ask' } })
})
afterAll(() => relay.close())

const desks: Desk[] = []
const sit = async (name: string): Promise<Desk> => {
  const desk = await Desk.open(relay, name)
  desks.push(desk)
  return desk
}
afterEach(() => Promise.all(desks.splice(0).map((each) => each.close())))

/** Opens a conversation and writes in it. */
async function write(desk: Desk, to: string, text: string): Promise<void> {
  desk.enter(`/chat ${to}`)
  await desk.see(`›  ${to}`)
  desk.enter(text)
  await desk.see(new RegExp(`you +${text} ✓`))
}
const settled = async (...all: Desk[]) => {
  for (const { device } of all) await quiet(device)
}
const looks = ({ wire }: Desk) => wire.requests.filter(({ url }) => url.includes('/v1/conversations?')).length

it('a request is seen and read without a word to its sender; an answer accepts it, and then everything is told', async () => {
  const [alice, bob] = [await sit('alice.21'), await sit('bob.21')]
  await write(bob, 'alice.21', 'hello')
  await bob.see('If alice.21 does not know you, ✓ is all you see until they accept.')
  await alice.see(/Conversations\n Requests · 1\n \? bob\.21 +1\n/)
  expect(alice.text).not.toContain('hello')
  alice.enter('/chat bob.21')
  await alice.see('bob.21 · asks to talk')
  await alice.see(/bob\.21 hello\n\? bob\.21 wants to talk to you\./)
  await alice.see('bob.21, looked up · not verified · no groups in common')
  alice.messenger.edit({ do: 'insert', text: 'He' })
  await settled(alice, bob)
  expect(alice.wire.sent.filter(({ typing }) => typing)).toEqual([])
  expect(bob.text).toMatch(/hello ✓\n/)
  expect(bob.text).not.toMatch(/online|typing/)

  // As after a restart: what is a request is known before anybody answers.
  alice.messenger.stop()
  alice.begin()
  expect(alice.text).toMatch(/Requests · 1\n›\? bob\.21[\s\S]*wants to talk to you/)
  await settled(alice)
  alice.enter('Hello Bob')
  expect(alice.text).not.toMatch(/wants to talk|Requests/)
  await bob.see(/hello ✓✓\n.*alice\.21 Hello Bob/)
  await bob.see('alice.21 ● online')
  await bob.lose('✓ is all you see')
  await expect
    .poll(() => bob.device.messages(bob.messenger.state.open!)[0]?.message.state, { timeout: WITHIN_MS })
    .toBe('read')
  await settled(alice)
  expect(alice.messenger.state.asked.requests).toEqual({})
  expect(alice.messenger.notebook.asked.requests).toEqual({})
  // What the look itself brings does not make it look again.
  expect(looks(alice)).toBeLessThan(10)
})

it('a declined request leaves, also from other devices, and stays away; who asked sees that, and may ask anew', async () => {
  const [alice, bob] = [await sit('alice.22'), await sit('bob.22')]
  await write(bob, 'alice.22', 'hello')
  await alice.see('? bob.22')
  alice.enter('/chat bob.22')
  await alice.see('wants to talk to you')
  alice.enter('/decline')
  await alice.see('Declined.')
  await alice.see(/^ Conversations\nWelcome/)
  await bob.see('This conversation is archived. /chat alice.22 begins another.')
  alice.messenger.stop()
  alice.begin()
  expect(alice.text).not.toContain('bob.22')
  alice.enter('/decline')
  await alice.see('No conversation is open')

  bob.enter('/chat alice.22')
  await bob.lose('This conversation is archived')
  bob.enter('once more')
  await alice.see(/Requests · 1\n \? bob\.22 +1/)
  const other = await linked(alice.device, relay)
  alice.enter('/chat bob.22')
  await alice.see('wants to talk to you')
  const id = alice.messenger.state.open!
  await other.requests.decline(id)
  await alice.see('bob.22: this is no request any more.')
  await alice.see(/^ Conversations\nWelcome/)
  await other.close()
})

it('what another device accepts, by a word or by an answer, is no request here any more', async () => {
  const [alice, bob, carol] = [await sit('alice.23'), await sit('bob.23'), await sit('carol.23')]
  const other = await linked(alice.device, relay)
  await write(bob, 'alice.23', 'hello')
  await write(carol, 'alice.23', 'hi')
  await alice.see('Requests · 2')
  const byName = (name: string) =>
    alice.messenger.state.chats.find(({ entries }) => JSON.stringify(entries).includes(name))!
  await other.requests.accept(byName('hello').id)
  await alice.see(/bob\.23 +1\n Requests · 1\n/)
  await bob.see('alice.23 accepted')
  await quiet(other)
  other.send(byName('hi').id, { text: 'from the other one' })
  await alice.lose('Requests')
  await carol.see('alice.23 from the other one')
  await other.close()
})

it('who is blocked is gone, cannot tell, and is back with the request when the block ends', async () => {
  const [alice, bob] = [await sit('alice.24'), await sit('bob.24')]
  await write(bob, 'alice.24', 'hello')
  await alice.see('? bob.24')
  alice.enter('/chat bob.24')
  await alice.see('wants to talk to you')
  alice.enter('/block')
  await alice.see('bob.24 is blocked, and cannot tell.')
  await alice.see(/^ Conversations\nWelcome/)
  bob.enter('are you there?')
  await bob.see(/are you there\? ✓\n/)
  await settled(bob, alice)
  alice.messenger.stop()
  alice.begin()
  await settled(alice)
  expect(alice.messenger.state.chats).toEqual([])
  alice.enter('/requests')
  await alice.see(/Nobody asks\.\n\nBlocked: bob\.24/)
  alice.enter('/unblock bob.24')
  await alice.see('bob.24 can reach you again.')
  await alice.see('? bob.24')
  alice.enter('/chat bob.24')
  await alice.see('wants to talk to you')
  expect(alice.text).not.toContain('are you there?')
  expect(bob.text).toMatch(/are you there\? ✓\n/)
})

it('an invitation is joined, not answered; who one blocks and who puts one into groups is said, and left', async () => {
  const [alice, bob, carol] = [await sit('alice.25'), await sit('bob.25'), await sit('carol.25')]
  bob.enter('/group "Climbing" alice.25 carol.25')
  await bob.see('Climbing · 3 people')
  // Of the strangers in it nothing came before: not even names.
  await alice.see(/Requests · 1\n # unnamed-/)
  alice.messenger.open(alice.messenger.state.chats[0]!.id)
  await alice.see('invites you to a group of 3.')
  alice.enter('hello everybody')
  await alice.see('You are invited: /join first, then write.')
  alice.messenger.edit({ do: 'replace', text: '' })
  alice.enter('/join')
  await alice.lose('invites you')
  await bob.see('alice.25 accepted')
  await alice.see('Climbing · 3 people')
  await alice.see(/bob\.25 named the group Climbing/)
  bob.enter('now')
  await alice.see(/bob\.25 +now/)

  alice.enter('/block bob.25')
  await alice.see('bob.25, whom you block, put you into this group. /leave leaves it.')
  await alice.see(/bob\.25 +\(of somebody you block\)/)
  // They know each other from this group: he may put her into more of them.
  bob.enter('/group "More" alice.25 carol.25')
  await bob.see('More · 3 people')
  bob.enter('again')
  await alice.see(/# More +! 1/)
  alice.enter('/requests')
  await alice.see('bob.25, whom you block, put you into More')
  alice.messenger.tell({ type: 'panel', panel: null })
  alice.enter('/chat More')
  await alice.see(/›# More/)
  alice.enter('/leave')
  await alice.see('Leave More?')
  alice.confirm()
  await alice.see('You are not in this group any more.')
  await alice.lose('put you into this group')
  await expect.poll(() => Object.keys(alice.messenger.state.asked.unwanted), { timeout: WITHIN_MS }).toHaveLength(1)
  expect(carol.messenger.state.chats.length).toBeGreaterThan(0)
})

it('the eleventh message says why it waits, and goes out once it may', async () => {
  const [alice, bob] = [await sit('alice.26'), await sit('bob.26')]
  await write(bob, 'alice.26', 'm0')
  for (let at = 1; at <= STRANGER_MAX_MESSAGES; at++) bob.enter(`m${at}`)
  await bob.see(/m10\n +✗ not sent: they have not accepted yet, and take no more until then/)
  await alice.see(/\? bob\.26 +10/)
  alice.enter('/chat bob.26')
  await alice.see('bob.26 m9')
  alice.enter('/join')
  await alice.see('Accepted: bob.26.')
  await bob.see('alice.26 accepted')
  bob.enter('/retry')
  await alice.see('bob.26 m10')
  await bob.see(/m0 ✓✓/)
})

it('who cannot be told from a friend because a look is refused is not shown; the next connection tells', async () => {
  const [alice, bob] = [await sit('alice.27'), await sit('bob.27')]
  const refusal = JSON.stringify({ error: { code: 'OVERLOADED', message: 'a lie', retry_after_ms: 3_600_000 } })
  alice.wire.answers = ({ url }, answer) =>
    url.includes('/v1/conversations?') ? { ...answer, status: 503, body: refusal } : answer
  await write(bob, 'alice.27', 'hello')
  await expect.poll(() => alice.device.conversations.ids().length, { timeout: WITHIN_MS }).toBe(1)
  // One look after the other: when this one is refused, so is the one before it.
  await settled(alice)
  alice.enter('/requests')
  await alice.see('The relay says OVERLOADED')
  expect(alice.messenger.state.chats).toEqual([])
  alice.wire.answers = null
  alice.device.disconnect()
  alice.device.connect()
  await alice.see(/Requests · 1\n \? bob\.27/)
})
