// Whom somebody means: the name on the screen, or a username the relay is asked about.
import { nameOf, peerOf } from './labels.ts'
import type { Messenger } from './messenger.ts'
import { type Chat, openChat } from './model.ts'
import { Refusal } from './refusals.ts'
import { fullName, NAME_RULE } from './usernames.ts'

/** Finds people and the conversation that is meant. */
export class Finder {
  private readonly messenger: Messenger

  constructor(messenger: Messenger) {
    this.messenger = messenger
  }

  /** The open conversation. @throws Refusal. */
  here(kind?: Chat['kind']): Chat {
    const chat = openChat(this.messenger.state)
    if (!chat) throw new Refusal('No conversation is open: /chat and a username opens one.')
    if (kind && chat.kind !== kind) throw new Refusal('This is no group: /group makes one.')
    return chat
  }

  /** Somebody who is known, by the name on the screen; the other one of a direct conversation when nobody is named. */
  peer(typed: string | undefined): string {
    const { state } = this.messenger
    const chat = this.here()
    if (typed !== undefined) return this.known(typed) ?? this.member(chat, typed)
    const peer = peerOf(state, chat)
    if (!peer) throw new Refusal('With whom? Name somebody of the group.')
    return peer
  }

  /** Who is meant, also by a name that only the relay knows; who asks, or the other one, when nobody is named. */
  async somebody(typed: string | undefined): Promise<string> {
    if (typed !== undefined) return this.find(typed)
    const asking = this.messenger.state.asked.requests[this.here().id]
    return asking ?? this.peer(undefined)
  }

  member(chat: Chat, typed: string): string {
    const userId = this.known(typed)
    if (!userId || !chat.members.some((each) => each.userId === userId)) throw new Refusal(`${typed} is not in here.`)
    return userId
  }

  private known(typed: string): string | null {
    const { people } = this.messenger.state
    const name = typed.replace(/^@/, '').toLowerCase()
    const found = Object.entries(people).find(([userId, person]) =>
      [nameOf(person, userId), person.username].includes(name),
    )
    return found?.[0] ?? null
  }

  /** Somebody, by name: known here, or looked up. */
  async find(typed: string): Promise<string> {
    const { device, state, people } = this.messenger
    const known = this.known(typed)
    if (known) return known
    const username = fullName(typed)
    if (!username) throw new Refusal(`${typed} cannot be a username: ${NAME_RULE}.`)
    if (username === state.self.username) throw new Refusal('That is you.')
    const userId = await device.names.find(username)
    if (!userId) throw new Refusal(`Nobody on this relay is called ${typed}.`)
    people.refresh(userId)
    return userId
  }

  async findAll(typed: string[]): Promise<string[]> {
    const userIds: string[] = []
    for (const each of typed) userIds.push(await this.find(each.replace(/,$/, '')))
    return userIds
  }
}
