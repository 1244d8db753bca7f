// Commands for groups: made, named, joined, left.
import { GROUP_NAME_MAX } from '../../client/index.ts'
import type { Finder } from './finder.ts'
import { labelOf, titleOf } from './labels.ts'
import type { Messenger } from './messenger.ts'
import { type Chat, type PanelLine, STRANGER } from './model.ts'
import { Refusal } from './refusals.ts'

/** Of one messenger. */
export class GroupActions {
  private readonly messenger: Messenger
  private readonly finder: Finder

  constructor(messenger: Messenger, finder: Finder) {
    this.messenger = messenger
    this.finder = finder
  }

  async group([name = '', ...others]: string[]): Promise<void> {
    const { messenger } = this
    if (name.length > GROUP_NAME_MAX) throw new Refusal(`A group's name has at most ${GROUP_NAME_MAX} characters.`)
    const userIds = await this.finder.findAll(others)
    if (new Set(userIds).size < 2) throw new Refusal('A group has at least two others; /chat is for one.')
    const chatId = await messenger.device.conversations.group(userIds)
    messenger.bring(chatId)
    messenger.device.names.tell(chatId, name)
    messenger.open(chatId)
  }

  async add(typed: string[]): Promise<void> {
    const chat = this.finder.here('group')
    const { device } = this.messenger
    await device.conversations.addMembers(chat.id, await this.finder.findAll(typed))
    // Whoever is new knows neither the group's name nor its people's.
    device.names.tell(chat.id)
  }

  async remove(typed: string): Promise<void> {
    const chat = this.finder.here('group')
    const userId = this.finder.member(chat, typed)
    await this.messenger.device.conversations.removeMember(chat.id, userId)
  }

  rename(name: string): void {
    const chat = this.finder.here('group')
    if (name.length > GROUP_NAME_MAX) throw new Refusal(`A group's name has at most ${GROUP_NAME_MAX} characters.`)
    this.messenger.device.names.tell(chat.id, name)
  }

  leave(): void {
    const chat = this.finder.here('group')
    const title = titleOf(this.messenger.state, chat)
    this.messenger.page(
      `Leave ${title}?`,
      [
        { text: 'You will get nothing more from this group; what is here stays readable.' },
        { text: 'Only an admin of the group can add you again.' },
      ],
      { do: 'leave', chatId: chat.id },
    )
  }
  async left(chatId: string): Promise<void> {
    await this.messenger.device.conversations.leave(chatId)
    this.messenger.bring(chatId)
    await this.messenger.strangers.settle()
  }

  members(): void {
    const { messenger } = this
    const { state } = messenger
    const chat = this.finder.here()
    const line = ({ userId, role }: Chat['members'][number]): PanelLine => {
      const person = state.people[userId] ?? STRANGER
      const marks = [
        ...(role === 'admin' ? ['admin'] : []),
        ...(person.isOnline ? ['online'] : []),
        ...(person.hasNewKey ? ['new key!'] : person.isVerified ? ['verified'] : []),
      ]
      return { text: `${labelOf(state, userId)}${marks.length > 0 ? ` · ${marks.join(' · ')}` : ''}` }
    }
    const unsigned = messenger.device.conversations.get(chat.id)?.unsignedRevisions.length ?? 0
    this.messenger.page(`In ${titleOf(state, chat)}`, [
      ...chat.members.map(line),
      ...chat.ghosts.map(
        (userId): PanelLine => ({
          text: `${labelOf(state, userId)} · added by nobody: the relay delivers to them, this device does not encrypt for them`,
          tone: 'warning',
        }),
      ),
      ...(unsigned > 0
        ? [{ text: `${unsigned} changes that nobody in the group signed are not counted.`, tone: 'warning' as const }]
        : []),
    ])
  }
}
