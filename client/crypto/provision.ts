// What a primary device hands to a new one, sealed: the identity pair's private half is read and written here and nowhere else. [I-5.4]
import { PrivateKey, PublicKey } from '@signalapp/libsignal-client'
import { sealpost } from '../../proto/generated/content.js'
import { uuidFromBytes, uuidToBytes } from '../../proto/ids.ts'
import { bytes, concat, isSame } from '../bytes.ts'
import {
  type Provision as Account,
  type OfferedAccount,
  type ProvisionKey,
  type ProvisionTarget,
  Unopened,
} from '../crypto.ts'
import type { Stage } from '../stage.ts'
import { usernameHash } from './names.ts'
import { identityPair, putIdentity } from './stores.ts'

const { Provision } = sealpost.v1
const INFO = 'sealpost.v1 provision'
const ADDRESS_BYTES = 16
/** Whom, and in which delivery: what was sealed for another does not open. */
const boundTo = ({ address, key }: ProvisionTarget) => concat(address, key)

/** A key pair and an address for one delivery; the private half stays in this closure and ends with the process. */
export function createProvisionKey(): ProvisionKey {
  const pair = PrivateKey.generate()
  const target = {
    address: globalThis.crypto.getRandomValues(new Uint8Array(ADDRESS_BYTES)),
    key: pair.getPublicKey().serialize(),
  }
  return { ...target, open: (sealed) => read(unseal(pair, target, sealed)) }
}

/** The own identity pair and what belongs to it, for that key alone. @throws Error when the key is none. */
export function sealProvision(stage: Stage, to: ProvisionTarget, { userId, linkCode, username }: Account): Uint8Array {
  const { publicKey, privateKey } = identityPair(stage)
  const provision = Provision.encode({
    ...{ userId: uuidToBytes(userId), linkCode, username },
    ...{ identityPublicKey: publicKey.serialize(), identityPrivateKey: privateKey.serialize() },
  }).finish()
  return PublicKey.deserialize(bytes(to.key)).seal(bytes(provision), INFO, boundTo(to))
}

function unseal(pair: PrivateKey, target: ProvisionTarget, sealed: Uint8Array): Uint8Array {
  try {
    return pair.open(bytes(sealed), INFO, boundTo(target))
  } catch (error) {
    throw new Unopened('what came was altered, or sealed for another request', { cause: error })
  }
}

function read(opened: Uint8Array): OfferedAccount {
  try {
    const { userId, identityPublicKey, identityPrivateKey, linkCode, username } = Provision.decode(opened)
    const privateKey = PrivateKey.deserialize(bytes(identityPrivateKey))
    const publicKey = privateKey.getPublicKey()
    if (!isSame(publicKey.serialize(), identityPublicKey)) throw new Error('its keys are no pair')
    // [I-4.1]
    if (!/^[\w-]{22}$/.test(linkCode)) throw new Error('its link code is none')
    if (username) usernameHash(username)
    return {
      ...{ userId: uuidFromBytes(userId), identityKey: publicKey.serialize(), linkCode, username },
      adopt: (stage) => putIdentity(stage, privateKey),
    }
  } catch (error) {
    throw new Unopened('what came is no account', { cause: error })
  }
}
