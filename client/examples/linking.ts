// A second device of the same user: it shows a key, the primary seals the identity to it, and how the bytes travel is the app's business.
import type { Device } from '../index.ts'

/** What both sides do, in order; between them are a QR code and whatever carries 150 bytes back. */
export async function link(primary: Device, laptop: Device): Promise<void> {
  const key = laptop.linkKey()
  const sealed = await primary.sealLink(key)
  await laptop.link(sealed, key, { name: 'laptop' })
  laptop.connect()
}
