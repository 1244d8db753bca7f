// The list of conversations at the left: unread first to the eye, the open one marked, the one that is open always in sight.
import { peerOf, titleOf } from './labels.ts'
import type { Layout } from './layout.ts'
import { type Chat, failedIn, type Line, STRANGER, type State } from './model.ts'
import { padded, safeLine, widthOf } from './text.ts'

function chatLine(state: State, chat: Chat, cells: number): Line {
  const peer = peerOf(state, chat)
  const person = peer ? (state.people[peer] ?? STRANGER) : STRANGER
  const sign = chat.kind === 'group' ? '#' : person.isOnline ? '●' : ' '
  const isOpen = chat.id === state.open
  const marks = [
    ...(failedIn(chat).length > 0 ? ['✗'] : []),
    ...(person.hasNewKey ? ['!'] : []),
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

/** As many lines as the body has. */
export function sideLines(state: State, { side, body }: Layout): Line[] {
  const room = body - 1
  const at = state.chats.findIndex(({ id }) => id === state.open)
  const from = Math.max(0, Math.min(at - Math.floor(room / 2), state.chats.length - room))
  const rows = state.chats.slice(from, from + room).map((chat) => chatLine(state, chat, side))
  const heading: Line = [{ text: ' Conversations', tone: 'dim' }]
  return [heading, ...rows]
}
