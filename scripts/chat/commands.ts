// What can be typed after a slash: one table, from which help, hints and completion come. Carrying out is in actions.ts.
import { Refusal } from './refusals.ts'

/** One command. `least` and `most` count words after the name. */
type Entry = { usage: string; about: string; section: Section; least: number; most: number }

/** Headings of the help. */
export type Section = 'Talking' | 'Groups' | 'Trust' | 'Devices' | 'This app'

const MANY = 1000

/** Every command, in the order of the help. */
export const COMMANDS = {
  chat: { usage: '<user>', about: 'open a conversation with somebody', section: 'Talking', least: 1, most: 1 },
  retry: { usage: '', about: 'send again what failed here (Ctrl+R)', section: 'Talking', least: 0, most: 0 },
  discard: { usage: '', about: 'give up what failed here', section: 'Talking', least: 0, most: 0 },
  requests: { usage: '', about: 'who asks to talk to you, and whom you block', section: 'Talking', least: 0, most: 0 },
  join: { usage: '', about: 'accept this conversation or invitation', section: 'Talking', least: 0, most: 0 },
  decline: { usage: '', about: 'do not want it', section: 'Talking', least: 0, most: 0 },
  block: {
    usage: '[user]',
    about: 'want nothing of somebody; they cannot tell',
    section: 'Talking',
    least: 0,
    most: 1,
  },
  unblock: { usage: '[user]', about: 'end that', section: 'Talking', least: 0, most: 1 },
  group: {
    usage: '"<name>" <user> <user>…',
    about: 'make a group, three people or more',
    section: 'Groups',
    least: 3,
    most: MANY,
  },
  add: { usage: '<user>…', about: 'add people to this group', section: 'Groups', least: 1, most: MANY },
  remove: { usage: '<user>', about: 'take somebody out of this group', section: 'Groups', least: 1, most: 1 },
  rename: { usage: '<name>', about: 'name this group', section: 'Groups', least: 1, most: MANY },
  members: { usage: '', about: 'who is in this conversation', section: 'Groups', least: 0, most: 0 },
  leave: { usage: '', about: 'leave this group', section: 'Groups', least: 0, most: 0 },
  verify: { usage: '[user]', about: 'safety number, to compare with theirs', section: 'Trust', least: 0, most: 1 },
  accept: { usage: '[user]', about: 'trust somebody’s new identity key', section: 'Trust', least: 0, most: 1 },
  problems: { usage: '', about: 'what was lost, unreadable or refused', section: 'Trust', least: 0, most: 0 },
  devices: { usage: '', about: 'devices of yours', section: 'Devices', least: 0, most: 0 },
  link: {
    usage: '<link>',
    about: 'link another device of yours to this one',
    section: 'Devices',
    least: 0,
    most: MANY,
  },
  unlink: { usage: '<number>', about: 'end a device of yours', section: 'Devices', least: 1, most: 1 },
  recovery: {
    usage: '',
    about: 'make a recovery code, for when every device is lost',
    section: 'Devices',
    least: 0,
    most: 0,
  },
  renew: {
    usage: '',
    about: 'another identity key: somebody may have yours',
    section: 'Devices',
    least: 0,
    most: 0,
  },
  me: { usage: '', about: 'who you are to others', section: 'This app', least: 0, most: 0 },
  receipts: {
    usage: 'on|off',
    about: 'tell others what you read, and learn it',
    section: 'This app',
    least: 1,
    most: 1,
  },
  presence: { usage: 'on|off', about: 'show when you are online, and see it', section: 'This app', least: 1, most: 1 },
  connect: { usage: '', about: 'try to connect now (Ctrl+T)', section: 'This app', least: 0, most: 0 },
  help: { usage: '', about: 'this page (?)', section: 'This app', least: 0, most: 0 },
  quit: { usage: '', about: 'leave (Ctrl+C)', section: 'This app', least: 0, most: 0 },
} as const satisfies Record<string, Entry>

/** A command by name. */
export type CommandName = keyof typeof COMMANDS
/** What was typed, understood. */
export type Command = { name: CommandName; words: string[] }

const NAMES = Object.keys(COMMANDS) as CommandName[]
const WORD = /"([^"]*)"|“([^”]*)”|(\S+)/gu

const isName = (word: string): word is CommandName => Object.hasOwn(COMMANDS, word)

/** How it is typed: `/chat <user>`. */
export const usageOf = (name: CommandName): string => `/${name} ${COMMANDS[name].usage}`.trim()

/** A command of a line that begins with a slash. @throws Refusal saying what is wrong with it. */
export function parse(line: string): Command {
  const words = [...line.slice(1).matchAll(WORD)].map(([, quoted, curly, plain]) => quoted ?? curly ?? plain ?? '')
  const typed = (words.shift() ?? '').toLowerCase()
  if (!isName(typed)) {
    const [near] = matching(typed)
    throw new Refusal(`There is no /${typed}. ${near ? `Did you mean /${near}?` : '/help lists what there is.'}`)
  }
  const { least, most } = COMMANDS[typed]
  if (words.length < least || words.length > most) throw new Refusal(`Usage: ${usageOf(typed)}`)
  return { name: typed, words }
}

/** Commands that begin like this, or are one letter away. */
function matching(typed: string): CommandName[] {
  const begins = NAMES.filter((name) => name.startsWith(typed))
  return begins.length > 0 ? begins : NAMES.filter((name) => name.startsWith(typed.slice(0, -1)) && typed.length > 2)
}

/** Commands to show while a line is typed: those that may still become it. */
export function hintsFor(line: string): CommandName[] {
  if (!line.startsWith('/')) return []
  const [typed = '', ...rest] = line.slice(1).split(' ')
  if (rest.length > 0) return isName(typed) ? [typed] : []
  return NAMES.filter((name) => name.startsWith(typed.toLowerCase()))
}

/** The text before the cursor, completed as far as it is clear; null when it is not. @param people names as they are shown. */
export function complete(before: string, people: string[]): string | null {
  if (!before.startsWith('/')) return null
  const space = before.lastIndexOf(' ')
  const stem = before.slice(space + 1)
  const choices = space < 0 ? NAMES.map((name) => `/${name}`) : people
  const fitting = choices.filter((each) => each.toLowerCase().startsWith(stem.toLowerCase()))
  const [one] = fitting
  if (one === undefined || (space >= 0 && stem === '')) return null
  const common = fitting.reduce((shared, each) => sharedStart(shared, each), one)
  if (fitting.length > 1 && common.length <= stem.length) return null
  return before.slice(0, space + 1) + common + (fitting.length === 1 ? ' ' : '')
}

function sharedStart(a: string, b: string): string {
  let length = 0
  while (length < a.length && a[length]?.toLowerCase() === b[length]?.toLowerCase()) length++
  return a.slice(0, length)
}
