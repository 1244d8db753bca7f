// Single lines around the transcript: connection, title, who is typing, which keys do what.
import { labelOf, peerOf, titleOf } from './labels.ts'
import {
  type Chat,
  failedIn,
  isRequest,
  type Line,
  openChat,
  SIDE_FROM_COLUMNS,
  type Span,
  STRANGER,
  type State,
} from './model.ts'
import { safeLine } from './text.ts'

/** How the connection is. */
export function connectionOf({ connection, retryAtMs, nowMs }: State): Span {
  switch (connection.name) {
    case 'live':
      return { text: '● connected', tone: 'good' }
    case 'syncing':
      return { text: '◐ catching up…', tone: 'warning' }
    case 'connecting':
      return { text: '◐ connecting…', tone: 'warning' }
    case 'offline': {
      const seconds = Math.max(0, Math.ceil((retryAtMs - nowMs) / 1000))
      return { text: `○ offline, next try in ${seconds} s`, tone: 'bad' }
    }
    case 'closed':
      return { text: connection.reason === 'stopped' ? '○ not connected' : '○ closed', tone: 'bad' }
  }
}

/** Over the transcript: with whom, and what is to be known about them. */
export function titleLine(state: State, chat: Chat | null): Line {
  if (!chat) return [{ text: 'Welcome', tone: 'strong' }]
  const title: Line = [{ text: safeLine(titleOf(state, chat)), tone: 'strong' }]
  if (isRequest(state, chat))
    return [...title, { text: chat.kind === 'direct' ? ' · asks to talk' : ' · an invitation', tone: 'accent' }]
  const peer = peerOf(state, chat)
  if (!peer) return [...title, { text: ` · ${chat.members.length} people · /members`, tone: 'dim' }]
  const { isOnline, isVerified, hasNewKey, isChecked, username } = state.people[peer] ?? STRANGER
  if (isOnline) title.push({ text: ' ● online', tone: 'good' })
  if (hasNewKey) title.push({ text: ' · new key!', tone: 'warning' })
  else if (isVerified) title.push({ text: ' · verified', tone: 'good' })
  else title.push({ text: ' · not verified: /verify', tone: 'dim' })
  if (username && !isChecked) title.push({ text: ' · says to be called that', tone: 'dim' })
  return title
}

/** Who is writing. */
export function typingOf(state: State, chat: Chat): string {
  const names = chat.typing.map((userId) => labelOf(state, userId))
  if (names.length === 0) return ''
  return names.length === 1 ? `${names[0]} is typing…` : `${names.slice(0, 3).join(', ')} are typing…`
}

/** In an empty input. */
export function placeholderOf(state: State): string {
  const chat = openChat(state)
  if (!chat) return 'Type /chat and a username, or /help'
  if (chat.archived) return 'Nothing can be sent here any more'
  if (!isRequest(state, chat)) return 'Write a message, or / for commands'
  return chat.kind === 'direct' ? 'Answer to accept; /decline or /block' : '/join to accept; /decline or /block'
}

// Where the list of conversations shows it nothing needs to be said.
function newsOf({ chats, open, size }: State): string {
  const count = chats.filter(({ id, unread }) => id !== open && unread > 0).length
  return count > 0 && size.columns < SIDE_FROM_COLUMNS ? ` (${count} new)` : ''
}

/** The keys that do something now. */
export function footerOf(state: State): string {
  if (state.panel?.confirm) return ' y yes · n no · ↑↓ scroll'
  if (state.panel) return ' Esc close · ↑↓ PgUp PgDn scroll · Ctrl+C quit'
  const chat = openChat(state)
  const asks = chat && isRequest(state, chat)
  const keys = [
    asks ? (chat.kind === 'direct' ? 'Enter send and accept' : '/join accept') : 'Enter send',
    ...(chat && failedIn(chat).length > 0 ? ['Ctrl+R send failed again'] : []),
    ...(state.connection.name === 'offline' ? ['Ctrl+T connect now'] : []),
    ...(state.chats.length > (chat ? 1 : 0) ? [`Tab next${newsOf(state)}`] : []),
    'PgUp scroll',
    '? help',
    'Ctrl+C quit',
  ]
  return ` ${keys.join(' · ')}`
}
