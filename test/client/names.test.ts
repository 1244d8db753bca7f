// Names of users and groups between real devices: claimed inside of ciphertexts, checked at the relay, told to new devices.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, linked, quiet, say, shown, texts, until } from '../support/sdk.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

it('a name comes with the first message, is a claim until it was looked up, and a false one never counts', async () => {
  const [alice, bob, mallory] = [await joined(relay), await joined(relay), await joined(relay)]
  await alice.usernames.claim('alice.42')
  const named = until(bob, 'user_named')
  await say(alice, await alice.conversations.direct(bob.userId), 'hello')
  expect(await named).toEqual({ userId: alice.userId })
  expect(bob.names.user(alice.userId)).toEqual({ username: 'alice.42', isChecked: false })
  expect(bob.names.unchecked()).toEqual([alice.userId])
  expect(await bob.names.check(alice.userId)).toBe(true)
  expect(bob.names.user(alice.userId)).toEqual({ username: 'alice.42', isChecked: true })

  // A client of her own making, which believes that it has the name.
  await mallory.usernames.claim('alice.43')
  const other = await mallory.conversations.direct(bob.userId)
  await say(mallory, other, 'I am alice.43')
  await shown(bob, other, 'I am alice.43')
  await mallory.usernames.release()
  expect(await bob.names.check(mallory.userId)).toBe(false)
  expect(bob.names.user(mallory.userId)).toBeNull()
  expect(bob.names.unchecked()).toEqual([])
  await Promise.all([alice.close(), bob.close(), mallory.close()])
})

it('a group has the name a member gave it, on every device, also one that is linked later; nobody sees a message', async () => {
  const [alice, bob, carol] = [await joined(relay), await joined(relay), await joined(relay)]
  await bob.usernames.claim('bob.42')
  expect(await alice.names.find('bob.42')).toBe(bob.userId)
  const group = await alice.conversations.group([bob.userId, carol.userId])
  const told = until(carol, 'group_named')
  alice.names.tell(group, 'Climbing')
  expect(await told).toEqual({ conversationId: group, byUserId: alice.userId, groupName: 'Climbing' })
  await say(alice, group, 'first')
  await shown(carol, group, 'first')
  expect(carol.names.group(group)).toBe('Climbing')
  expect(alice.names.group(group)).toBe('Climbing')
  // Bob never wrote: Alice told Carol who he is.
  expect(carol.names.user(bob.userId)).toEqual({ username: 'bob.42', isChecked: false })
  expect(texts(carol, group)).toEqual(['first'])
  expect(texts(alice, group)).toEqual(['first'])

  const laptop = await linked(alice, relay)
  if (laptop.names.group(group) === null) await until(laptop, 'group_named')
  expect(laptop.names.group(group)).toBe('Climbing')
  expect(laptop.names.user(bob.userId)?.username).toBe('bob.42')
  expect(laptop.conversations.get(group)?.members).toHaveLength(3)
  await quiet(alice)
  await Promise.all([alice.close(), bob.close(), carol.close(), laptop.close()])
})

it('a name that was looked up gives way to no claim of others, and to a change of its owner only once that was looked up', async () => {
  const [alice, bob, carol] = [await joined(relay), await joined(relay), await joined(relay)]
  await alice.usernames.claim('alicia.42')
  expect(await bob.names.find('alicia.42')).toBe(alice.userId)
  const group = await carol.conversations.group([alice.userId, bob.userId])
  await say(alice, group, 'hello')
  await shown(bob, group, 'hello')
  await alice.usernames.claim('alicia.43')
  await say(alice, group, 'under another name')
  await shown(bob, group, 'under another name')
  expect(bob.names.user(alice.userId)).toEqual({ username: 'alicia.42', isChecked: true })
  expect(await bob.names.check(alice.userId)).toBe(true)
  expect(bob.names.user(alice.userId)).toEqual({ username: 'alicia.43', isChecked: true })
  await Promise.all([alice.close(), bob.close(), carol.close()])
})
