// What commands do. Each may take a while; what goes wrong is said in one line and changes nothing.
import { type Command, type CommandName, parse } from './commands.ts'
import { DeviceActions } from './device-actions.ts'
import { textOf } from './editor.ts'
import { Finder } from './finder.ts'
import { GroupActions } from './group-actions.ts'
import { peerOf, titleOf } from './labels.ts'
import type { Messenger } from './messenger.ts'
import { type Chat, draftOf, failedIn, type Intent, isMember, isRequest, openChat } from './model.ts'
import { Refusal, sentenceOf } from './refusals.ts'
import { RequestActions } from './request-actions.ts'
import { SelfActions } from './self-actions.ts'
import { TrustActions } from './trust-actions.ts'
import { helpLines } from './welcome.ts'

const WAITS = 'Kept here; it goes out with the next connection. Ctrl+T tries now.'

/** Carries out what the user wants. */
export class Actions {
  private readonly messenger: Messenger
  private readonly finder: Finder
  private readonly groups: GroupActions
  private readonly requests: RequestActions
  private readonly trust: TrustActions
  private readonly devices: DeviceActions
  private readonly self: SelfActions
  private readonly quit: () => void

  constructor(messenger: Messenger, quit: () => void) {
    this.messenger = messenger
    this.finder = new Finder(messenger)
    this.groups = new GroupActions(messenger, this.finder)
    this.requests = new RequestActions(messenger, this.finder)
    this.trust = new TrustActions(messenger, this.finder)
    this.devices = new DeviceActions(messenger)
    this.self = new SelfActions(messenger)
    this.quit = quit
  }

  /** Enter: a command is carried out, anything else is sent. */
  enter(): void {
    const { messenger } = this
    const text = textOf(draftOf(messenger.state)).trimEnd()
    if (text.trim() === '') return
    void this.attempt(async () => {
      if (!text.startsWith('/')) this.send(text)
      else {
        // What cannot be understood stays, to be mended.
        const command = parse(text)
        messenger.tell({ type: 'edit', edit: { do: 'replace', text: '' } })
        await this.run(command)
      }
    })
  }

  /** What a command does, with its failures said. */
  async attempt(work: () => void | Promise<void>): Promise<void> {
    try {
      await work()
    } catch (error) {
      this.messenger.say(sentenceOf(error), 'bad')
    }
  }

  /** The open page asks: yes. */
  confirm(intent: Intent): void {
    const { messenger } = this
    messenger.tell({ type: 'panel', panel: null })
    void this.attempt(async () => {
      if (intent.do === 'compared') this.trust.compared(intent.userId)
      else if (intent.do === 'accept') await this.trust.accepted(intent.userId)
      else if (intent.do === 'leave') await this.groups.left(intent.chatId)
      else if (intent.do === 'link' || intent.do === 'unlink') await this.devices.confirm(intent)
      else await this.self.confirm(intent)
    })
  }

  /** Failed messages of the open conversation, again. */
  retry(): void {
    const { device, state } = this.messenger
    void this.attempt(() => {
      for (const { id } of this.failed()) device.retry(id)
      if (state.connection.name === 'offline') this.messenger.say(WAITS)
    })
  }

  /** Connects now, also after it was over for good. */
  connect(): void {
    this.messenger.device.connect()
    this.messenger.device.retryNow()
  }

  /** The help. */
  help(): void {
    this.messenger.page('Help', helpLines())
  }

  private send(text: string): void {
    const { messenger } = this
    const chat = openChat(messenger.state)
    if (!chat) throw new Refusal('No conversation is open: /chat and a username opens one.')
    if (!isMember(messenger.state, chat) || chat.archived) throw new Refusal('Nothing can be sent here any more.')
    if (chat.kind === 'group' && isRequest(messenger.state, chat))
      throw new Refusal('You are invited: /join first, then write.')
    messenger.device.send(chat.id, { text })
    messenger.tell({ type: 'edit', edit: { do: 'replace', text: '' } })
    messenger.tell({ type: 'scroll', by: Number.NEGATIVE_INFINITY })
    messenger.opened()
    if (messenger.state.connection.name === 'offline') messenger.say(WAITS)
  }

  private run({ name, words }: Command): void | Promise<void> {
    const [first = ''] = words
    const does: Record<CommandName, () => void | Promise<void>> = {
      chat: () => this.chat(first),
      retry: () => this.retry(),
      discard: () => this.discard(),
      requests: () => this.requests.list(),
      join: () => this.requests.join(),
      decline: () => this.requests.decline(),
      block: () => this.requests.block(words[0]),
      unblock: () => this.requests.unblock(words[0]),
      group: () => this.groups.group(words),
      add: () => this.groups.add(words),
      remove: () => this.groups.remove(first),
      rename: () => this.groups.rename(words.join(' ')),
      members: () => this.groups.members(),
      leave: () => this.groups.leave(),
      verify: () => this.trust.verify(words[0]),
      accept: () => this.trust.accept(words[0]),
      problems: () => this.self.problems(),
      devices: () => this.devices.list(),
      link: () => this.devices.link(words.join('')),
      unlink: () => this.devices.unlink(first),
      recovery: () => this.self.recovery(),
      renew: () => this.self.renew(),
      me: () => this.self.me(),
      receipts: () => this.self.settings('readReceipts', first),
      presence: () => this.self.settings('presence', first),
      connect: () => this.connect(),
      help: () => this.help(),
      quit: () => this.quit(),
    }
    return does[name]()
  }

  private async chat(typed: string): Promise<void> {
    const { messenger } = this
    const { state, device } = messenger
    const group = state.chats.find((chat) => chat.kind === 'group' && titleOf(state, chat) === typed)
    if (group) return messenger.open(group.id)
    const userId = await this.finder.find(typed)
    // What was archived or forgotten takes nothing more: the pair may begin another. [V-3.3] [K-9.2]
    const isOpen = (chat: Chat): boolean => !chat.archived && !chat.forgotten
    const known = messenger.state.chats.find((chat) => peerOf(state, chat) === userId && isOpen(chat))
    const chatId = known?.id ?? (await device.conversations.direct(userId))
    messenger.notebook.recall(chatId)
    messenger.bring(chatId)
    messenger.open(chatId)
  }

  private discard(): void {
    for (const { id } of this.failed()) this.messenger.device.discard(id)
    this.messenger.say('Given up; they stay marked as not sent.')
  }

  private failed() {
    const chat = openChat(this.messenger.state)
    const failed = chat ? failedIn(chat) : []
    if (failed.length === 0) throw new Refusal('Nothing failed here.')
    return failed
  }
}
