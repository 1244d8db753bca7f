// What a primary device gives to a new one, sealed: the identity key pair, who the user is, and the code that lets it in. How the
// sealed bytes travel is the app's business. [I-4]
import { type Uuid, uuidFromBytes } from '../proto/ids.ts'
import { concat, utf8 } from './bytes.ts'
import type { Core } from './core.ts'
import { Stage } from './stage.ts'
import { idBytes } from './wire.ts'

/** @param linkKey of the new device, 33 bytes, as its user showed it. */
export const sealIdentityMessage = (
  core: Core,
  linkKey: Uint8Array,
  { userId, linkCode }: { userId: Uuid; linkCode: string },
): Uint8Array =>
  core.crypto.sealIdentity(new Stage(core.storage), linkKey, concat(idBytes(userId), utf8(linkCode)), linkKey)

/** The identity goes into the stage. @throws Error when it was sealed for another key. */
export function openIdentityMessage(
  core: Core,
  stage: Stage,
  sealed: Uint8Array,
  linkKey: Uint8Array,
): { userId: Uuid; linkCode: string } {
  const message = core.crypto.openIdentity(stage, sealed, linkKey)
  return { userId: uuidFromBytes(message.slice(0, 16)), linkCode: new TextDecoder().decode(message.slice(16)) }
}
