// Commands about one's own devices: linked, listed, ended.
import type { Messenger } from './messenger.ts'
import type { Intent, PanelLine } from './model.ts'
import { Refusal } from './refusals.ts'
import { safeLine } from './text.ts'
import { dayOf } from './transcript.ts'
import { shortName } from './usernames.ts'

type DeviceIntent = Extract<Intent, { do: 'link' | 'unlink' }>

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
    } else {
      await device.unlink(intent.deviceId)
      this.messenger.say(`Device ${intent.deviceId} is no device of yours any more.`)
    }
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
