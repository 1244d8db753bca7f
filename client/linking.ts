// On the primary: what a new device asks for is shown to its user, and after their word the account is sealed to it. [I-5.3]
import { RelayError } from '../proto/errors.ts'
import { base64, base64url } from './bytes.ts'
import type { Core } from './core.ts'
import { readLinkUri } from './linkuri.ts'
import { Stage } from './stage.ts'

/**
 * Hands the account to the new device, identity key included: it can then read and write everything its user can.
 * Nothing is left to be done here whatever happens: without an answer the new device shows another request.
 * @param username '' = none. @throws LinkUriRefused; RelayError FORBIDDEN (not the primary), NOT_FOUND (nobody waits there any more), RATE_LIMITED.
 */
export async function approveLink(core: Core, url: string, uri: string, username: string): Promise<void> {
  const to = readLinkUri(url, uri)
  const { http, self } = core.account
  const { link_code } = await http.call<{ link_code: string }>('POST', '/v1/devices/link-code')
  const account = { userId: self.userId, linkCode: link_code, username }
  const sealed = core.crypto.sealProvision(new Stage(core.storage), to, account)
  try {
    await http.call('PUT', `/v1/provisioning/${base64url(to.address)}`, { message: base64(sealed) })
  } catch (error) {
    if (!(error instanceof RelayError) || error.code !== 'NOT_FOUND') throw error
    throw new RelayError('NOT_FOUND', 'the new device waits there no more: scan what it shows now')
  }
}
