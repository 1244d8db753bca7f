// Steps of linking, for tests that do something between them.
import type { Device, LinkOffer, LinkRequest } from '../../client/index.ts'

/** The uri that is shown, or the next one. @param other not this one. */
export const shownUri = async (request: LinkRequest, other: string | null = null): Promise<string> =>
  request.uri && request.uri !== other
    ? request.uri
    : (await request.once('uri', (uri) => uri !== null && uri !== other))!

/** From a uri to an offer, by way of the primary. */
export async function offered(request: LinkRequest, primary: Device): Promise<LinkOffer> {
  const uri = await shownUri(request)
  const [offer] = await Promise.all([request.once('offer'), primary.approveLink(uri)])
  return offer
}
