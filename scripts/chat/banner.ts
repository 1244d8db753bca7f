// What has to stay in sight: a connection that is over, a key that changed, a conversation that is over.
import type { CloseReason } from '../../client/index.ts'
import { labelOf } from './labels.ts'
import { type Chat, isMember, type Line, openChat, STRANGER, type State } from './model.ts'
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
  if (chat.archived) sentences.push('This conversation is archived.')
  else if (chat.members.length > 0 && !isMember(state, chat)) sentences.push('You are not in this group any more.')
  return sentences
}

/** Lines above the input. */
export const bannerOf = (state: State, cells: number): Line[] =>
  sentencesOf(state, openChat(state)).flatMap((sentence) =>
    wrap(sentence, cells - 2).map((text, at): Line => [{ text: (at === 0 ? '! ' : '  ') + text, tone: 'warning' }]),
  )
