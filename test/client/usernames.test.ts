// Usernames through the SDK: taken, found, given back, and known offline, whatever the connection loses.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { InvalidUsername, MemoryStorage } from '../../client/index.ts'
import { wsTransport } from '../../client/node.ts'
import { Fate } from '../support/fate.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, live, quiet } from '../support/sdk.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

it('a name is claimed, found by others whatever its case, and known to its owner offline', async () => {
  const store = new MemoryStorage()
  const [alice, bob] = [await joined(relay, { storage: store }), await joined(relay)]
  expect(alice.usernames.own).toBeNull()
  expect(await bob.usernames.find('alice.01')).toBeNull()
  expect(await alice.usernames.claim('Alice.01')).toBe('Alice.01')
  expect(await bob.usernames.find('aLICE.01')).toBe(alice.userId)
  await alice.close()
  const again = device(relay, { storage: store })
  expect(again.usernames.own).toBe('Alice.01')
  await again.usernames.release()
  expect(again.usernames.own).toBeNull()
  expect(await bob.usernames.find('alice.01')).toBeNull()
  bob.disconnect()
})

it('of several names the first free one is taken; none free changes nothing', async () => {
  const [alice, bob] = [await joined(relay), await joined(relay)]
  await alice.usernames.claim('carol.11')
  expect(await bob.usernames.claim(['carol.11', 'carol.12'])).toBe('carol.12')
  await expect(bob.usernames.claim('CAROL.11')).rejects.toMatchObject({ code: 'CONFLICT' })
  expect(bob.usernames.own).toBe('carol.12')
  expect(await alice.usernames.find('carol.12')).toBe(bob.userId)
  const candidates = bob.usernames.candidates('carol')
  expect(candidates[0]).toMatch(/^carol\.\d\d$/)
  expect(candidates).toHaveLength(20)
  for (const each of [alice, bob]) each.disconnect()
})

it.each(['carol', 'ca.11', 'carol.1', 'carol.00', '1carol.11', 'c.a.11', 'cärol.11', `${'c'.repeat(33)}.11`, ''])(
  '%j is no username, and the relay is not asked',
  async (name) => {
    const bob = device(relay)
    await expect(bob.usernames.claim(name)).rejects.toThrow(InvalidUsername)
    await expect(bob.usernames.find(name)).rejects.toThrow(InvalidUsername)
    await expect(bob.usernames.claim(['carol.11', name])).rejects.toThrow(InvalidUsername)
  },
)

it('a crash between any two steps leaves the name that the relay has', { timeout: 60_000 }, async () => {
  const ends: string[] = []
  for (const change of ['claim', 'release'] as const) {
    for (let step = 1, over = false; !over; step++) {
      const store = new MemoryStorage()
      const name = `${change}_${step}.42`
      const before = await joined(relay, { storage: store })
      await quiet(before)
      if (change === 'release') await before.usernames.claim(name)
      before.disconnect()
      const fate = new Fate(step)
      const first = device(relay, { storage: fate.storage(store), transport: fate.transport(wsTransport()) })
      const done = change === 'claim' ? first.usernames.claim(name) : first.usernames.release()
      await Promise.race([done.catch(() => {}), fate.death])
      over = !fate.dead
      if (fate.dead) ends.push(`${change} ${fate.at}`)
      const second = await live(device(relay, { storage: store }))
      await second.usernames.settle()
      const holder = await relayWord(second.userId)
      expect(second.usernames.own !== null, fate.at).toBe(holder)
      if (over) expect(second.usernames.own).toBe(change === 'claim' ? name : null)
      second.disconnect()
    }
  }
  expect(ends.length).toBeGreaterThan(8)

  async function relayWord(userId: string): Promise<boolean> {
    const rows = await relay.db.database.sql`select 1 from usernames where user_id = ${userId}`
    return rows.length === 1
  }
})
