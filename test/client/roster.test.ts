// What a chain of changes comes to when a signer's key was replaced: what was found true stays true, what cannot be verified needs the word
// of somebody who could have made the change himself, and a relay that makes links up gains nothing by it.
import { describe, expect, it } from 'vitest'
import { confirm, confirmable, isUnconfirmed, type Roster } from '../../client/roster.ts'
import { ALICE, BOB, CAROL, Chain, DAVE, GHOST } from '../support/chain.ts'

/** What messages of those users say, to a device of Carol's. */
const said = (rosterHash: Uint8Array, ...userIds: string[]) => ({
  words: userIds.map((userId) => ({ userId, rosterHash })),
  self: CAROL,
})
const members = ({ members }: Pick<Roster, 'members'>): string[] => [...members.keys()]
const group = (): Chain => new Chain().add(ALICE, 'created', [ALICE, BOB, CAROL])

describe('what was found true', () => {
  it('stays true when its signer has another key', () => {
    const chain = group().add(ALICE, 'members_added', [DAVE])
    chain.read()
    chain.renew(ALICE)
    expect(chain.read()).toMatchObject({ revision: 2, unsigned: [], candidates: [] })
    chain.add(ALICE, 'member_removed', [CAROL])
    expect(members(chain.read())).toEqual([ALICE, BOB, DAVE])
  })

  it('does not make the old key good for anything new', () => {
    const chain = group()
    chain.read()
    const stolen = chain.keys.get(ALICE)!
    chain.renew(ALICE)
    const own = chain.keys.get(ALICE)!
    chain.keys.set(ALICE, stolen)
    chain.add(ALICE, 'members_added', [GHOST])
    chain.keys.set(ALICE, own)
    expect(chain.read()).toMatchObject({ revision: 1, unsigned: [2] })
    // She, who knows nothing of it, goes on from where she is.
    chain.add(ALICE, 'members_added', [DAVE], { after: 1 })
    const roster = chain.read()
    expect(members(roster)).toEqual([ALICE, BOB, CAROL, DAVE])
    expect([roster.revision, roster.unsigned, roster.candidates]).toEqual([3, [2], []])
  })
})

describe('a device that never knew the former key', () => {
  const replaced = (more: (chain: Chain) => void = () => {}): Chain => {
    const chain = group()
    more(chain)
    chain.renew(ALICE)
    return chain
  }

  it('knows no members, and who they would be', () => {
    const roster = replaced((chain) => chain.add(ALICE, 'members_added', [DAVE])).read()
    expect([roster.revision, roster.unsigned, isUnconfirmed(roster)]).toEqual([0, [1, 2], true])
    expect(roster.candidates.map(members)).toEqual([
      [ALICE, BOB, CAROL],
      [ALICE, BOB, CAROL, DAVE],
    ])
  })

  it('does not believe them because somebody signs on top, who is an admin by nothing but them', () => {
    const chain = replaced().add(ALICE, 'role_changed', [BOB], { role: 'admin' }).add(BOB, 'members_added', [DAVE])
    const roster = chain.read()
    expect([roster.revision, roster.unsigned, isUnconfirmed(roster)]).toEqual([0, [1, 2, 3], true])
    // With the first of them confirmed, the rest follows from signatures.
    confirm(confirmable(roster, said(roster.candidates[0]!.hash, ALICE))!.links)
    const known = chain.read()
    expect([known.revision, known.unsigned, known.candidates]).toEqual([3, [], []])
    expect(members(known)).toEqual([ALICE, BOB, CAROL, DAVE])
    expect(chain.links.map(({ verifiedUnder }) => verifiedUnder === 'vouched')).toEqual([true, false, false])
    // Once is for ever, also when that admin's key is replaced.
    chain.renew(ALICE)
    expect(chain.read().hashes).toEqual(known.hashes)
  })

  it('does not believe them because a member who is no admin signs on top', () => {
    const roster = replaced().add(BOB, 'member_left', [BOB]).read()
    expect([roster.revision, roster.unsigned]).toEqual([0, [1, 2]])
  })

  it('believes the word of who made it and of its own user’s other devices, as far as that goes', () => {
    const chain = replaced((it) => it.add(ALICE, 'members_added', [DAVE]))
    const [first, second] = chain.read().candidates
    for (const each of [said(second!.hash, GHOST), said(new Uint8Array(32), ALICE), said(second!.hash)])
      expect(confirmable(chain.read(), each)).toBeNull()
    for (const who of [ALICE, CAROL]) expect(confirmable(chain.read(), said(second!.hash, who))).not.toBeNull()
    confirm(confirmable(chain.read(), said(first!.hash, ALICE))!.links)
    expect(chain.read()).toMatchObject({ revision: 1, unsigned: [2] })
    confirm(confirmable(chain.read(), said(second!.hash, ALICE))!.links)
    expect(members(chain.read())).toEqual([ALICE, BOB, CAROL, DAVE])
  })

  it('believes every other member together, not one or two of them: the relay may have made them members', () => {
    const chain = replaced((it) => it.add(ALICE, 'members_added', [DAVE]))
    const { hash: all } = chain.read().candidates[1]!
    for (const some of [[BOB], [DAVE], [BOB, DAVE], [BOB, DAVE, GHOST]])
      expect(confirmable(chain.read(), said(all, ...some))).toBeNull()
    // Its own user is the one who made it, and lost everything.
    const own = { ...said(all, BOB, DAVE, CAROL), self: ALICE }
    expect(members(confirmable(chain.read(), own)!)).toEqual([ALICE, BOB, CAROL, DAVE])
    expect(confirmable(chain.read(), { ...said(all, BOB, DAVE), self: ALICE })).toBeNull()
  })

  it('is not made to believe in an accomplice of the relay, as a member or as an admin', () => {
    const chain = new Chain()
    chain.add(ALICE, 'created', [ALICE, BOB, CAROL, GHOST], { forged: true })
    chain.add(ALICE, 'role_changed', [GHOST], { role: 'admin', forged: true })
    const roster = chain.read()
    expect(roster.candidates).toHaveLength(2)
    for (const { hash } of roster.candidates) expect(confirmable(roster, said(hash, GHOST))).toBeNull()
  })

  it('is not led astray by links that the relay puts between or behind', () => {
    const chain = replaced()
    const { hash: known } = chain.read().candidates[0]!
    chain.add(ALICE, 'members_added', [GHOST], { forged: true })
    confirm(confirmable(chain.read(), said(known, ALICE))!.links)
    expect(members(chain.read())).toEqual([ALICE, BOB, CAROL])
    chain.add(ALICE, 'members_added', [DAVE], { after: 1 })
    expect(chain.read()).toMatchObject({ revision: 3, unsigned: [2], candidates: [] })
    expect(members(chain.read())).toEqual([ALICE, BOB, CAROL, DAVE])
  })

  it('asks its user otherwise, who confirms what was looked at and nothing later', () => {
    const chain = replaced().add(ALICE, 'members_added', [GHOST], { forged: true })
    expect(confirmable(chain.read(), { revision: 3 })).toBeNull()
    confirm(confirmable(chain.read(), { revision: 1 })!.links)
    expect(members(chain.read())).toEqual([ALICE, BOB, CAROL])
  })
})

describe('a device that knows a roster', () => {
  it('takes no change for true that a member could not have made, whoever vouches for it', () => {
    const chain = group()
    chain.read()
    // The relay and Bob, who is no admin, make Alice's word up.
    chain.add(ALICE, 'role_changed', [BOB], { role: 'admin', forged: true }).add(BOB, 'members_added', [GHOST])
    const roster = chain.read()
    expect([roster.revision, roster.unsigned, members(roster)]).toEqual([1, [2, 3], [ALICE, BOB, CAROL]])
    for (const { hash: rosterHash } of roster.candidates) expect(confirmable(roster, said(rosterHash, BOB))).toBeNull()
  })

  it('takes one for true that an admin vouches for: he could have made it himself', () => {
    const chain = group().add(ALICE, 'role_changed', [BOB], { role: 'admin' })
    chain.read()
    chain.add(ALICE, 'members_added', [DAVE])
    chain.renew(ALICE)
    const roster = chain.read()
    expect([roster.revision, roster.unsigned, isUnconfirmed(roster)]).toEqual([2, [3], false])
    expect(confirmable(roster, said(roster.candidates[0]!.hash, CAROL))).toBeNull()
    expect(confirmable(roster, said(roster.candidates[0]!.hash, BOB))).not.toBeNull()
    chain.add(BOB, 'updated', [])
    expect(members(chain.read())).toEqual([ALICE, BOB, CAROL, DAVE])
  })

  it('takes an unsigned one for nothing, with or without a vouching word', () => {
    const chain = group()
    chain.links.push({
      ...chain.links[0]!,
      revision: 2,
      change: 'members_added',
      subjects: [GHOST],
      signedChange: new Uint8Array(),
    })
    expect(chain.read()).toMatchObject({ revision: 1, unsigned: [2], candidates: [] })
  })
})

it('a direct conversation is its two users, whoever signed it, and goes on from there', () => {
  const chain = new Chain('direct').add(ALICE, 'created', [ALICE, BOB])
  chain.renew(ALICE)
  expect(members(chain.read())).toEqual([ALICE, BOB])
  expect(chain.add(BOB, 'archived', []).read()).toMatchObject({ revision: 2, archived: true, unsigned: [] })
})
