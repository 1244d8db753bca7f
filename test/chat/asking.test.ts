// Strangers in terminals, on a relay that asks: what a request looks like, wide and narrow, and what each side sees of an answer and a block.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { widthOf } from '../../scripts/chat/text.ts'
import { type Messengers, messengers } from '../support/messengers.ts'
import { hasTerminals, KEY } from '../support/terminal.ts'

const SLOW = 120_000

let world: Messengers
beforeAll(async () => {
  world = await messengers({ strangers: 'ask' })
}, SLOW)
afterAll(() => world.close())

const ASKED = [
  '? bob wants to talk to you.',
  '  An answer accepts it, /join too. /decline ends it, which',
  '  they see; /block hides them, and they cannot tell.',
  '· bob.01, looked up · not verified · no groups in common',
  '· Until you accept they are not told what arrived, what',
  '  you read, when you write or are online.',
]

describe.skipIf(!hasTerminals)('a request', { timeout: SLOW }, () => {
  it('stands apart, says what it is at every width, and is over with an answer; who is blocked sees nothing of it', async () => {
    const [alice, bob] = await Promise.all([world.start('alice'), world.start('bob')])
    bob.enter('/chat alice')
    await bob.see(/│ alice · not verified/)
    bob.enter('Hello Alice')
    await bob.see('you   Hello Alice ✓\n')
    await bob.see('If alice does not know you, ✓ is all you see')
    await alice.see(/ Requests · 1 +│ Somebody you do not know yet[\s\S]* \? bob +1 │/)
    expect(alice.screen).not.toContain('Hello Alice')

    alice.type(KEY.tab)
    await alice.see('bob · asks to talk')
    await alice.see('looked up')
    const drawn = alice.lines.map((line) => line.split('│ ')[1] ?? '')
    expect(drawn.slice(drawn.indexOf(ASKED[0]!)).slice(0, ASKED.length)).toEqual(ASKED)
    alice.resize(40, 24)
    await alice.see(
      /\n─{40}\n bob · asks to talk\n[\s\S]*\n {3}write or are online\.\n\n─{40}\n > Answer to accept; \/decline or \/block\n/,
    )
    expect(Math.max(...alice.lines.map(widthOf))).toBeLessThanOrEqual(40)
    alice.resize(40, 12)
    await alice.see(/Hello Alice\n(.*\n)* \? A request: answer, \/decline or \/block\n\n─{40}\n/)
    alice.resize(80, 24)
    alice.type('Hel')
    await alice.see('> Hel')
    expect(bob.screen).not.toMatch(/typing|online|✓✓/)
    alice.enter('lo Bob')
    await bob.see('alice Hello Bob')
    await bob.see('you   Hello Alice ✓✓')
    await expect.poll(() => bob.colourOf('✓✓'), { timeout: 20_000 }).toBe(33)
    await bob.see(/│ alice ● online/)
    await alice.lose('Requests')
    await alice.see(/│ bob ● online · not verified/)

    alice.enter('/block')
    await alice.see('! You block bob: nothing of theirs comes here')
    bob.enter('still there?')
    await bob.see('you   still there? ✓\n')
    alice.type(KEY.ctrlC)
    expect(await alice.ended).toBe(0)
    const again = await world.start('alice')
    await again.see('! You block bob')
    again.enter('/unblock bob')
    await again.lose('! You block bob')
    bob.enter('and now?')
    await again.see('bob and now?')
    expect(again.screen).not.toContain('still there?')
    await Promise.all([again.close(), bob.close()])
  })
})
