// Beginning anew: with a recovery code on a device that has nothing, with the old key on one that suspects a theft, and after lost answers.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { InvalidRecoveryCode, MemoryStorage, systemTime } from '../../client/index.ts'
import { wsTransport } from '../../client/node.ts'
import { Fate } from '../support/fate.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, live, quiet, say, shown, texts, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

it('a code brings the user back on an empty device; others read nothing of it before they accepted the new key', async () => {
  const [alice, bob] = [await joined(relay), await joined(relay)]
  await alice.usernames.claim('alice.01')
  const conversation = await alice.conversations.direct(bob.userId)
  await say(alice, conversation, 'before')
  await shown(bob, conversation, 'before')
  expect(alice.recovery.madeAtMs).toBeNull()
  const code = await alice.recovery.makeCode()
  expect(code).toMatch(/^[\w-]{22}$/)
  expect(alice.recovery.madeAtMs).not.toBeNull()
  const gone = until(alice, 'state', ({ name }) => name === 'closed')

  const again = device(relay)
  const told = until(bob, 'identity_changed', ({ userId }) => userId === alice.userId)
  await again.recover({ username: 'alice.01', code: ` ${code.slice(0, 11)} ${code.slice(11)}\n`, name: 'new phone' })
  expect([again.userId, again.deviceId, again.usernames.own]).toEqual([alice.userId, 1, 'alice.01'])
  expect(await gone).toEqual({ name: 'closed', reason: 'unlinked' })
  await told
  await live(again)
  await quiet(again)
  expect((await again.devices()).map(({ name }) => name)).toEqual(['new phone'])

  expect(again.conversations.list().map(({ id }) => id)).toEqual([conversation])
  await say(again, conversation, 'it is me')
  await quiet(bob)
  expect(texts(bob, conversation)).toEqual(['before'])
  const withheld = until(again, 'message', (message) => message.withheld)
  await say(bob, conversation, 'who?')
  await withheld
  expect(texts(again, conversation)).toEqual(['it is me', '(withheld)'])
  await bob.acceptIdentity(alice.userId)
  await shown(bob, conversation, 'it is me')
  await say(bob, conversation, 'welcome back')
  await shown(again, conversation, 'welcome back')
  expect(again.safetyNumber(bob.userId)).toBe(bob.safetyNumber(alice.userId))

  // Used up, and void.
  expect(again.recovery.madeAtMs).toBeNull()
  await expect(device(relay).recover({ userId: alice.userId, code })).rejects.toMatchObject({ code: 'FORBIDDEN' })
  for (const each of [again, bob]) each.disconnect()
})

it('of a recovery that came to nothing no private key is left once the device is another user’s', async () => {
  const storage = new MemoryStorage()
  const [alice, way] = [await joined(relay), new Tamper()]
  const code = await alice.recovery.makeCode()
  const anew = device(relay, { storage, transport: way })
  const through = way.request.bind(way)
  way.request = () => Promise.reject(new Error('the network is down'))
  await expect(anew.recover({ userId: alice.userId, code })).rejects.toThrow('does not answer')
  const identities = () => storage.transaction((tx) => [...tx.scan('crypto.self')].map(({ key }) => key))
  expect(identities()).toHaveLength(1)
  way.request = through
  await anew.register()
  expect(identities()).toEqual(['identity'])
  alice.disconnect()
})

it('a registration and a recovery beside it, both unanswered, leave each other their keys', async () => {
  const [alice, bob, way] = [await joined(relay), await joined(relay), new Tamper()]
  const code = await alice.recovery.makeCode()
  const anew = device(relay, { transport: way })
  const through = way.request.bind(way)
  way.request = () => Promise.reject(new Error('the network is down'))
  await expect(anew.register()).rejects.toThrow('does not answer')
  await expect(anew.recover({ userId: alice.userId, code })).rejects.toThrow('does not answer')
  way.request = through
  await anew.register()
  await live(anew)
  const conversation = await bob.conversations.direct(anew.userId)
  await say(bob, conversation, 'with your first keys')
  await shown(anew, conversation, 'with your first keys')
  for (const each of [alice, bob, anew]) each.disconnect()
})

it('a wrong code, a former one, a removed one and one of another user are of no use; a mistyped one is not even asked', async () => {
  const [alice, bob] = [await joined(relay), await joined(relay)]
  const former = await alice.recovery.makeCode()
  const code = await alice.recovery.makeCode()
  const foreign = await bob.recovery.makeCode()
  await bob.recovery.removeCode()
  const thief = device(relay)
  for (const [userId, tried] of [
    [alice.userId, former],
    [alice.userId, foreign],
    [bob.userId, foreign],
  ] as const)
    await expect(thief.recover({ userId, code: tried })).rejects.toMatchObject({ code: 'FORBIDDEN' })
  for (const tried of ['', code.slice(1), `${code.slice(0, -1)}B`, code.replace(/.$/, '!')])
    await expect(thief.recover({ userId: alice.userId, code: tried })).rejects.toThrow(InvalidRecoveryCode)
  expect(thief.isRegistered).toBe(false)
  await thief.recover({ userId: alice.userId, code })
  expect(thief.userId).toBe(alice.userId)
  bob.disconnect()
})

it('a stolen key is replaced: the thief is out, conversations and what waits go on', async () => {
  const store = new MemoryStorage()
  const [alice, bob] = [await joined(relay, { storage: store }), await joined(relay)]
  const conversation = await alice.conversations.direct(bob.userId)
  await say(alice, conversation, 'before')
  await shown(bob, conversation, 'before')
  await alice.recovery.makeCode()
  alice.disconnect()
  alice.send(conversation, { text: 'written offline' })
  const told = until(bob, 'identity_changed', ({ userId }) => userId === alice.userId)
  const former = alice.safetyNumber(bob.userId)
  await alice.replaceIdentity()
  expect(alice.safetyNumber(bob.userId)).not.toBe(former)
  expect(alice.recovery.madeAtMs).toBeNull()
  await told
  await bob.acceptIdentity(alice.userId)
  await live(alice)
  await shown(bob, conversation, 'written offline')
  await say(bob, conversation, 'hello again')
  await shown(alice, conversation, 'hello again')
  expect(texts(alice, conversation)).toEqual(['before', 'written offline', 'hello again'])
  for (const each of [alice, bob]) each.disconnect()
})

it('a registration that is under way is not overtaken: it is the device, and the code stays good', async () => {
  const alice = await joined(relay)
  const code = await alice.recovery.makeCode()
  const both = device(relay)
  const ends = await Promise.allSettled([both.register(), both.recover({ userId: alice.userId, code })])
  expect(ends.map(({ status }) => status)).toEqual(['fulfilled', 'rejected'])
  expect(both.userId).not.toBe(alice.userId)
  const anew = device(relay)
  await anew.recover({ userId: alice.userId, code })
  expect(anew.userId).toBe(alice.userId)
  alice.disconnect()
})

describe('a crash between any two steps', () => {
  const everyStep = async (run: (fate: Fate) => Promise<void>): Promise<string[]> => {
    const ends: string[] = []
    for (let step = 1; step < 200; step++) {
      const fate = new Fate(step)
      await run(fate)
      if (!fate.dead) return ends
      ends.push(fate.at)
    }
    throw new Error('it never ends')
  }
  const doomed = (storage: MemoryStorage, fate: Fate) =>
    device(relay, {
      storage: fate.storage(storage),
      transport: fate.transport(wsTransport()),
      time: fate.time(systemTime),
    })

  it.each(['userId', 'username'] as const)(
    'of a recovery by %s: the same code and call end in one device of the user',
    { timeout: 120_000 },
    async (by) => {
      const bob = await joined(relay)
      let n = 0
      const ends = await everyStep(async (fate) => {
        const alice = await joined(relay)
        const name = `${by}${++n}.42`
        await alice.usernames.claim(name)
        const who = by === 'userId' ? { userId: alice.userId } : { username: name }
        const code = await alice.recovery.makeCode()
        const store = new MemoryStorage()
        await Promise.race([
          doomed(store, fate)
            .recover({ ...who, code })
            .catch(() => {}),
          fate.death,
        ])
        const second = device(relay, { storage: store })
        if (!second.isRegistered) await second.recover({ ...who, code })
        expect(second.userId, fate.at).toBe(alice.userId)
        await live(second)
        await quiet(second)
        const conversation = await second.conversations.direct(bob.userId)
        await say(second, conversation, `back ${n}`)
        await shown(bob, conversation, `back ${n}`)
        for (const each of [alice, second]) each.disconnect()
      })
      expect(ends.length).toBeGreaterThan(5)
      bob.disconnect()
    },
  )

  it('of a replacement: the next connection is the one device, and what was written is sent once', {
    timeout: 120_000,
  }, async () => {
    const bob = await joined(relay)
    let n = 0
    const ends = await everyStep(async (fate) => {
      const store = new MemoryStorage()
      const alice = await joined(relay, { storage: store })
      const conversation = await alice.conversations.direct(bob.userId)
      await quiet(alice)
      alice.disconnect()
      alice.send(conversation, { text: `written offline ${++n}` })
      const former = alice.safetyNumber(bob.userId)
      await Promise.race([
        doomed(store, fate)
          .replaceIdentity()
          .catch(() => {}),
        fate.death,
      ])
      const second = device(relay, { storage: store })
      await live(second)
      await quiet(second)
      if (second.safetyNumber(bob.userId) === former) await second.replaceIdentity()
      if (second.state.name !== 'live') await live(second)
      await say(second, conversation, `and online ${n}`)
      await shown(bob, conversation, `and online ${n}`)
      expect(texts(bob, conversation), fate.at).toEqual([`written offline ${n}`, `and online ${n}`])
      second.disconnect()
    })
    expect(ends.length).toBeGreaterThan(5)
    bob.disconnect()
  })
})
