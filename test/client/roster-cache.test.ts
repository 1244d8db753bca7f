// A roster is built once for as long as nothing changed, and anew when anything did that could change it.
import { expect, it } from 'vitest'
import { Conversations } from '../../client/conversations.ts'
import type { Core } from '../../client/core.ts'
import { MemoryStorage } from '../../client/index.ts'
import { libsignal } from '../../client/node.ts'
import { ALICE, BOB, CAROL, Chain, DAVE, ID } from '../support/chain.ts'

/** Conversations of a device of Carol's that knows what the chain's reader knows, and how much was verified or hashed for them. */
function reader(chain: Chain) {
  const work = { verified: 0, hashed: 0 }
  const real = libsignal()
  const crypto = {
    hash: (message: Uint8Array) => {
      work.hashed++
      return real.hash(message)
    },
    isSignedBy: (...args: Parameters<typeof real.isSignedBy>) => {
      work.verified++
      return real.isSignedBy(...args)
    },
    identityOf: (_: unknown, userId: string) => chain.known.get(userId) ?? null,
  }
  const storage = new MemoryStorage()
  const core = { storage, crypto, account: { self: { userId: CAROL } } } as unknown as Core
  const conversations = new Conversations(core)
  const take = (revision: number) =>
    storage.transaction((tx) => conversations.addLink(tx, ID, { ...chain.links[revision - 1]!, verifiedUnder: null }))
  const roster = () => conversations.roster(ID)!
  return { work, storage, conversations, take, roster, core }
}

it('of 300 links, each is verified once, and none again for further messages', () => {
  const chain = new Chain().add(ALICE, 'created', [ALICE, BOB, CAROL])
  for (let n = 1; n < 300; n++) chain.add(ALICE, 'updated', [])
  const { work, take, roster } = reader(chain)
  for (let revision = 1; revision <= 300; revision++) take(revision)
  expect(roster().revision).toBe(300)
  const after = { ...work }
  expect(after.verified).toBe(300)
  for (let message = 0; message < 100; message++) expect(roster().revision).toBe(300)
  expect(work).toEqual(after)
})

it('a new link, a key that is known or another one, and a confirmation count at once', () => {
  const chain = new Chain().add(ALICE, 'created', [ALICE, BOB, CAROL])
  const alice = chain.known.get(ALICE)!
  chain.known.delete(ALICE)
  const { take, roster, conversations, storage } = reader(chain)
  take(1)
  expect(roster()).toMatchObject({ revision: 0, unknownActors: [ALICE] })
  // Another one than the one that signed, then the one.
  chain.known.set(ALICE, chain.known.get(BOB)!)
  expect(roster()).toMatchObject({ revision: 0, unknownActors: [], unsigned: [1] })
  chain.known.set(ALICE, alice)
  expect(roster()).toMatchObject({ revision: 1, unsigned: [] })
  chain.add(ALICE, 'members_added', [DAVE])
  chain.renew(ALICE)
  take(2)
  expect(roster()).toMatchObject({ revision: 1, unsigned: [2] })
  storage.transaction((tx) => conversations.confirmIn(tx, ID, { revision: 2 }))
  expect([...roster().members.keys()]).toEqual([ALICE, BOB, CAROL, DAVE])
})

it('what came to nothing leaves nothing behind', () => {
  const chain = new Chain().add(ALICE, 'created', [ALICE, BOB, CAROL]).add(ALICE, 'members_added', [DAVE])
  const { take, roster, conversations, storage } = reader(chain)
  take(1)
  expect(roster().revision).toBe(1)
  const undone = () =>
    storage.transaction((tx) => {
      conversations.addLink(tx, ID, { ...chain.links[1]!, verifiedUnder: null })
      expect(conversations.rosterIn(tx, ID)!.revision).toBe(2)
      throw new Error('undone')
    })
  expect(undone).toThrow('undone')
  expect([...roster().members.keys()]).toEqual([ALICE, BOB, CAROL])
})
