// Commands about strangers: what waits for the user's word, and whom the user wants nothing of.
import type { Finder } from './finder.ts'
import { labelOf, titleOf } from './labels.ts'
import type { Messenger } from './messenger.ts'
import { Refusal } from './refusals.ts'

/** Of one messenger. */
export class RequestActions {
  private readonly messenger: Messenger
  private readonly finder: Finder

  constructor(messenger: Messenger, finder: Finder) {
    this.messenger = messenger
    this.finder = finder
  }

  async list(): Promise<void> {
    const { device, state } = this.messenger
    const waiting = await device.requests.list()
    const blocked = await device.requests.blocked()
    for (const { conversationId } of waiting) this.messenger.bring(conversationId)
    const lines = waiting.map(({ kind, byUserId }) => {
      const who = byUserId ? labelOf(state, byUserId) : 'Somebody'
      return { text: kind === 'direct' ? `${who} wants to talk to you.` : `${who} invites you to a group.` }
    })
    this.messenger.page('Requests', [
      ...(lines.length > 0 ? lines : [{ text: 'Nobody asks.' }]),
      { text: '' },
      { text: 'Open the conversation: /join accepts it, /decline does not want it, an answer accepts it too.' },
      { text: '' },
      ...blocked.map(({ userId }) => ({ text: `Blocked: ${labelOf(state, userId)}` })),
    ])
  }

  async join(): Promise<void> {
    const chat = this.finder.here()
    await this.messenger.device.requests.accept(chat.id)
    this.messenger.say(`Accepted: ${titleOf(this.messenger.state, chat)}.`, 'good')
  }

  async decline(): Promise<void> {
    const chat = this.finder.here()
    const { requests } = this.messenger.device
    const isAsked = (await requests.list()).some(({ conversationId }) => conversationId === chat.id)
    if (!isAsked) throw new Refusal('This is no request: /leave leaves a group.')
    await requests.decline(chat.id)
    this.messenger.say('Declined.')
  }

  async block(typed: string | undefined): Promise<void> {
    const userId = this.finder.peer(typed)
    await this.messenger.device.requests.block(userId)
    this.messenger.say(`Nothing comes from ${labelOf(this.messenger.state, userId)} any more, and they cannot tell.`)
  }

  async unblock(typed: string | undefined): Promise<void> {
    const userId = this.finder.peer(typed)
    await this.messenger.device.requests.unblock(userId)
    this.messenger.say(`${labelOf(this.messenger.state, userId)} can reach you again.`)
  }
}
