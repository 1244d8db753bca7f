// Commands about keys: the number to compare, and the key that changed. Nothing is accepted without a question.
import type { Finder } from './finder.ts'
import { labelOf, mention } from './labels.ts'
import type { Messenger } from './messenger.ts'
import type { PanelLine } from './model.ts'
import { Refusal } from './refusals.ts'

/** Of one messenger. */
export class TrustActions {
  private readonly messenger: Messenger
  private readonly finder: Finder

  constructor(messenger: Messenger, finder: Finder) {
    this.messenger = messenger
    this.finder = finder
  }

  verify(typed: string | undefined): void {
    const { device, state } = this.messenger
    const userId = this.finder.peer(typed)
    const label = labelOf(state, userId)
    const offered = device.offeredSafetyNumber(userId)
    const number = offered ?? device.safetyNumber(userId)
    if (!number) throw new Refusal(`Nothing has passed between you and ${label} yet: write first.`)
    const groups = number.match(/\d{5}/g) ?? []
    const rows = [0, 4, 8].map((at) => groups.slice(at, at + 4).join('  '))
    const intro = offered
      ? `${label} has a new key. This is the number with the new key, as they must see it:`
      : `Between you and ${label}:`
    this.messenger.page(
      `Safety number with ${label}`,
      [
        { text: intro },
        { text: '' },
        ...rows.map((text): PanelLine => ({ text: `    ${text}`, tone: 'strong' })),
        { text: '' },
        {
          text: 'Compare it where nobody can interfere: face to face, or on the phone. Both sides see the same digits, or somebody is in between.',
        },
        { text: '' },
        {
          text: offered ? `Is it the same? y accepts the new key.` : `Is it the same? y marks ${label} as verified.`,
          tone: 'strong',
        },
      ],
      { do: offered ? 'accept' : 'compared', userId },
    )
  }
  compared(userId: string): void {
    const { device, notebook, people, state } = this.messenger
    const number = device.safetyNumber(userId)
    if (number) notebook.noteCompared(userId, number)
    people.refresh(userId)
    this.messenger.say(`${labelOf(state, userId)} is verified.`, 'good')
  }

  accept(typed: string | undefined): void {
    const { device, state } = this.messenger
    const userId = this.finder.peer(typed)
    const label = labelOf(state, userId)
    if (!device.offeredIdentity(userId)) throw new Refusal(`${label} has the key they had.`)
    this.messenger.page(
      `Accept the new key of ${label}?`,
      [
        {
          text: `${label} began anew on another device, or somebody pretends to be ${label}. The relay cannot tell the two apart, and neither can this messenger.`,
          tone: 'warning',
        },
        { text: '' },
        { text: 'To be sure, press n and compare with /verify first.' },
        { text: '' },
        { text: 'y: write to the new key, and read what came under it.', tone: 'strong' },
      ],
      { do: 'accept', userId },
    )
  }
  async accepted(userId: string): Promise<void> {
    const { messenger } = this
    await messenger.device.acceptIdentity(userId)
    messenger.people.refresh(userId)
    messenger.noteAbout(userId, `you accepted the new key of ${mention(userId)}`)
  }
}
