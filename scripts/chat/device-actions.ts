// Commands about oneself and one's own devices: linked, listed, ended, recovered; and what went wrong on this one.
import type { Settings } from '../../client/index.ts'
import { withNames } from './labels.ts'
import type { Messenger } from './messenger.ts'
import type { Intent, PanelLine } from './model.ts'
import { Refusal } from './refusals.ts'
import { safeLine } from './text.ts'
import { dayOf } from './transcript.ts'
import { shortName } from './usernames.ts'

type DeviceIntent = Extract<Intent, { do: 'link' | 'unlink' | 'recovery' }>

/** Of one messenger. */
export class DeviceActions {
  private readonly messenger: Messenger

  constructor(messenger: Messenger) {
    this.messenger = messenger
  }

  /** The page asked, and the answer was yes. */
  async confirm(intent: DeviceIntent): Promise<void> {
    const { device } = this.messenger
    if (intent.do === 'link') {
      await device.approveLink(intent.link)
      this.messenger.say('Sent. The other device now asks whether this is your account.', 'good')
    } else if (intent.do === 'unlink') {
      await device.unlink(intent.deviceId)
      this.messenger.say(`Device ${intent.deviceId} is no device of yours any more.`)
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

  async list(): Promise<void> {
    const { device } = this.messenger
    const devices = await device.devices()
    const isPrimary = device.deviceId === 1
    this.messenger.page('Your devices', [
      ...devices.map(({ deviceId, name, createdAtMs }): PanelLine => {
        const marks = [...(deviceId === 1 ? ['primary'] : []), ...(deviceId === device.deviceId ? ['this one'] : [])]
        const what = [safeLine(name) || 'no name', ...marks, `since ${dayOf(createdAtMs)}`].join(' · ')
        return {
          text: `${String(deviceId).padStart(3)}  ${what}`,
          ...(deviceId === device.deviceId && { tone: 'strong' }),
        }
      }),
      { text: '' },
      {
        text: isPrimary
          ? '/link links another, /unlink <number> ends one.'
          : `/unlink ${device.deviceId} ends this one; the others are ended on the primary.`,
        tone: 'dim',
      },
    ])
  }

  link(link: string): void {
    const { device } = this.messenger
    if (device.deviceId !== 1) throw new Refusal('Only your primary device, number 1, can link others.')
    if (link === '') {
      this.explainLinking()
      return
    }
    const { name } = device.readLinkUri(link)
    this.messenger.page(
      'Link this device?',
      [
        { text: `It calls itself ${safeLine(name) || 'nothing'}.`, tone: 'strong' },
        { text: '' },
        {
          text: 'It will be you: read everything that is written to you from now on, and write in your name, until you unlink it.',
          tone: 'warning',
        },
        { text: '' },
        {
          text: 'Go on only if you see this link on a screen of your own, now. A link that somebody sent you is theirs.',
          tone: 'warning',
        },
        { text: '' },
        { text: 'y: send it your identity key, sealed for it alone.', tone: 'strong' },
      ],
      { do: 'link', link },
    )
  }

  unlink(typed: string): void {
    const { device } = this.messenger
    const deviceId = Number(typed)
    if (!Number.isInteger(deviceId) || deviceId < 1) throw new Refusal('Which? /devices lists their numbers.')
    const isSelf = deviceId === device.deviceId
    if (deviceId === 1) throw new Refusal('The primary device cannot be unlinked.')
    if (!isSelf && device.deviceId !== 1) throw new Refusal('Only your primary device can end another one.')
    this.messenger.page(
      isSelf ? 'End this device?' : `End device ${deviceId}?`,
      [
        {
          text: isSelf
            ? 'Nothing will come to it any more. What is here stays readable.'
            : 'Nothing will come to it any more. What it has, it keeps: messages that are there cannot be taken back.',
        },
      ],
      { do: 'unlink', deviceId },
    )
  }

  recovery(): void {
    throw new Refusal('Not yet.')
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

  private explainLinking(): void {
    const { state } = this.messenger
    const name = shortName(state.self.username) || 'alice'
    this.messenger.page('Link another device', [
      { text: 'In another terminal, or on another machine:' },
      { text: '' },
      { text: `npm run chat -- --as ${name} --link --data ./data/chat/${name}-laptop`, tone: 'strong' },
      { text: '' },
      { text: 'It shows a link. Type /link here, a space, paste the link, Enter.' },
    ])
  }
}
