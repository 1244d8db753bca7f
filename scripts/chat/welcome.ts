// What stands where no conversation is open, and the help: how to begin, and every command and key.
import { COMMANDS, type CommandName, usageOf } from './commands.ts'
import { isRequest, type Line, type PanelLine, type State } from './model.ts'
import { padded, wrap } from './text.ts'
import { shortName } from './usernames.ts'

const USAGE_CELLS = 32

/** Keys, for the help. */
const KEYS: [string, string][] = [
  ['Enter', 'send'],
  ['Alt+Enter, Ctrl+J', 'new line in a message'],
  ['Tab, Shift+Tab', 'next or previous conversation; completes a command'],
  ['↑ ↓ PgUp PgDn', 'scroll; beyond the top older messages come'],
  ['← → Ctrl+A Ctrl+E', 'move in the line; Alt+← → by words'],
  ['Ctrl+W Ctrl+U Ctrl+K', 'delete a word, to the start, to the end'],
  ['Ctrl+R', 'send failed messages again'],
  ['Ctrl+T', 'try to connect now'],
  ['Ctrl+L', 'draw the screen anew'],
  ['Esc', 'close a page, clear a command'],
  ['Ctrl+C', 'quit'],
]

/** Marks, for the help. */
const MARKS: [string, string][] = [
  ['◦', 'waits here: on the way, or until there is a connection'],
  ['✓', 'on the relay’s disk'],
  ['✓✓', 'delivered; in colour: read. In a group 1/2: by one of two'],
  ['✗', 'not sent'],
  ['name?', 'a name nobody has looked up yet'],
]

/** The help. */
export function helpLines(): PanelLine[] {
  const row = ([left, right]: [string, string]): PanelLine => ({ text: `${padded(left, USAGE_CELLS)} ${right}` })
  const names = Object.keys(COMMANDS) as CommandName[]
  const sections = [...new Set(names.map((name) => COMMANDS[name].section))]
  return [
    ...sections.flatMap((section): PanelLine[] => [
      { text: section, tone: 'strong' },
      ...names
        .filter((name) => COMMANDS[name].section === section)
        .map((name) => row([usageOf(name), COMMANDS[name].about])),
      { text: '' },
    ]),
    { text: 'Keys', tone: 'strong' },
    ...KEYS.map(row),
    { text: '' },
    { text: 'Marks', tone: 'strong' },
    ...MARKS.map(row),
  ]
}

/** For somebody who is here for the first time. */
export function welcome(state: State, cells: number): Line[] {
  const name = shortName(state.self.username)
  const sentences: PanelLine[] =
    state.chats.length > 0
      ? [
          {
            text: state.chats.every((chat) => isRequest(state, chat))
              ? 'Somebody you do not know yet asks to talk to you: Tab shows it, and tells them nothing.'
              : state.chats.some(({ unread }) => unread > 0)
                ? 'Somebody wrote to you: Tab opens it.'
                : 'Tab opens a conversation.',
          },
        ]
      : [
          { text: name ? `You are ${name}. Others write to you with /chat ${name}.` : 'You have no username here.' },
          { text: '' },
          { text: 'Type /chat and a username to write to somebody.' },
          { text: 'Type /help, or ?, for everything else.' },
          { text: '' },
          {
            text: 'What you write is encrypted here, for every device of theirs; the relay carries it and cannot read it.',
            tone: 'dim',
          },
        ]
  return sentences.flatMap(({ text, tone }) =>
    wrap(text, cells).map((line): Line => [{ text: line, ...(tone && { tone }) }]),
  )
}
