// Keys in the terminal: comparing safety numbers, an identity that changed and is accepted after a question, and the way back after a loss.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Messengers, messengers } from '../support/messengers.ts'
import { hasTerminals, KEY, type Terminal } from '../support/terminal.ts'

const SLOW = 120_000

let world: Messengers
beforeAll(async () => {
  world = await messengers()
}, SLOW)
afterAll(() => world.close())

/** The digits on the page of /verify. */
async function numberOn(terminal: Terminal, title: string): Promise<string> {
  terminal.enter('/verify')
  await terminal.see(title)
  return terminal.lines
    .filter((line) => /^ +(\d{5} {2}){3}\d{5}$/.test(line))
    .join('')
    .replaceAll(' ', '')
}

describe.skipIf(!hasTerminals)('trust', { timeout: SLOW }, () => {
  it('numbers are compared; a recovered account has another key, which passes nothing until it is accepted', async () => {
    const [alice, bob] = await Promise.all([world.start('alice'), world.start('bob')])
    bob.enter('/chat alice')
    await bob.see(/│ alice/)
    bob.enter('hello')
    await alice.see(/bob +1/)
    alice.type(KEY.tab)
    await alice.see('bob hello')
    const number = await numberOn(alice, 'Safety number with bob')
    expect(number).toMatch(/^\d{60}$/)
    expect(await numberOn(bob, 'Safety number with alice')).toBe(number)
    alice.type('n')
    await alice.see('not verified')
    bob.type('y')
    await bob.see('alice is verified.')
    await bob.see(/│ alice.* verified/)

    alice.enter('/recovery')
    await alice.see('You have none')
    alice.type('y')
    await alice.see('Your recovery code')
    const [code] = /[\w-]{22}/.exec(alice.screen.replaceAll(/^.*npm run.*$/gm, ''))!
    await alice.close()

    const anew = world.launch('alice', { store: 'alice-anew', args: ['--recover'] })
    await anew.see('Recovery code:')
    anew.enter(code)
    await anew.see('● connected')
    await bob.see('alice has a new identity key: a new phone, or somebody')
    await bob.see('new key!')
    bob.enter('are you there?')
    const offered = await numberOn(bob, 'alice has a new key. This is the number with the new key')
    expect(offered).not.toBe(number)
    bob.type('n')
    bob.enter('/accept')
    await bob.see('Accept the new key of alice?')
    bob.type('y')
    await bob.see('you accepted the new key of alice')
    await bob.lose('Nothing passes until you')
    await bob.see(/│ alice.*not verified/)
    bob.enter('under the new key')
    await anew.see(/bob.* 2/)
    anew.type(KEY.tab)
    await anew.see('bob under the new key')
    expect(await numberOn(anew, 'Safety number with bob')).toBe(offered)
    await Promise.all([bob.close(), anew.close()])
  })

  it('a recovery code that is none, or is not theirs, is one line', async () => {
    const start = async (typed: string) => {
      const terminal = world.launch('carol', { store: `carol-${typed}`, args: ['--recover'] })
      await terminal.see('Recovery code:')
      terminal.enter(typed)
      await terminal.see('ended with 1')
      return terminal.screen.replaceAll('\n', '')
    }
    expect(await start('nonsense')).toContain('That is no recovery code')
    expect(await start('AAAAAAAAAAAAAAAAAAAAAA')).toContain('The relay knows no carol with that code.')
  })
})
