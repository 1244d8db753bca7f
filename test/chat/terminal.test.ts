// What the messenger does with a terminal: takes it and gives it back, fits into any size, measures wide characters, keeps colours out when asked to.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { widthOf } from '../../scripts/chat/text.ts'
import { type Messengers, messengers } from '../support/messengers.ts'
import { runScript } from '../support/processes.ts'
import { hasTerminals, KEY, type Terminal } from '../support/terminal.ts'

const SLOW = 120_000

let world: Messengers
beforeAll(async () => {
  world = await messengers()
}, SLOW)
afterAll(() => world.close())

/** The rule under the header and the one over the input are where they belong, and nothing is wider than the terminal. */
function expectWhole(terminal: Terminal, columns: number, rows: number): void {
  const { lines } = terminal
  expect(lines).toHaveLength(rows)
  expect(lines[0]).toMatch(/^ \S+.*connected$/)
  expect(lines[1]).toMatch(new RegExp(`^[─┬]{${columns}}$`))
  expect(lines.at(-3)).toMatch(new RegExp(`^[─┴]{${columns}}$`))
  expect(lines.at(-2)).toMatch(/^ > /)
  expect(lines.at(-1)).toMatch(/^ Enter send/)
  expect(Math.max(...lines.map(widthOf))).toBeLessThanOrEqual(columns)
}

describe.skipIf(!hasTerminals)('in a terminal', { timeout: SLOW }, () => {
  it('has the screen for itself and gives it back, echo and cursor included, whichever way it ends', async () => {
    for (const end of ['/quit', KEY.ctrlC]) {
      const terminal = await world.start('alice')
      expect(terminal.isAlternate).toBe(true)
      expectWhole(terminal, 80, 24)
      expect(terminal.cursor).toEqual({ row: 22, column: 3 })
      terminal.type(end === '/quit' ? `/quit${KEY.enter}` : end)
      await terminal.see('ended with 0, icanon echo')
      expect(terminal.isAlternate).toBe(false)
      expect(terminal.raw.lastIndexOf('\x1b[?25h')).toBeGreaterThan(terminal.raw.lastIndexOf('\x1b[?25l'))
      expect(terminal.raw.lastIndexOf('\x1b[?2004l')).toBeGreaterThan(terminal.raw.lastIndexOf('\x1b[?2004h'))
      expect(await terminal.ended).toBe(0)
    }
  })

  it('fits into any size, and again when it changes while one types', async () => {
    const terminal = await world.start('bob')
    terminal.type('a draft')
    for (const [columns, rows] of [
      [120, 40],
      [59, 24],
      [30, 10],
      [80, 24],
    ] as const) {
      terminal.resize(columns, rows)
      await terminal.see(new RegExp(`\n[─┬]{${columns}}\n(.*\n){${rows - 5}}[─┴]{${columns}}\n > a draft\n`))
      expectWhole(terminal, columns, rows)
      expect(terminal.cursor).toEqual({ row: rows - 2, column: 10 })
    }
    terminal.resize(20, 5)
    await terminal.see('Please enlarge.')
    terminal.resize(80, 24)
    await terminal.see(' > a draft')
    await terminal.close()
  })

  it('wraps what is long and measures what is wide, also where one types; pastes keep their lines', async () => {
    const [alice, carol] = await Promise.all([world.start('alice'), world.start('carol')])
    carol.enter('/chat alice')
    await carol.see(/│ alice/)
    carol.type('你好👍')
    await carol.see(' > 你好👍')
    expect(carol.cursor).toEqual({ row: 22, column: 9 })
    carol.type(KEY.backspace)
    await carol.see(/> 你好$/m)
    carol.type(`${KEY.left}${KEY.ctrlU}`)
    await carol.see(/> 好$/m)
    carol.type(KEY.ctrlU)
    carol.enter(`${'你好世界'.repeat(12)} and 👍 then ${'long'.repeat(30)}`)
    await carol.see('✓✓')
    expectWhole(carol, 80, 24)
    const column = carol.lines.find((line) => line.includes('你好'))!.indexOf('你')
    expect(carol.lines.filter((line) => line.slice(21).startsWith(' '.repeat(column - 21))).length).toBeGreaterThan(3)

    alice.type(KEY.tab)
    await alice.see(/carol 你好/)
    alice.type('\x1b[200~first line\rsecond line\x1b[201~')
    await alice.see(/> first line\n {3}second line\n/)
    alice.type(KEY.enter)
    await carol.see(/alice first line\n.*│ +second line/)
    await Promise.all([alice.close(), carol.close()])
  })

  it('writes only rows that changed: a key costs a few dozen bytes, not a screen', async () => {
    const terminal = await world.start('bob')
    const before = terminal.raw.length
    terminal.type('x')
    await terminal.see(/> x$/m)
    expect(terminal.raw.length - before).toBeLessThan(300)
    expect(terminal.raw.slice(before)).not.toContain('\x1b[2J')
    await terminal.close()
  })

  it('leaves colours out with NO_COLOR, and says in words what they said', async () => {
    const [terminal, alice] = await Promise.all([world.start('dave', { env: { NO_COLOR: '1' } }), world.start('alice')])
    terminal.enter('/chat alice')
    await terminal.see(/│ alice/)
    terminal.enter('seen?')
    await alice.see(/dave +1/)
    alice.enter('/chat dave')
    await terminal.see('seen? ✓✓ read')
    terminal.type('?')
    await terminal.see('/block [user]')
    expect(terminal.raw.replaceAll('\x1b', '^')).not.toMatch(/\^\[[34]8;5;/)
    await Promise.all([terminal.close(), alice.close()])
  })
})

it('without a terminal it says so in one line, and fails', async () => {
  const script = runScript('scripts/chat.tsx', ['--as', 'alice', '--data', world.store('none')])
  expect(await script.ended).toBe(1)
  expect(script.stderr()).toBe('The messenger needs a terminal: its input and output must not be redirected.\n')
  expect(script.stdout()).toBe('')
})
