// How the screen's state changes: one pure function of a state and an event.
import type { ConnectionState } from '../../client/index.ts'
import { type Edit, EMPTY, edit } from './editor.ts'
import { maxScroll, pageRows } from './layout.ts'
import {
  type Asked,
  type Chat,
  draftOf,
  type Entry,
  isRequest,
  NOTHING_ASKED,
  openChat,
  type Panel,
  type Person,
  STRANGER,
  type State,
  type Tone,
} from './model.ts'

/** Something that happened. */
export type Event =
  | { type: 'connection'; connection: ConnectionState; nowMs: number }
  | { type: 'person'; userId: string; change: Partial<Person> }
  | { type: 'chat'; chat: Pick<Chat, 'id' | 'kind' | 'name' | 'members' | 'ghosts' | 'archived' | 'forgotten'> }
  | { type: 'gone'; chatId: string }
  | { type: 'asked'; asked: Asked }
  /** Entries of the store, oldest first, before those that are there. */
  | { type: 'history'; chatId: string; entries: Entry[]; hasOlder: boolean }
  /** New, or one that is there and changed. */
  | { type: 'entry'; chatId: string; entry: Entry }
  | { type: 'unread'; chatId: string; unread: number }
  | { type: 'typing'; chatId: string; userId: string; isTyping: boolean }
  | { type: 'open'; chatId: string | null }
  | { type: 'move'; by: 1 | -1 }
  | { type: 'edit'; edit: Edit }
  | { type: 'scroll'; by: number }
  | { type: 'panel'; panel: Omit<Panel, 'scroll'> | null }
  | { type: 'toast'; text: string; tone?: Tone }
  | { type: 'quiet' }
  | { type: 'size'; columns: number; rows: number }
  | { type: 'tick'; nowMs: number }

/** Before anything is known. */
export const initial = (self: State['self'], relay: string, nowMs: number, hasColours = true): State => ({
  ...{
    self,
    relay,
    nowMs,
    hasColours,
    retryAtMs: 0,
    people: {},
    asked: NOTHING_ASKED,
    chats: [],
    open: null,
    draft: EMPTY,
    panel: null,
    toast: null,
  },
  connection: { name: 'closed', reason: 'stopped' },
  size: { columns: 80, rows: 24 },
})

/** The state after an event. What does not padded, because it came late, changes nothing. */
export function reduce(state: State, event: Event): State {
  switch (event.type) {
    case 'connection': {
      const { connection, nowMs } = event
      const typing = connection.name === 'live' ? state.chats : state.chats.map((chat) => ({ ...chat, typing: [] }))
      const retryAtMs = connection.name === 'offline' ? nowMs + connection.retryInMs : 0
      // What was said about a connection that was missing is out of date.
      const toast = connection.name === 'live' && state.toast?.tone === 'plain' ? null : state.toast
      return { ...state, connection, retryAtMs, nowMs, toast, chats: typing }
    }
    case 'person': {
      const before = state.people[event.userId] ?? STRANGER
      return { ...state, people: { ...state.people, [event.userId]: { ...before, ...event.change } } }
    }
    case 'chat':
      return withChat(state, event.chat)
    case 'gone':
      return {
        ...state,
        chats: state.chats.filter(({ id }) => id !== event.chatId),
        open: state.open === event.chatId ? null : state.open,
      }
    case 'asked': {
      const asking = { ...state, asked: event.asked }
      return { ...asking, chats: sorted(asking, state.chats) }
    }
    case 'history':
      return change(state, event.chatId, (chat) => {
        const known = new Set(chat.entries.map(keyOf))
        const older = event.entries.filter((entry) => !known.has(keyOf(entry)))
        const entries = [...older, ...chat.entries]
        return { ...chat, entries, hasOlder: event.hasOlder, lastAtMs: lastOf(entries) }
      })
    case 'entry':
      return change(state, event.chatId, (chat) => withEntry(state, chat, event.entry))
    case 'unread':
      return change(state, event.chatId, (chat) => ({ ...chat, unread: event.unread }))
    case 'typing':
      return change(state, event.chatId, (chat) => {
        const others = chat.typing.filter((each) => each !== event.userId)
        return { ...chat, typing: event.isTyping ? [...others, event.userId] : others }
      })
    case 'open':
      return { ...state, open: event.chatId, panel: null, toast: null }
    case 'move':
      return { ...state, open: neighbour(state, event.by), panel: null, toast: null }
    case 'edit':
      return edited(state, event.edit)
    case 'scroll':
      return scrolled(state, event.by)
    case 'panel':
      return { ...state, panel: event.panel && { ...event.panel, scroll: 0 }, toast: null }
    case 'toast':
      return { ...state, toast: { text: event.text, tone: event.tone ?? 'plain' } }
    case 'quiet':
      return state.toast ? { ...state, toast: null } : state
    case 'size':
      return clamped({ ...state, size: { columns: event.columns, rows: event.rows } })
    case 'tick':
      return { ...state, nowMs: event.nowMs }
  }
}

const keyOf = (entry: Entry): string =>
  entry.kind === 'notice'
    ? `notice ${entry.id}`
    : `${entry.message.senderUserId}.${entry.message.senderDeviceId}.${entry.message.id}`

const lastOf = (entries: Entry[]): number => {
  const last = entries.findLast((each) => each.kind === 'message')
  return last?.kind === 'message' ? last.message.sentAtMs : 0
}

// Whoever asks is not put before those one talks with, however much he writes.
const sorted = (state: Pick<State, 'asked' | 'self'>, chats: Chat[]): Chat[] =>
  chats
    .map((chat) => ({ chat, asks: Number(isRequest(state, chat)) }))
    .sort((a, b) => a.asks - b.asks || b.chat.lastAtMs - a.chat.lastAtMs || (a.chat.id < b.chat.id ? -1 : 1))
    .map(({ chat }) => chat)

function change(state: State, chatId: string, with_: (chat: Chat) => Chat): State {
  if (!state.chats.some(({ id }) => id === chatId)) return state
  const chats = state.chats.map((each) => (each.id === chatId ? with_(each) : each))
  return { ...state, chats: sorted(state, chats) }
}

function withChat(state: State, known: Extract<Event, { type: 'chat' }>['chat']): State {
  if (state.chats.some(({ id }) => id === known.id)) return change(state, known.id, (chat) => ({ ...chat, ...known }))
  const chat: Chat = {
    ...known,
    ...{ entries: [], hasOlder: false, unread: 0, lastAtMs: 0, draft: EMPTY, scroll: 0, typing: [] },
  }
  return { ...state, chats: sorted(state, [...state.chats, chat]) }
}

function withEntry(state: State, chat: Chat, entry: Entry): Chat {
  const at = chat.entries.findLastIndex((each) => keyOf(each) === keyOf(entry))
  const isNew = at < 0
  const entries = isNew ? [...chat.entries, entry] : chat.entries.with(at, entry)
  const sender = entry.kind === 'message' ? entry.message.senderUserId : ''
  const changed: Chat = {
    ...chat,
    entries,
    lastAtMs: isNew && entry.kind === 'message' ? Math.max(chat.lastAtMs, entry.message.sentAtMs) : chat.lastAtMs,
    // Who sent something does not write it any more.
    typing: isNew ? chat.typing.filter((each) => each !== sender) : chat.typing,
  }
  if (chat.scroll === 0) return changed
  // Someone reading further up stays where they are.
  const grown = maxScroll(state, changed) - maxScroll(state, chat)
  return { ...changed, scroll: Math.max(1, chat.scroll + grown) }
}

function neighbour({ chats, open }: State, by: 1 | -1): string | null {
  if (chats.length === 0) return null
  const at = chats.findIndex(({ id }) => id === open)
  const next = at < 0 ? (by > 0 ? 0 : chats.length - 1) : (at + by + chats.length) % chats.length
  return chats[next]!.id
}

function edited(state: State, by: Edit): State {
  const chat = openChat(state)
  const draft = edit(draftOf(state), by)
  if (!chat) return { ...state, draft, toast: null }
  const chats = state.chats.map((each) => (each.id === chat.id ? { ...each, draft } : each))
  return { ...state, chats, toast: null }
}

function scrolled(state: State, by: number): State {
  const { panel } = state
  if (panel) return clamped({ ...state, panel: { ...panel, scroll: panel.scroll - by } })
  const chat = openChat(state)
  if (!chat) return state
  return clamped(change(state, chat.id, (each) => ({ ...each, scroll: each.scroll + by })))
}

function clamped(state: State): State {
  const { panel } = state
  const within = (value: number, most: number) => Math.max(0, Math.min(value, most))
  return {
    ...state,
    panel: panel && { ...panel, scroll: within(panel.scroll, maxScroll(state, panel)) },
    chats: state.chats.map((chat) =>
      chat.scroll === 0 ? chat : { ...chat, scroll: within(chat.scroll, maxScroll(state, chat)) },
    ),
  }
}

/** Lines that PgUp moves by. */
export const pageOf = (state: State): number => Math.max(1, pageRows(state) - 2)
