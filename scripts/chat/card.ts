// What stands over the input of a conversation that waits for the user's word: who asks, what is known of them, what they are told.
import { labelOf, peerOf, titleOf } from './labels.ts'
import { type Chat, isMember, isRequest, type Line, STRANGER, type State, type Tone } from './model.ts'
import { safeLine, wrap } from './text.ts'

const GROUPS_NAMED = 2

/** Groups the user talks in together with somebody, as far as this device knows them. */
export const groupsWith = (state: State, userId: string): Chat[] =>
  state.chats.filter(
    (chat) =>
      chat.kind === 'group' &&
      !chat.archived &&
      !isRequest(state, chat) &&
      isMember(state, chat) &&
      chat.members.some((member) => member.userId === userId),
  )

/** Who asks, by the name on the screen. */
export const askerOf = (state: State, chat: Chat): string => {
  const userId = state.asked.requests[chat.id] ?? peerOf(state, chat)
  return userId ? labelOf(state, userId) : 'Somebody'
}

/** What this app can vouch for, and no more. */
function factsOf(state: State, userId: string): string {
  const { username, isChecked, isVerified, hasNewKey } = state.people[userId] ?? STRANGER
  const name = !username ? 'tells no name' : isChecked ? `${username}, looked up` : `says to be ${username}`
  const key = hasNewKey ? 'another key than before' : isVerified ? 'verified' : 'not verified'
  const groups = groupsWith(state, userId)
  const named = groups.slice(0, GROUPS_NAMED).map((chat) => safeLine(titleOf(state, chat)))
  const more = groups.length > GROUPS_NAMED ? ` and ${groups.length - GROUPS_NAMED} more` : ''
  return [name, key, groups.length === 0 ? 'no groups in common' : `with you in ${named.join(', ')}${more}`].join(' · ')
}

type Part = { text: string; tone: Tone; sign: string }

function partsOf(state: State, chat: Chat): Part[] {
  const who = askerOf(state, chat)
  const asking = state.asked.requests[chat.id] ?? peerOf(state, chat)
  const isDirect = chat.kind === 'direct'
  const [what, how, untold] = isDirect
    ? [
        `${who} wants to talk to you.`,
        'An answer accepts it, /join too. /decline ends it, which they see; /block hides them, and they cannot tell.',
        'Until you accept they are not told what arrived, what you read, when you write or are online.',
      ]
    : [
        `${who} invites you to a group of ${chat.members.length}.`,
        '/join accepts it, /decline does not; /block hides who asks, and they cannot tell.',
        'Until you join you get nothing of it, and its members get nothing of you.',
      ]
  return [
    { text: what, tone: 'strong', sign: '? ' },
    { text: how, tone: 'plain', sign: '  ' },
    ...(asking
      ? [{ text: `${isDirect ? '' : `${who}: `}${factsOf(state, asking)}`, tone: 'dim' as const, sign: '· ' }]
      : []),
    { text: untold, tone: 'dim', sign: '· ' },
  ]
}

const SHORT: Record<Chat['kind'], string> = {
  direct: 'A request: answer, /decline or /block',
  group: 'An invitation: /join or /decline',
}

/** @param rows at most so many lines: where there is little room it says less. */
export function cardOf(state: State, chat: Chat, cells: number, rows: number): Line[] {
  if (!isRequest(state, chat)) return []
  const drawn = (parts: Part[]): Line[] =>
    parts.flatMap(({ text, tone, sign }) =>
      wrap(text, cells - 2).map((line, at): Line => [{ text: (at === 0 ? sign : '  ') + line, tone }]),
    )
  const parts = partsOf(state, chat)
  const short: Part = { text: SHORT[chat.kind], tone: 'strong', sign: '? ' }
  const forms = [parts, parts.slice(0, -1), parts.slice(0, 2), [short]].map(drawn)
  return forms.find(({ length }) => length <= rows) ?? forms.at(-1)!.slice(0, Math.max(1, rows))
}
