// The list of conversations at the left: those one talks in, then those that wait for a word, apart and without a line of what was written.
import { peerOf, titleOf } from './labels.ts'
import type { Layout } from './layout.ts'
import { type Chat, failedIn, isRequest, type Line, STRANGER, type State } from './model.ts'
import { padded, safeLine, widthOf } from './text.ts'

function chatLine(state: State, chat: Chat, cells: number): Line {
  const peer = peerOf(state, chat)
  const person = peer ? (state.people[peer] ?? STRANGER) : STRANGER
  const sign = chat.kind === 'group' ? '#' : isRequest(state, chat) ? '?' : person.isOnline ? '●' : ' '
  const isOpen = chat.id === state.open
  const marks = [
    ...(failedIn(chat).length > 0 ? ['✗'] : []),
    ...(person.hasNewKey || state.asked.unwanted[chat.id] ? ['!'] : []),
    ...(chat.unread > 0 ? [String(Math.min(chat.unread, 999))] : []),
  ].join(' ')
  const room = cells - 4 - (marks ? widthOf(marks) + 1 : 0)
  return [
    { text: isOpen ? '›' : ' ', tone: 'strong' },
    { text: `${sign} `, tone: sign === '●' ? 'good' : 'dim' },
    { text: padded(safeLine(titleOf(state, chat)), room), tone: isOpen || chat.unread > 0 ? 'strong' : 'plain' },
    { text: marks ? ` ${marks} ` : ' ', tone: 'warning' },
  ]
}

/** So many of them, the open one always among them if it is one of them. */
function windowOf(chats: Chat[], open: string | null, rows: number): Chat[] {
  const at = chats.findIndex(({ id }) => id === open)
  const from = Math.max(0, Math.min(at - Math.floor(rows / 2), chats.length - rows))
  return chats.slice(from, from + rows)
}

/** As many lines as the body has. However many ask, two thirds are left to those one talks with. */
export function sideLines(state: State, { side, body }: Pick<Layout, 'side' | 'body'>): Line[] {
  const asking = state.chats.filter((chat) => isRequest(state, chat))
  const talks = state.chats.filter((chat) => !asking.includes(chat))
  const room = body - 1
  const least = Math.min(asking.length + 1, Math.max(2, Math.floor(room / 3)))
  const below = asking.length === 0 ? 0 : Math.min(asking.length + 1, Math.max(least, room - talks.length))
  const rows = (chats: Chat[], count: number): Line[] =>
    windowOf(chats, state.open, count).map((chat) => chatLine(state, chat, side))
  const heading = (text: string): Line => [{ text: padded(` ${text}`, side), tone: 'dim' }]
  return [
    heading('Conversations'),
    ...rows(talks, room - below),
    ...(below > 0 ? [heading(`Requests · ${asking.length}`), ...rows(asking, below - 1)] : []),
  ]
}
