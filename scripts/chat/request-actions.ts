// Commands about strangers: what waits for the user's word, and whom the user wants nothing of.
import { askerOf } from './card.ts'
import type { Finder } from './finder.ts'
import { labelOf, titleOf } from './labels.ts'
import type { Messenger } from './messenger.ts'
import { isRequest, type PanelLine } from './model.ts'
import { Refusal } from './refusals.ts'

const HOW: PanelLine[] = [
  { text: 'Tab goes there. An answer accepts, /join too; /decline does not want it, and they see that.' },
  { text: '/block wants nothing more of who asks, and they cannot tell. Who asks is told nothing before.' },
]

/** Of one messenger. */
export class RequestActions {
  private readonly messenger: Messenger
  private readonly finder: Finder

  constructor(messenger: Messenger, finder: Finder) {
    this.messenger = messenger
    this.finder = finder
  }

  async list(): Promise<void> {
    const { messenger } = this
    await messenger.strangers.refresh()
    const { state } = messenger
    const waiting = state.chats.filter((chat) => isRequest(state, chat))
    const asking = waiting.map((chat): PanelLine => {
      const wants = chat.kind === 'direct' ? 'wants to talk to you' : `invites you to a group: ${titleOf(state, chat)}`
      return { text: `${askerOf(state, chat)} ${wants}` }
    })
    const hidden = Object.keys(state.asked.requests).filter((id) => !state.chats.some((chat) => chat.id === id)).length
    if (hidden > 0) asking.push({ text: `${hidden} more, of which nothing can be verified yet` })
    const unwanted = state.chats.flatMap((chat): PanelLine[] => {
      const adder = state.asked.unwanted[chat.id]
      return adder ? [{ text: `${labelOf(state, adder)}, whom you block, put you into ${titleOf(state, chat)}` }] : []
    })
    messenger.page('Requests', [
      ...(asking.length > 0 ? asking : [{ text: 'Nobody asks.' }]),
      ...(asking.length > 0 ? [{ text: '' }, ...HOW] : []),
      ...(unwanted.length > 0 ? [{ text: '' }, ...unwanted, { text: 'In there /leave leaves it.' }] : []),
      ...(state.asked.blocked.length > 0 ? [{ text: '' }] : []),
      ...state.asked.blocked.map((userId) => ({ text: `Blocked: ${labelOf(state, userId)} · /unblock ends it` })),
    ])
  }

  async join(): Promise<void> {
    const { messenger } = this
    const chat = this.finder.here()
    await messenger.device.requests.accept(chat.id)
    await messenger.strangers.refresh()
    messenger.say(chat.kind === 'group' ? 'Joined.' : `Accepted: ${titleOf(messenger.state, chat)}.`, 'good')
  }

  async decline(): Promise<void> {
    const { messenger } = this
    const chat = this.finder.here()
    const { requests } = messenger.device
    const isAsked = (await requests.list()).some(({ conversationId }) => conversationId === chat.id)
    if (!isAsked) throw new Refusal('This is no request: /leave leaves a group, /block ends hearing from somebody.')
    await requests.decline(chat.id)
    await messenger.strangers.refresh()
    messenger.say('Declined.')
  }

  async block(typed: string | undefined): Promise<void> {
    const { messenger } = this
    const userId = await this.finder.somebody(typed)
    await messenger.device.requests.block(userId)
    await messenger.strangers.refresh()
    const name = labelOf(messenger.state, userId)
    messenger.say(
      `${name} is blocked, and cannot tell. In groups you share their messages still come, hidden. /unblock ${name} ends it.`,
    )
  }

  async unblock(typed: string | undefined): Promise<void> {
    const { messenger } = this
    const userId = await this.finder.somebody(typed)
    await messenger.device.requests.unblock(userId)
    await messenger.strangers.refresh()
    messenger.say(`${labelOf(messenger.state, userId)} can reach you again.`)
  }
}
