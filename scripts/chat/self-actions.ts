// Commands about oneself: who one is, what others see, the way back after a loss; and what went wrong on this device.
import type { Settings } from '../../client/index.ts'
import { withNames } from './labels.ts'
import { deviceName } from './link.ts'
import type { Messenger } from './messenger.ts'
import type { Intent, PanelLine } from './model.ts'
import { Refusal } from './refusals.ts'
import { dayOf } from './transcript.ts'
import { shortName } from './usernames.ts'

/** Of one messenger. */
export class SelfActions {
  private readonly messenger: Messenger

  constructor(messenger: Messenger) {
    this.messenger = messenger
  }

  /** The page asked, and the answer was yes. */
  async confirm(intent: Extract<Intent, { do: 'recovery' } | { do: 'renew' }>): Promise<void> {
    const { device } = this.messenger
    if (intent.do === 'recovery') this.showCode(await device.recovery.makeCode())
    else {
      await device.replaceIdentity({ name: deviceName() })
      this.messenger.say('You have another identity key. Whoever talks to you is asked to accept it.', 'good')
    }
  }

  me(): void {
    const { device, state } = this.messenger
    const name = state.self.username
    this.messenger.page('You', [
      { text: name ? `Username  ${name}` : 'You have no username.' },
      ...(name ? [{ text: `Others write to you with /chat ${shortName(name)}` }] : []),
      { text: '' },
      { text: `User      ${device.userId}`, tone: 'dim' },
      { text: `Device    ${device.deviceId}${device.deviceId === 1 ? ', the primary' : ''}`, tone: 'dim' },
      { text: `Relay     ${state.relay}`, tone: 'dim' },
    ])
  }

  recovery(): void {
    const { device } = this.messenger
    if (device.deviceId !== 1) throw new Refusal('Only your primary device, number 1, makes recovery codes.')
    const { madeAtMs } = device.recovery
    this.messenger.page(
      'A recovery code?',
      [
        {
          text:
            madeAtMs === null
              ? 'You have none: if what this terminal keeps is lost, your account is lost with it.'
              : `You have one since ${dayOf(madeAtMs)}. A new one makes it void.`,
          tone: 'strong',
        },
        { text: '' },
        {
          text: 'With the code you become yourself again on an empty device: with your username and your conversations, without old messages, and with a new identity key that others have to accept. Whoever finds it can do the same.',
        },
        { text: '' },
        { text: 'y: make a code and show it, once.', tone: 'strong' },
      ],
      { do: 'recovery' },
    )
  }

  renew(): void {
    this.messenger.page(
      'Another identity key?',
      [
        { text: 'For when somebody else may have your keys.', tone: 'strong' },
        { text: '' },
        {
          text: 'Your other devices are no devices of yours any more, your recovery code is void, and everybody you talk to is warned and has to accept the new key. Messages that are here stay.',
          tone: 'warning',
        },
        { text: '' },
        { text: 'y: make new keys.', tone: 'strong' },
      ],
      { do: 'renew' },
    )
  }

  private showCode(code: string): void {
    const name = shortName(this.messenger.state.self.username)
    this.messenger.page('Your recovery code', [
      { text: 'Write it down; it is kept nowhere and not shown again:' },
      { text: '' },
      { text: `    ${code}`, tone: 'strong' },
      { text: '' },
      { text: 'To begin anew with it, on this machine or another:' },
      { text: '' },
      { text: `npm run chat -- --as ${name} --recover --data ./data/chat/${name}-anew`, tone: 'strong' },
    ])
  }

  async settings(which: keyof Settings, typed: string): Promise<void> {
    if (typed !== 'on' && typed !== 'off') throw new Refusal('on or off?')
    await this.messenger.device.changeSettings({ [which]: typed === 'on' })
    const what = which === 'presence' ? 'Whether you are online' : 'What you read'
    const does =
      typed === 'on' ? 'is shown to those you talk to, and theirs to you' : 'is shown to nobody, and theirs not to you'
    this.messenger.say(`${what} ${does}.`)
  }

  /** Everything that was not as it should be, in all conversations. */
  problems(): void {
    const { device, notebook, state } = this.messenger
    const lost = device.gaps().map(
      ({ overflowed, expired, sinceMs }): PanelLine => ({
        text: `${overflowed + expired} messages lost since ${dayOf(sinceMs)}: ${overflowed} because too much was waiting for this device, ${expired} because they waited too long`,
        tone: 'warning',
      }),
    )
    const told = state.chats.flatMap(({ id }) =>
      notebook
        .notices(id)
        .filter(({ notice }) => notice.tone === 'warning')
        .map(({ notice }): PanelLine => ({ text: `${dayOf(notice.atMs)}: ${withNames(state, notice.text)}` })),
    )
    const lines = [...lost, ...told]
    this.messenger.page(
      'Lost, unreadable, refused',
      lines.length > 0 ? lines : [{ text: 'Nothing. Every message that was sent to this device was read.' }],
    )
  }
}
