// Two messengers in real terminals, on the real SDK and relay: what somebody sees who tries it for the first time.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Messengers, messengers } from '../support/messengers.ts'
import { hasTerminals, KEY, type Terminal } from '../support/terminal.ts'

const SLOW = 120_000

let world: Messengers
beforeAll(async () => {
  world = await messengers()
}, SLOW)
afterAll(() => world.close())

/** Strikes keys that change nothing until it is seen: 2 s after the last one nobody is typing any more. */
async function keysUntil(terminal: Terminal, seen: Promise<void>): Promise<void> {
  let isSeen = false
  const ended = () => {
    isSeen = true
  }
  seen.then(ended, ended)
  while (!isSeen) {
    terminal.type(`x${KEY.backspace}`)
    await new Promise((resolve) => setTimeout(resolve, 500))
  }
  return seen
}

describe.skipIf(!hasTerminals)('two people, each in a terminal', () => {
  it(
    'find each other by username, talk both ways, see typing and ticks; the relay restarts; history survives',
    async () => {
      const [alice, bob] = await Promise.all([world.start('alice'), world.start('bob')])
      await alice.see('You are alice. Others write to you with /chat alice.')
      alice.type('?')
      await alice.see('/chat <user>')
      alice.type(KEY.escape)
      await alice.lose('/chat <user>')
      bob.enter('/chat alice')
      await bob.see(/│ alice.*not verified: \/verify/)
      bob.enter('Hello Alice')
      await bob.see('you   Hello Alice ✓✓')

      // Unread until it is opened; then read, which Bob sees in colour.
      await alice.see(/ bob +1/)
      expect(bob.colourOf('✓✓')).toBe(244)
      alice.type(KEY.tab)
      await alice.see('bob Hello Alice')
      await bob.see('✓✓')
      await expect.poll(() => bob.colourOf('✓✓'), { timeout: 20_000 }).toBe(33)

      alice.type('I am writ')
      await keysUntil(alice, bob.see('alice is typing…'))
      alice.enter('ing')
      await bob.see('alice I am writing')
      await bob.lose('is typing')
      await alice.see('you I am writing ✓✓')
      await alice.see('● online')

      await world.relay.stop()
      await Promise.all([alice.see('○ offline'), bob.see('○ offline')])
      alice.enter('written while the relay was down')
      await alice.see('you written while the relay was down ◦')
      await world.relay.start()
      for (const each of [alice, bob]) each.type(KEY.ctrlT)
      await alice.see('you written while the relay was down ✓✓')
      await bob.see('alice written while the relay was down')
      bob.enter('it arrived')
      await alice.see('bob it arrived')

      alice.type(KEY.ctrlC)
      expect(await alice.ended).toBe(0)
      const again = await world.start('alice')
      for (const line of ['bob Hello Alice', 'you I am writing ✓✓', 'bob it arrived']) await again.see(line)
      bob.enter('welcome back')
      await again.see('bob welcome back')
      again.enter('/quit')
      expect(await again.ended).toBe(0)
    },
    SLOW,
  )
})
