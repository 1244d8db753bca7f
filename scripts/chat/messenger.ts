// A device and a screen's state, kept in step: everything the device tells becomes an event of the state.
import type { Device, Message } from '../../client/index.ts'
import { type Edit, textOf } from './editor.ts'
import { lastPlace, pageOf } from './history.ts'
import { mention } from './labels.ts'
import { maxScroll } from './layout.ts'
import { memberNews } from './membership.ts'
import {
  type Chat,
  type Intent,
  isMember,
  isRequest,
  type Notice,
  openChat,
  type PanelLine,
  type State,
  type Tone,
} from './model.ts'
import type { Notebook } from './notebook.ts'
import { People } from './people.ts'
import { type Event, initial, reduce } from './state.ts'
import { Strangers } from './strangers.ts'
import { safeLine } from './text.ts'

/** What a messenger needs. */
export type Parts = {
  device: Device
  notebook: Notebook
  /** The relay's address, for people. */
  relay: string
  hasColours: boolean
  /** Told of every state. */
  show(state: State): void
  now(): number
}

/** The middle between device and screen. Commands are in actions.ts, keys in keyboard.ts. */
export class Messenger {
  readonly device: Device
  readonly notebook: Notebook
  readonly people: People
  readonly strangers: Strangers
  readonly now: () => number
  state: State
  private readonly show: (state: State) => void
  /** The oldest place that was loaded, by conversation. */
  private readonly loaded = new Map<string, string>()

  constructor({ device, notebook, relay, hasColours, show, now }: Parts) {
    this.device = device
    this.notebook = notebook
    this.show = show
    this.now = now
    const self = { userId: device.userId, deviceId: device.deviceId, username: device.usernames.own ?? '' }
    this.state = initial(self, relay, now(), hasColours)
    this.people = new People(this)
    this.strangers = new Strangers(this)
  }

  /** Shows what is stored, then connects. */
  start(size: { columns: number; rows: number }): void {
    this.tell({ type: 'size', ...size })
    this.strangers.start()
    for (const { id } of this.device.conversations.list()) this.bring(id)
    this.listen()
    const last = this.notebook.open
    const talks = this.state.chats.filter((chat) => !isRequest(this.state, chat))
    const chat = this.state.chats.find(({ id }) => id === last) ?? talks[0]
    if (chat) this.open(chat.id)
    this.device.connect()
  }

  /** Nothing is asked or shown any more; the device is not closed. */
  stop(): void {
    this.people.stop()
    this.strangers.stop()
  }

  /** Changes the state, and shows it. */
  tell(event: Event): void {
    this.state = reduce(this.state, event)
    this.show(this.state)
  }

  /** One line above the input. */
  say(text: string, tone: Tone = 'plain'): void {
    this.tell({ type: 'toast', text: safeLine(text), tone })
  }

  /** A page over the transcript. @param confirm it asks: what a yes does. */
  page(title: string, lines: PanelLine[], confirm?: Intent): void {
    this.tell({ type: 'panel', panel: { title: safeLine(title), lines, ...(confirm && { confirm }) } })
  }

  /** Shows a conversation, and counts it as read. */
  open(chatId: string): void {
    this.tell({ type: 'open', chatId })
    this.opened()
  }
  /** After the open conversation became another, or more of it is seen. */
  opened(): void {
    const chat = openChat(this.state)
    if (!chat) return
    this.notebook.open = chat.id
    this.seen(chat.id)
  }

  /** Changes what is typed; the others in the conversation are told that one writes. */
  edit(edit: Edit): void {
    this.tell({ type: 'edit', edit })
    const chat = openChat(this.state)
    if (!chat) return
    const text = textOf(chat.draft)
    // Whoever asks is told nothing, by the relay's rules and by ours. [V-6.3]
    if (!text.startsWith('/') && !isRequest(this.state, chat)) this.device.typing(chat.id, text !== '')
  }

  /** Loads what is above the top, when the top is seen. */
  reachTop(): void {
    const chat = openChat(this.state)
    const before = chat && this.loaded.get(chat.id)
    if (!chat?.hasOlder || !before || this.state.panel || chat.scroll < maxScroll(this.state, chat)) return
    const page = pageOf(this.device, this.notebook, chat.id, before)
    this.loaded.set(chat.id, page.first)
    this.tell({ type: 'history', chatId: chat.id, entries: page.entries, hasOlder: page.hasOlder })
  }

  /** A line in a conversation's transcript, kept. */
  note(chatId: string, text: string, tone: Notice['tone'] = 'note'): void {
    const atMs = this.now()
    const id = `${atMs}.${globalThis.crypto.randomUUID().slice(0, 8)}`
    const notice: Notice = { kind: 'notice', id, atMs, text, tone }
    this.notebook.addNotice(chatId, { notice, after: lastPlace(this.device, chatId) })
    this.tell({ type: 'entry', chatId, entry: notice })
  }
  /** The same in every conversation with a user. */
  noteAbout(userId: string, text: string): void {
    for (const chat of this.state.chats)
      if (chat.members.some((member) => member.userId === userId)) this.note(chat.id, text, 'warning')
  }

  /** A conversation as the device knows it now; a new one with its messages. One that was dismissed stays away. */
  bring(chatId: string): void {
    if (this.notebook.isDismissed(chatId)) return
    const known = this.device.conversations.get(chatId)
    if (!known || known.members.length === 0) return
    const { id, kind, members, ghosts, archived, forgotten } = known
    const before = this.state.chats.find((each) => each.id === id)
    const name = this.device.names.group(id)
    this.tell({ type: 'chat', chat: { id, kind, members, ghosts, archived, forgotten, name } })
    for (const { userId } of members) this.people.refresh(userId)
    this.people.watch()
    if (before) return
    const page = pageOf(this.device, this.notebook, id)
    this.loaded.set(id, page.first)
    this.tell({ type: 'history', chatId: id, entries: page.entries, hasOlder: page.hasOlder })
    this.tell({ type: 'unread', chatId: id, unread: this.device.unread(id) })
  }

  private listen(): void {
    const { device } = this
    device.on('state', (connection) => {
      this.tell({ type: 'connection', connection, nowMs: this.now() })
      if (connection.name === 'live') this.live()
    })
    device.on('message', (message) => this.take(message))
    device.on('message_changed', (message) => {
      this.entry(message)
      this.spoken(message)
    })
    device.on('conversation', ({ conversationId }) => void this.changed(conversationId))
    device.on('member_accepted', ({ conversationId, userId }) => {
      if (userId === device.userId) void this.strangers.settle()
      else if (this.chat(conversationId)) this.note(conversationId, `${mention(userId)} accepted`)
    })
    device.on('user_named', ({ userId }) => this.people.named(userId))
    device.on('group_named', ({ conversationId, byUserId, groupName }) => {
      this.bring(conversationId)
      this.note(conversationId, `${mention(byUserId)} named the group ${safeLine(groupName)}`)
    })
    device.on('typing', ({ conversationId, userId, isTyping }) =>
      this.tell({ type: 'typing', chatId: conversationId, userId, isTyping }),
    )
    device.on('presence', ({ userId, isOnline }) => this.tell({ type: 'person', userId, change: { isOnline } }))
    device.on('read', ({ conversationId }) =>
      this.tell({ type: 'unread', chatId: conversationId, unread: device.unread(conversationId) }),
    )
    this.listenToTrouble()
  }

  private listenToTrouble(): void {
    const { device } = this
    device.on('identity_changed', ({ userId }) => {
      this.people.refresh(userId)
      this.noteAbout(userId, `${mention(userId)} has a new identity key`)
    })
    device.on('undecryptable', ({ conversationId, userId, reason }) => {
      const why = reason === 'untrusted_identity' ? 'it waits until you /accept the new key' : 'asked for it again'
      this.troubleIn(conversationId, `a message from ${mention(userId)} could not be decrypted; ${why}`)
    })
    device.on('quarantined', ({ conversationId, userId, reason }) =>
      this.troubleIn(conversationId, `a message from ${mention(userId)} is not shown: ${reason}`),
    )
    device.on('ghost', ({ conversationId, userId }) => {
      this.bring(conversationId)
      this.troubleIn(conversationId, `the relay delivers to ${mention(userId)}, whom no member added`)
    })
    device.on('gap', ({ overflowed, expired }) => {
      const text = `${overflowed + expired} messages were lost: ${overflowed} because too much was waiting, ${expired} because they waited too long`
      for (const chat of this.state.chats) this.note(chat.id, text, 'warning')
    })
    device.on('own_devices', ({ change, deviceId }) =>
      this.say(`Device ${deviceId} of yours was ${change}.`, 'warning'),
    )
    device.on('problem', ({ what, detail }) => this.say(`${what}: ${detail}`, 'warning'))
  }

  private troubleIn(chatId: string, text: string): void {
    this.note(chatId, text, 'warning')
    if (this.chat(chatId)) this.bring(chatId)
    else void this.meet(chatId)
  }

  private live(): void {
    for (const { id } of this.state.chats) this.bring(id)
    this.people.live()
    this.strangers.live()
  }

  private take(message: Message): void {
    const { conversationId: chatId } = message
    if (!this.chat(chatId)) return void this.meet(chatId)
    this.entry(message)
    this.spoken(message)
    if (this.state.open === chatId) this.seen(chatId)
    else this.tell({ type: 'unread', chatId, unread: this.device.unread(chatId) })
  }

  // Whether somebody is a stranger is known before he is shown.
  private async meet(chatId: string): Promise<void> {
    if (!this.isOwn(chatId) && !(await this.strangers.meet(chatId))) return
    if (this.notebook.isDismissed(chatId) && !this.strangers.recalls(chatId)) return
    this.bring(chatId)
  }

  // An answer of the user's, from this device or another, has reached the relay. [V-6.1]
  private spoken({ conversationId, senderUserId, state }: Message): void {
    const isOut = senderUserId === this.device.userId && state !== 'sending' && state !== 'failed'
    if (isOut && Object.hasOwn(this.state.asked.requests, conversationId)) void this.strangers.settle()
  }

  private entry(message: Message): void {
    this.tell({ type: 'entry', chatId: message.conversationId, entry: { kind: 'message', message } })
  }

  private async changed(chatId: string): Promise<void> {
    if (!this.chat(chatId) && !this.isOwn(chatId) && !(await this.strangers.meet(chatId))) return
    const before = this.chat(chatId)
    this.bring(chatId)
    const after = this.chat(chatId)
    if (!after) return
    for (const text of memberNews(before, after)) this.note(chatId, text)
    const isIn = (chat: Chat | null) => !!chat && !chat.archived && isMember(this.state, chat)
    if (before && isIn(before) !== isIn(after)) void this.strangers.settle()
  }

  private isOwn(chatId: string): boolean {
    const { conversations, userId } = this.device
    return conversations.addedBy(chatId, userId) === userId
  }

  private chat(chatId: string): Chat | null {
    return this.state.chats.find(({ id }) => id === chatId) ?? null
  }

  // Read is what is on the screen: the end of the open conversation, with no page over it.
  private seen(chatId: string): void {
    const chat = this.state.chats.find(({ id }) => id === chatId) as Chat
    if (this.state.panel || chat.scroll > 0) {
      this.tell({ type: 'unread', chatId, unread: this.device.unread(chatId) })
      return
    }
    this.device.markRead(chatId)
    this.tell({ type: 'unread', chatId, unread: 0 })
  }
}
