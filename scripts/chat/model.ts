// What the screen shows, as plain values. How it changes is in state.ts, how it looks in the view files.
import type { ConnectionState, Message } from '../../client/index.ts'
import type { Draft } from './editor.ts'

/** Somebody, oneself included. */
export type Person = {
  /** nick.NN, '' = not known. */
  username: string
  /** The relay was asked: the name is theirs. */
  isChecked: boolean
  /** Their safety number was compared by the user, for the key they have now. */
  isVerified: boolean
  /** Said to have another identity key: nothing passes until it is accepted. */
  hasNewKey: boolean
  isOnline: boolean
}

/** A line of the transcript that is not a message. @property text people in it are mentions, see labels.ts. @property tone how much it matters. */
export type Notice = { kind: 'notice'; id: string; atMs: number; text: string; tone: 'note' | 'warning' }
/** A message in the transcript. */
export type Shown = { kind: 'message'; message: Message }
/** One entry of a transcript. */
export type Entry = Notice | Shown

/** One conversation. */
export type Chat = {
  id: string
  kind: 'direct' | 'group'
  /** Of a group; null = it has none. */
  name: string | null
  members: { userId: string; role: 'member' | 'admin' }[]
  /** Whom the relay delivers to although nobody added them. */
  ghosts: string[]
  archived: boolean
  /** The relay does not know it any more. */
  forgotten?: boolean
  entries: Entry[]
  /** Before `entries` there are more in the store. */
  hasOlder: boolean
  unread: number
  /** Of the last message, Unix milliseconds; 0 = none. */
  lastAtMs: number
  draft: Draft
  /** Lines above the end of the transcript; 0 = the end is shown. */
  scroll: number
  /** Users who write at this moment. */
  typing: string[]
}

/** Strangers and whom the user blocks, by the relay's word. */
export type Asked = {
  /** Conversations that wait for the user's word, each with who asks; null = nothing here says it. */
  requests: Record<string, string | null>
  blocked: string[]
  /** Groups the user is in because somebody he blocks put him there, each with who. */
  unwanted: Record<string, string>
}

/** What a yes to a question does. */
export type Intent =
  | { do: 'compared'; userId: string }
  | { do: 'accept'; userId: string }
  | { do: 'leave'; chatId: string }
  | { do: 'link'; link: string }
  | { do: 'unlink'; deviceId: number }
  | { do: 'recovery' }
  | { do: 'renew' }

/** A page over the transcript. @property confirm it asks: y does this, n does not. */
export type Panel = { title: string; lines: PanelLine[]; confirm?: Intent; scroll: number }
/** A line of a panel, wrapped where it is too long. */
export type PanelLine = { text: string; tone?: Tone }

/** How something is said. Colours are chosen in theme.ts. */
export type Tone = 'plain' | 'dim' | 'strong' | 'good' | 'read' | 'bad' | 'warning' | 'accent' | 'inverse'

/** Everything on the screen. */
export type State = {
  self: { userId: string; deviceId: number; username: string }
  /** The relay's address, for people. */
  relay: string
  /** false: what a colour would say is said in words. */
  hasColours: boolean
  connection: ConnectionState
  /** When an offline connection is tried again, Unix milliseconds. */
  retryAtMs: number
  nowMs: number
  size: { columns: number; rows: number }
  people: Record<string, Person>
  asked: Asked
  /** Requests after all others; latest first. */
  chats: Chat[]
  open: string | null
  /** Typed while no conversation is open. */
  draft: Draft
  panel: Panel | null
  /** One line above the input, until the next key. */
  toast: { text: string; tone: Tone } | null
}

/** Nobody asks. */
export const NOTHING_ASKED: Asked = { requests: {}, blocked: [], unwanted: {} }

/** Nothing is known. */
export const STRANGER: Person = { username: '', isChecked: false, isVerified: false, hasNewKey: false, isOnline: false }

/** On narrower screens there is no list of conversations. */
export const SIDE_FROM_COLUMNS = 60

/** The conversation on the screen. */
export const openChat = (state: Pick<State, 'chats' | 'open'>): Chat | null =>
  state.chats.find(({ id }) => id === state.open) ?? null

/**
 * Whether it waits for the user's word. Who wrote an answer has given it, also while it is on the way; an invitation to a group cannot be
 * answered.
 */
export const isRequest = ({ asked, self }: Pick<State, 'asked' | 'self'>, { id, kind, entries }: Chat): boolean =>
  Object.hasOwn(asked.requests, id) &&
  (kind === 'group' || !entries.some((each) => each.kind === 'message' && isGivenWord(each.message, self.userId)))

const isGivenWord = ({ senderUserId, state }: Message, userId: string): boolean =>
  senderUserId === userId && state !== 'failed'

/** A piece of a line in one tone. */
export type Span = { text: string; tone?: Tone }
/** One line of the screen. */
export type Line = Span[]

/** Whether oneself is in it. */
export const isMember = (state: Pick<State, 'self'>, chat: Chat): boolean =>
  chat.members.some(({ userId }) => userId === state.self.userId)

/** What is typed at the moment. */
export const draftOf = (state: State): Draft => openChat(state)?.draft ?? state.draft

/** Messages of one's own in a conversation that failed, oldest first. */
export const failedIn = (chat: Chat): Message[] =>
  chat.entries.flatMap((each) => (each.kind === 'message' && each.message.state === 'failed' ? [each.message] : []))
