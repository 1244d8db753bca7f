// A new device, before the screen: shows where it waits as a link and a QR code, and asks before it joins. The only importer of uqr.
import { hostname } from 'node:os'
import { createInterface } from 'node:readline/promises'
import { renderUnicodeCompact } from 'uqr'
import type { Device, LinkOffer } from '../../client/index.ts'
import { safeLine } from './text.ts'
import { shortName } from './usernames.ts'

const SLOW_MS = 8_000
const CLEAR = '\x1b[2J\x1b[3J\x1b[H'

/** Writes a line for the person in front of the terminal. */
export type Say = (line: string) => void

/** What one's own devices see this one called. */
export const deviceName = (): string => `terminal on ${safeLine(hostname()).slice(0, 40)}`

/** Rows that a terminal of 24 still shows whole. */
const CODE_MAX_ROWS = 22

/** The code as lines of half blocks, dark on light whatever the terminal's colours. Without the device's name where it would be too high. [I-5.1] */
export function qrLines(uri: string): string[] {
  const lines = (text: string) => renderUnicodeCompact(text, { border: 1 }).split('\n')
  const whole = lines(uri)
  return whole.length <= CODE_MAX_ROWS ? whole : lines(uri.replace(/&name=[^&]*/, ''))
}

/** Resolves when this is a device of the account its user confirmed. */
export function linkThis(
  device: Device,
  { username, url, say }: { username: string; url: string; say: Say },
): Promise<void> {
  say(`Asking ${url} for a place to wait …`)
  const request = device.requestLink({ name: deviceName() })
  const slow = setTimeout(() => say(`${url} offers none yet; trying again. Ctrl+C ends this.`), SLOW_MS)
  request.on('uri', (uri) => {
    clearTimeout(slow)
    if (uri) say(shown(uri, username))
    else if (!request.offer) say(`Waiting for ${url} …`)
  })
  request.on('refused', ({ reason }) => say(`Refused: ${safeLine(reason)}. Showing another link.`))
  request.on('offer', (offer) => void ask(offer, username, say))
  return new Promise((resolve) => request.on('linked', () => resolve()))
}

const shown = (uri: string, username: string): string =>
  [
    `${CLEAR}On your primary device, as ${shortName(username)}, type /link, a space, and paste this (new every 90 s):`,
    '',
    uri,
    '',
    ...qrLines(uri),
  ].join('\n')

async function ask(offer: LinkOffer, username: string, say: Say): Promise<void> {
  const terminal = createInterface({ input: process.stdin, output: process.stdout })
  const name = offer.username ? shortName(safeLine(offer.username)) : `a user without a name, ${offer.userId}`
  if (offer.username !== username)
    say(`You asked to be ${shortName(username)}; this is somebody else's offer, or another account of yours.`)
  const answer = await terminal.question(`\nA device offers the account ${name}. Is it yours? Type yes or no: `)
  terminal.close()
  if (!/^y(es)?$/i.test(answer.trim())) {
    offer.reject()
    return
  }
  say('Making keys …')
  await offer.accept().catch(() => {
    // The request says why, and shows another link where that helps.
  })
}
