// What people and conversations are called on the screen.
import { type Chat, type Person, STRANGER, type State } from './model.ts'
import { shortName } from './usernames.ts'

type Known = Pick<State, 'self' | 'people'>

/** A user. A name nobody looked up yet has a question mark; who told none is shown by the start of the id. */
export function labelOf(state: Known, userId: string): string {
  if (userId === state.self.userId) return 'you'
  return nameOf(state.people[userId] ?? STRANGER, userId)
}

/** The same for a person who is not oneself. */
export const nameOf = ({ username, isChecked }: Person, userId: string): string =>
  username ? shortName(username) + (isChecked ? '' : '?') : `unnamed-${userId.slice(0, 6)}`

/** The other one of a direct conversation. */
export const peerOf = (state: Pick<State, 'self'>, chat: Chat): string | null =>
  chat.kind === 'direct' ? (chat.members.find(({ userId }) => userId !== state.self.userId)?.userId ?? null) : null

/** A conversation. */
export function titleOf(state: Known, chat: Chat): string {
  const peer = peerOf(state, chat)
  if (peer) return labelOf(state, peer)
  if (chat.kind === 'direct') return 'nobody'
  const others = chat.members.filter(({ userId }) => userId !== state.self.userId)
  return chat.name ?? (others.map(({ userId }) => labelOf(state, userId)).join(', ') || 'an empty group')
}

/** Everybody known, by the name to type. */
export const typeable = (state: Known): string[] =>
  Object.values(state.people)
    .filter(({ username }) => username !== '')
    .map(({ username }) => shortName(username))
    .sort()

// Around an id; no text from elsewhere can hold it: it is a control character.
const MARK = '\u0001'

/** In a text that is kept: who this is will be known later. */
export const mention = (userId: string): string => MARK + userId + MARK

/** A text with its people by the names they have now. */
export const withNames = (state: Known, text: string): string =>
  text
    .split(MARK)
    .map((part, at) => (at % 2 === 1 ? labelOf(state, part) : part))
    .join('')
