// Before the screen: a first start makes keys, an account and a username, in plain lines; every obstacle is one line.
import { InvalidUsername, RelayError } from '../../client/index.ts'
import { lookFor } from '../demo/relay.ts'
import { deviceName, linkThis, type Say } from './link.ts'
import type { Options } from './options.ts'
import { recoverThis } from './recover.ts'
import { Refusal, sentenceOf } from './refusals.ts'
import { forgetStore, type Opened } from './store.ts'
import { safeLine } from './text.ts'
import { shortName } from './usernames.ts'

/** The device is registered, and has its name, when this returns. @throws Refusal with the line to show. */
export async function enrol(opened: Opened, options: Options, say: Say): Promise<void> {
  const { device, notebook, url, realm } = opened
  const { username, start } = options
  if (device.isRegistered) {
    const own = device.usernames.own
    if (start !== 'usual')
      throw new Refusal(`${options.data} has an account already; choose another place with --data.`)
    if (own && own !== username)
      throw new Refusal(`${options.data} belongs to ${shortName(own)}, not to ${shortName(username)}.`)
    if (!own && device.deviceId === 1) await claim(opened, options)
  } else {
    await findRelay(url)
    if (start === 'link') await linkThis(device, { username, url, say })
    else if (start === 'recover') await recoverThis(device, { username, say })
    else await register(opened, options, say)
    notebook.home = { url, realm }
  }
}

/** @throws Refusal when there is none that works. */
async function findRelay(url: string): Promise<void> {
  const found = await lookFor(url)
  if (found === 'nothing') throw new Refusal(`No relay runs at ${url}. Start one with: npm start`)
  if (found !== 'relay') throw new Refusal(`${url}: ${safeLine(found.other)}.`)
}

async function register(opened: Opened, options: Options, say: Say): Promise<void> {
  const { device, url, realm } = opened
  const { invitation } = options
  say(`Making keys and an account on ${url} …`)
  try {
    await device.register({ name: deviceName(), ...(invitation && { invitation }) })
  } catch (error) {
    throw new Refusal(whyNot(error, url, realm))
  }
  await claim(opened, options)
}

function whyNot(error: unknown, url: string, realm: string): string {
  if (!(error instanceof RelayError)) return sentenceOf(error)
  if (error.code === 'FORBIDDEN') return `The relay at ${url} takes nobody without an invitation: --invitation <code>.`
  // Of all that a proof is over, the realm is what a person can have got wrong.
  if (/proof/.test(error.message))
    return `The relay at ${url} has another realm than ${realm}, or this clock is more than 10 minutes off: give its SEALPOST_REALM with --realm.`
  return `The relay at ${url} refused: ${safeLine(error.message)}`
}

/** A name that cannot be had leaves nothing behind: the next try begins anew. */
async function claim({ device }: Opened, { username, data }: Options): Promise<void> {
  try {
    await device.usernames.claim(username)
  } catch (error) {
    if (error instanceof RelayError && error.code === 'CONFLICT') {
      await device.close()
      forgetStore(data)
      const other = `${username.split('.')[0]}.${10 + Math.floor(Math.random() * 90)}`
      throw new Refusal(`The username ${shortName(username)} is taken on this relay. Try another: --as ${other}`)
    }
    if (error instanceof InvalidUsername)
      throw new Refusal(`${username} cannot be a username here: ${safeLine(error.message)}`)
    throw new Refusal(sentenceOf(error))
  }
}
