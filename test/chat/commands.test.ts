// Commands: understood, refused in one line, hinted at, completed; and usernames as people type them.
import { describe, expect, it } from 'vitest'
import { COMMANDS, complete, hintsFor, parse } from '../../scripts/chat/commands.ts'
import { fullName, shortName } from '../../scripts/chat/usernames.ts'
import { helpLines } from '../../scripts/chat/welcome.ts'

describe('a line with a slash', () => {
  it.each([
    ['/chat bob', { name: 'chat', words: ['bob'] }],
    ['/GROUP "Rock climbing"  bob carol.42', { name: 'group', words: ['Rock climbing', 'bob', 'carol.42'] }],
    ['/group “Rock climbing” bob carol', { name: 'group', words: ['Rock climbing', 'bob', 'carol'] }],
    ['/rename Rock climbing', { name: 'rename', words: ['Rock', 'climbing'] }],
    ['/quit ', { name: 'quit', words: [] }],
  ])('%s', (line, command) => {
    expect(parse(line)).toEqual(command)
  })

  it.each([
    ['/chat', 'Usage: /chat <user>'],
    ['/chat a b', 'Usage: /chat <user>'],
    ['/group x bob', 'Usage: /group "<name>" <user> <user>…'],
    ['/vrify', 'There is no /vrify. /help lists what there is.'],
    ['/veryfy', 'There is no /veryfy. /help lists what there is.'],
    ['/verifx', 'There is no /verifx. Did you mean /verify?'],
    ['/', 'There is no /. Did you mean /chat?'],
    ['/constructor', 'There is no /constructor. /help lists what there is.'],
  ])('%s: %s', (line, sentence) => {
    expect(() => parse(line)).toThrow(sentence)
  })
})

describe('while it is typed', () => {
  it('hints at what it may become', () => {
    expect(hintsFor('/re')).toEqual(['retry', 'requests', 'remove', 'rename', 'recovery', 'renew', 'receipts'])
    expect(hintsFor('/chat al')).toEqual(['chat'])
    expect(hintsFor('hello')).toEqual([])
    expect(hintsFor('/nothing at')).toEqual([])
  })

  it.each([
    ['/ver', [], '/verify '],
    ['/re', [], null],
    ['/chat al', ['alice', 'bob'], '/chat alice '],
    ['/chat al', ['alice', 'alina.42'], '/chat ali'],
    ['/chat ', ['alice'], null],
    ['hello al', ['alice'], null],
  ] as [string, string[], string | null][])('completes %j with %j to %j', (before, people, whole) => {
    expect(complete(before, people)).toBe(whole)
  })
})

it('the help names every command', () => {
  const text = helpLines()
    .map((line) => line.text)
    .join('\n')
  for (const name of Object.keys(COMMANDS)) expect(text).toContain(`/${name}`)
})

it.each([
  ['alice', 'alice.01', 'alice'],
  ['@Alice', 'alice.01', 'alice'],
  ['alice.42', 'alice.42', 'alice.42'],
  ['al', null, ''],
  ['alice.1', null, ''],
  ['1lice', null, ''],
  ['../alice', null, ''],
])('%s is %s', (typed, whole, short) => {
  expect(fullName(typed)).toBe(whole)
  if (whole) expect(shortName(whole)).toBe(short)
})
