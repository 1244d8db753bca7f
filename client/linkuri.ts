// The text a new device shows, also as a QR code, and the primary reads: where it waits, and the key to seal to. [I-5.1]
import { NAME_MAX_CHARS } from '../proto/limits.ts'
import { base64url, fromBase64url } from './bytes.ts'
import type { ProvisionTarget } from './crypto.ts'

const PREFIX = 'sealpost:link?'
const ADDRESS_BYTES = 16
const KEY_BYTES = 33
/** Controls, and what turns the direction of text around: a name is for people to read. */
const UNREADABLE = /[\p{Cc}\u202A-\u202E\u2066-\u2069]/u

/** What a new device asks for. @property name what it calls itself, '' = nothing: its own word, and no proof of anything. */
export type LinkAsk = ProvisionTarget & { name: string }

/** The text is no link request, or it is for another relay. Nothing was sent. */
export class LinkUriRefused extends Error {
  readonly reason: 'not_a_request' | 'another_relay'

  constructor(reason: LinkUriRefused['reason'], message: string) {
    super(message)
    this.reason = reason
  }
}

/** Host and port as they stand in the uri: lowercase, the scheme's own port left out. @param url of the relay. */
export function hostOf(url: string): string {
  const { protocol, host } = new URL(url)
  // Platforms differ in whether they leave the port out.
  return host.toLowerCase().replace(protocol === 'https:' ? /:443$/ : /:80$/, '')
}

/** @param url of the relay. */
export function linkUri(url: string, { address, key, name }: LinkAsk): string {
  const named = name ? `&name=${encodeURIComponent(name)}` : ''
  return `${PREFIX}host=${hostOf(url)}&address=${base64url(address)}&key=${base64url(key)}${named}`
}

/** @param url of one's own relay: a request to be linked through another is refused. @throws LinkUriRefused. */
export function readLinkUri(url: string, uri: string): LinkAsk {
  const fields = fieldsOf(uri.trim())
  const host = fields.get('host') ?? ''
  const [address, key] = [bytesOf(fields.get('address')), bytesOf(fields.get('key'))]
  const name = fields.get('name') ?? ''
  const isKey = key?.length === KEY_BYTES && key[0] === 5
  if (
    !host ||
    address?.length !== ADDRESS_BYTES ||
    !key ||
    !isKey ||
    name.length > NAME_MAX_CHARS ||
    UNREADABLE.test(name)
  )
    throw noRequest()
  const [own, { protocol }] = [hostOf(url), new URL(url)]
  let asked: string
  try {
    asked = hostOf(`${protocol}//${host}`)
  } catch {
    throw noRequest()
  }
  if (asked !== own)
    throw new LinkUriRefused('another_relay', `this device waits at ${asked}, and this account lives at ${own}`)
  return { address, key, name }
}

function fieldsOf(uri: string): Map<string, string> {
  if (!uri.startsWith(PREFIX)) throw noRequest()
  const fields = new Map<string, string>()
  for (const field of uri.slice(PREFIX.length).split('&')) {
    const at = field.indexOf('=')
    const name = field.slice(0, Math.max(at, 0))
    if (fields.has(name)) throw noRequest()
    try {
      fields.set(name, decodeURIComponent(field.slice(at + 1)))
    } catch {
      throw noRequest()
    }
  }
  return fields
}

function bytesOf(text: string | undefined): Uint8Array | null {
  try {
    return text ? fromBase64url(text) : null
  } catch {
    return null
  }
}

const noRequest = () => new LinkUriRefused('not_a_request', 'this is no request of a device to be linked')
