// A group in three terminals: made, named, grown, left; everybody sees names and never ids.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Messengers, messengers } from '../support/messengers.ts'
import { hasTerminals, KEY } from '../support/terminal.ts'

const SLOW = 120_000
const ANY_ID = /[0-9a-f]{8}-[0-9a-f]{4}|unnamed-/

let world: Messengers
beforeAll(async () => {
  world = await messengers()
}, SLOW)
afterAll(() => world.close())

describe.skipIf(!hasTerminals)('a group', { timeout: SLOW }, () => {
  it('is made with a name, grows, is renamed, is left; ticks count people', async () => {
    const names = ['alice', 'bob', 'carol', 'dave']
    const [alice, bob, carol, dave] = await Promise.all(names.map((name) => world.start(name)))
    alice!.enter('/group "Rock climbing" bob carol')
    for (const each of [alice, bob, carol]) await each!.see('# Rock climbing')
    alice!.enter('who comes on Sunday?')
    for (const each of [bob, carol]) {
      each!.type(KEY.tab)
      await each!.see('alice who comes on Sunday?')
    }
    await alice!.see('who comes on Sunday? ✓✓')
    bob!.enter('me')
    await carol!.see(/bob +me/)
    await alice!.see(/bob +me/)

    alice!.enter('/add dave')
    await dave!.see('# Rock climbing')
    for (const each of [alice, bob, carol]) await each!.see('dave joined')
    dave!.type(KEY.tab)
    dave!.enter('hello all')
    for (const each of [alice, bob, carol]) await each!.see(/dave +hello all/)

    bob!.enter('/add erin')
    await bob!.see('Nobody on this relay is called erin.')
    bob!.enter('/remove dave')
    await bob!.see('The relay does not allow that')

    alice!.enter('/rename Sunday on the rocks')
    for (const each of [alice, bob, carol, dave])
      await each!.see('alice named the group Sunday on the rocks'.replace('alice', each === alice ? 'you' : 'alice'))

    carol!.enter('/leave')
    await carol!.see('Leave Sunday on the rocks?')
    carol!.type('y')
    await carol!.see('You are not in this group any more.')
    for (const each of [alice, bob, dave]) await each!.see('carol left')
    alice!.enter('/members')
    await alice!.see('In Sunday on the rocks')
    await alice!.see('you · admin')
    for (const each of [alice, bob, carol, dave]) expect(each!.screen).not.toMatch(ANY_ID)
    await Promise.all([alice, bob, carol, dave].map((each) => each!.close()))
  })
})
