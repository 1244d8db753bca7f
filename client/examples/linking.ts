// One more device of the same user: it shows a code, the primary scans it, and both users' words are asked for. In one program here.
import { type Device, LinkUriRefused } from '../index.ts'

/** On the new device. @param show draws a QR code of the text, null = none. @param isMine asks its user. */
export function join(
  laptop: Device,
  show: (uri: string | null) => void,
  isMine: (account: { userId: string; username: string }) => Promise<boolean>,
): Promise<void> {
  const request = laptop.requestLink({ name: 'laptop' })
  request.on('uri', show)
  request.on('refused', ({ reason }) => process.stdout.write(`${reason}\n`))
  request.on('offer', async (offer) => {
    if (!(await isMine(offer))) return offer.reject()
    await offer.accept().catch((error) => process.stdout.write(`not linked: ${error}\n`))
  })
  return request.once('linked').then(() => laptop.connect())
}

/** On the primary. @param uri as it was scanned. @param isWanted shows a warning: the device will read and write everything. */
export async function letIn(primary: Device, uri: string, isWanted: (name: string) => Promise<boolean>): Promise<void> {
  try {
    const { name } = primary.readLinkUri(uri)
    if (await isWanted(name)) await primary.approveLink(uri)
  } catch (error) {
    if (!(error instanceof LinkUriRefused)) throw error
    process.stdout.write(`${error.message}\n`)
  }
}
