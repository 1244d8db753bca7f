// A second device of one's own, in a terminal: the link is shown and pasted, both sides ask, names and conversations come along.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { qrLines } from '../../scripts/chat/link.ts'
import { type Messengers, messengers } from '../support/messengers.ts'
import { hasTerminals, KEY, type Terminal } from '../support/terminal.ts'

const SLOW = 120_000

let world: Messengers
beforeAll(async () => {
  world = await messengers()
}, SLOW)
afterAll(() => world.close())

/** The newest link that a device showed; by then the code below it may have moved it out of sight. */
const linkIn = (terminal: Terminal): string => terminal.raw.match(/sealpost:link\?\S+(?=\s)/g)?.at(-1) ?? ''
async function linkOn(terminal: Terminal): Promise<string> {
  await expect.poll(() => linkIn(terminal), { timeout: 30_000 }).not.toBe('')
  return linkIn(terminal)
}

describe.skipIf(!hasTerminals)('another device', { timeout: SLOW }, () => {
  it('is linked after both sides were asked, gets what comes from then on, and is ended', async () => {
    const [alice, bob] = await Promise.all([world.start('alice'), world.start('bob')])
    bob.enter('/chat alice')
    await bob.see(/│ alice/)
    bob.enter('before')
    await alice.see(/bob +1/)
    alice.type(KEY.tab)
    await alice.see('bob before')

    const laptop = world.launch('alice', { store: 'laptop', args: ['--link'] })
    const link = await linkOn(laptop)
    // The code is at the end, where a terminal of 24 rows still shows all of it.
    await laptop.see(qrLines(link).at(-2)!)
    expect(laptop.screen).toContain(qrLines(link)[1]!)

    alice.enter('/link nonsense')
    await alice.see('this is no request of a device to be linked')
    alice.enter(`/link ${link}`)
    await alice.see('Link this device?')
    await alice.see(/It calls itself terminal on \S+\./)
    alice.type('y')
    await laptop.see('A device offers the account alice. Is it yours?')
    laptop.enter('yes')
    await laptop.see('● connected')
    await laptop.see(/│ +● bob|│ bob|● bob/)
    await alice.see('Device 2 of yours was linked.')

    bob.enter('to both of you')
    await alice.see('bob to both of you')
    laptop.type(KEY.tab)
    await laptop.see('bob to both of you')
    expect(laptop.screen).not.toContain('bob before')
    laptop.enter('from the laptop')
    await alice.see('you from the laptop')
    await bob.see('alice from the laptop')

    alice.enter('/devices')
    await alice.see(/1 {2}terminal on \S+ · primary · this one/)
    await alice.see(/2 {2}terminal on \S+ · since/)
    laptop.enter('/link x')
    await laptop.see('Only your primary device')
    alice.enter('/unlink 2')
    await alice.see('End device 2?')
    alice.type('y')
    await laptop.see('The relay does not know this device any more')
    bob.enter('to the primary alone')
    await alice.see('bob to the primary alone')
    expect(laptop.screen).not.toContain('to the primary alone')
    await Promise.all([alice, bob, laptop].map((each) => each.close()))
  })

  it('refused on the new side, nothing is kept there and another link is shown', async () => {
    const carol = await world.start('carol')
    const laptop = world.launch('carol', { store: 'carol-laptop', args: ['--link'] })
    const link = await linkOn(laptop)
    carol.enter(`/link ${link}`)
    await carol.see('Link this device?')
    carol.type('y')
    await laptop.see('Is it yours?')
    laptop.enter('no')
    await expect.poll(() => linkIn(laptop), { timeout: 20_000 }).not.toBe(link)
    await laptop.close()
    carol.enter('/devices')
    await carol.see('this one')
    expect(carol.screen).not.toMatch(/^ +2 {2}/m)
    await carol.close()
  })
})
