// What has to stay in sight: a connection that is over, a key that changed, a conversation that is over.
import type { CloseReason } from '../../client/index.ts'
import { cardOf } from './card.ts'
import { labelOf, peerOf } from './labels.ts'
import { type Chat, isMember, type Line, openChat, STRANGER, type State, type Tone } from './model.ts'
import { wrap } from './text.ts'

const OVER: Record<CloseReason, string> = {
  stopped: '',
  connected_elsewhere: 'This device is open in another place, which took over. /connect takes it back.',
  unlinked:
    'The relay does not know this device any more: it was unlinked, or replaced after a recovery. What is here can still be read.',
  malformed: 'The relay refuses what this messenger sends: their versions do not fit.',
  wrong_realm: 'Another relay answers at this address, not the one this account is on. Start with the right --url.',
  storage_failed: 'The store failed: nothing more can be kept. Look at the disk, then start again.',
}

function sentencesOf(state: State, chat: Chat | null): string[] {
  const { connection } = state
  const over = connection.name === 'closed' ? OVER[connection.reason] : ''
  const sentences = over ? [over] : []
  if (!chat) return sentences
  for (const { userId } of chat.members) {
    if (!(state.people[userId] ?? STRANGER).hasNewKey) continue
    const name = labelOf(state, userId)
    const which = chat.kind === 'direct' ? '' : ` ${name}`
    sentences.push(
      `${name} has a new identity key: a new phone, or somebody in between. Nothing passes until you /accept${which}. /verify${which} shows the number to compare first.`,
    )
  }
  for (const userId of chat.ghosts)
    sentences.push(`The relay delivers to ${labelOf(state, userId)}, whom no member added: they get nothing from here.`)
  const { blocked, unwanted } = state.asked
  const peer = peerOf(state, chat)
  if (peer && blocked.includes(peer))
    sentences.push(
      `You block ${labelOf(state, peer)}: nothing of theirs comes here, and they cannot tell. /unblock ends it.`,
    )
  const adder = unwanted[chat.id]
  if (adder && isMember(state, chat) && !chat.archived)
    sentences.push(`${labelOf(state, adder)}, whom you block, put you into this group. /leave leaves it.`)
  if (chat.archived && peer)
    sentences.push(`This conversation is archived. /chat ${labelOf(state, peer)} begins another.`)
  else if (chat.archived) sentences.push('This group is archived.')
  else if (chat.forgotten)
    sentences.push(
      `The relay was restored and does not know this conversation any more. ${peer ? `/chat ${labelOf(state, peer)}` : '/group'} begins another.`,
    )
  else if (chat.members.length > 0 && !isMember(state, chat)) sentences.push('You are not in this group any more.')
  return sentences
}

// Nothing of it is known here, and it may be on its way: the relay tells neither for whom has not accepted, nor for whom blocks.
function untold(state: State, chat: Chat): string | null {
  const peer = peerOf(state, chat)
  if (!peer || chat.archived) return null
  const messages = chat.entries.flatMap((each) => (each.kind === 'message' ? [each.message] : []))
  const isSilent = messages.every(
    ({ senderUserId, delivered }) => senderUserId === state.self.userId && delivered === 0,
  )
  if (!isSilent || chat.hasOlder || !messages.some((each) => each.state === 'sent')) return null
  return `If ${labelOf(state, peer)} does not know you, ✓ is all you see until they accept.`
}

/** Lines above the input. @param rows there is room for so many, without taking it from the transcript. */
export function bannerOf(state: State, cells: number, rows: number): Line[] {
  const chat = openChat(state)
  const drawn = (text: string, sign: string, tone: Tone): Line[] =>
    wrap(text, cells - 2).map((line, at): Line => [{ text: (at === 0 ? sign : '  ') + line, tone }])
  const warnings = sentencesOf(state, chat).flatMap((sentence) => drawn(sentence, '! ', 'warning'))
  if (!chat) return warnings
  const silence = untold(state, chat)
  const hint = silence ? drawn(silence, '· ', 'dim') : []
  const card = cardOf(state, chat, cells, rows - warnings.length)
  return [...warnings, ...card, ...(hint.length + warnings.length <= rows ? hint : [])]
}
