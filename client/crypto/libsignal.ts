// Crypto through libsignal. Runs on Node, where libsignal's package has its binaries.
import { createHash, randomBytes } from 'node:crypto'
import {
  CiphertextMessageType,
  DecryptionErrorMessage,
  ErrorCode,
  Fingerprint,
  IdentityKeyPair,
  KEMPublicKey,
  LibSignalErrorBase,
  PlaintextContent,
  PreKeyBundle,
  PreKeySignalMessage,
  ProtocolAddress,
  PublicKey,
  processPreKeyBundle,
  SessionRecord,
  SignalMessage,
  signalDecrypt,
  signalDecryptPreKey,
  signalEncrypt,
} from '@signalapp/libsignal-client'
import { type Uuid, uuidToBytes } from '../../proto/ids.ts'
import { DEVICE_ID_MAX, DEVICE_ID_MIN } from '../../proto/limits.ts'
import { type Bytes, bytes } from '../bytes.ts'
import { type Bundle, type Crypto, type Opening, Undecryptable } from '../crypto.ts'
import type { Reader } from '../storage.ts'
import { CIPHERTEXT, nameOf } from '../wire.ts'
import { keepOnly, makeKeys, retire } from './keys.ts'
import { usernameCandidates, usernameHash, usernameProof } from './names.ts'
import { createProvisionKey, sealProvision } from './provision.ts'
import { prune } from './prune.ts'
import { Identities, identityPair, KyberPrekeys, Prekeys, Sessions, SignedPrekeys, slotKey, TABLE } from './stores.ts'

type Peer = { userId: Uuid; deviceId: number }

const FINGERPRINT_ROUNDS = 5200
const FINGERPRINT_VERSION = 2

const key = (raw: Uint8Array): PublicKey => PublicKey.deserialize(bytes(raw))
const addressOf = ({ userId, deviceId }: Peer): ProtocolAddress => ProtocolAddress.new(userId, deviceId)

function recordOf(stage: Reader, peer: Peer): SessionRecord | null {
  const value = stage.get(TABLE.sessions, nameOf(peer))
  return value && SessionRecord.deserialize(bytes(value))
}

/** The parts of a bundle as libsignal wants them. @throws libsignal's error for a key that is none. */
function preKeyBundle(bundle: Bundle, kyber: NonNullable<Bundle['kyber']>): PreKeyBundle {
  const { registrationId, deviceId, oneTime, signed, identityKey } = bundle
  return PreKeyBundle.new(
    ...([registrationId, deviceId, oneTime?.keyId ?? null, oneTime && key(oneTime.publicKey)] as const),
    ...([signed.keyId, key(signed.publicKey), bytes(signed.signature), key(identityKey)] as const),
    ...([kyber.keyId, KEMPublicKey.deserialize(bytes(kyber.publicKey)), bytes(kyber.signature)] as const),
  )
}

function unreadable(error: unknown, offered: Uint8Array | null): Undecryptable {
  const code = error instanceof LibSignalErrorBase ? error.code : ErrorCode.Generic
  if (code === ErrorCode.UntrustedIdentity) return new Undecryptable('untrusted_identity', offered, error)
  return new Undecryptable(code === ErrorCode.DuplicatedMessage ? 'duplicate' : 'unreadable', null, error)
}

/** Crypto by libsignal 0.103. */
export const libsignal = (): Crypto => ({
  hash: (message) => Uint8Array.from(createHash('sha256').update(message).digest()),

  createIdentity(stage, slot) {
    if (stage.get(TABLE.self, slotKey(slot))) throw new Error('this store has an identity')
    const pair = IdentityKeyPair.generate()
    stage.put(TABLE.self, slotKey(slot), pair.serialize())
    return pair.publicKey.serialize()
  },
  abandonIdentity: (to, slot) => to.delete(TABLE.self, slotKey(slot)),
  ownIdentity: (stage, slot) => identityPair(stage, slot).publicKey.serialize(),
  sign: (stage, message, slot) => identityPair(stage, slot).privateKey.sign(bytes(message)),
  adoptIdentity(tx, slot, keys) {
    const pair = tx.get(TABLE.self, slotKey(slot))
    if (!pair) throw new Error('no such identity')
    for (const { key: name } of [...tx.scan(TABLE.self)]) tx.delete(TABLE.self, name)
    tx.put(TABLE.self, slotKey(), pair)
    for (const { key: name } of [...tx.scan(TABLE.sessions)]) tx.delete(TABLE.sessions, name)
    keepOnly(tx, keys)
  },
  isSignedBy(identityKey, message, signature) {
    try {
      return signature.length === 64 && key(identityKey).verify(bytes(message), bytes(signature))
    } catch {
      return false
    }
  },
  identityOf: (stage, userId) => stage.get(TABLE.identities, userId),
  trust(stage, userId, identityKey) {
    stage.put(TABLE.identities, userId, key(identityKey).serialize())
    for (let deviceId = DEVICE_ID_MIN; deviceId <= DEVICE_ID_MAX; deviceId++)
      if (stage.get(TABLE.sessions, nameOf({ userId, deviceId })))
        stage.delete(TABLE.sessions, nameOf({ userId, deviceId }))
  },
  safetyNumber(stage, self, userId, offered) {
    const theirs = offered ?? stage.get(TABLE.identities, userId)
    if (!theirs) return null
    const [mine, peer] = [self.userId, userId].map((id) => bytes(uuidToBytes(id))) as [Bytes, Bytes]
    const own = identityPair(stage).publicKey
    return Fingerprint.new(FINGERPRINT_ROUNDS, FINGERPRINT_VERSION, mine, own, peer, key(theirs))
      .displayableFingerprint()
      .toString()
  },

  makeKeys,
  retireKeys: retire,
  pruneKeys: prune,

  session(stage, to, nowMs) {
    const record = recordOf(stage, to)
    return record?.hasCurrentState(new Date(nowMs)) ? { registrationId: record.remoteRegistrationId() } : null
  },
  registrationOf(from, peer) {
    const record = recordOf(from, peer)
    try {
      return record?.remoteRegistrationId() ?? null
    } catch {
      // An archived session does not tell.
      return null
    }
  },
  async openSession(stage, self, userId, bundle, nowMs): Promise<Opening> {
    const known = stage.get(TABLE.identities, userId)
    if (bundle.kyber === null) return 'incompatible'
    try {
      if (known && !key(known).equals(key(bundle.identityKey))) return 'untrusted'
      const [to, from] = [addressOf({ userId, deviceId: bundle.deviceId }), addressOf(self)]
      const stores = [new Sessions(stage), new Identities(stage, self.registrationId)] as const
      await processPreKeyBundle(preKeyBundle(bundle, bundle.kyber), to, from, ...stores, new Date(nowMs))
      return 'opened'
    } catch {
      return 'invalid'
    }
  },
  archive(stage, to) {
    const record = recordOf(stage, to)
    if (!record) return
    record.archiveCurrentState()
    stage.put(TABLE.sessions, nameOf(to), record.serialize())
  },
  forgetSessions(tx) {
    for (const { key: name } of tx.scan(TABLE.sessions)) tx.delete(TABLE.sessions, name)
  },
  async encrypt(stage, self, to, plaintext, nowMs) {
    const stores = [new Sessions(stage), new Identities(stage, self.registrationId)] as const
    const [peer, own] = [addressOf(to), addressOf(self)]
    const message = await signalEncrypt(bytes(plaintext), peer, own, ...stores, new Date(nowMs))
    return { type: message.type(), content: message.serialize() }
  },
  async decrypt(stage, self, from, type, content) {
    const identities = new Identities(stage, self.registrationId)
    const kyber = new KyberPrekeys(stage)
    const common = [addressOf(from), addressOf(self), new Sessions(stage), identities] as const
    try {
      if (type === CIPHERTEXT.PREKEY) {
        const message = PreKeySignalMessage.deserialize(bytes(content))
        const stores = [new Prekeys(stage), new SignedPrekeys(stage), kyber] as const
        return { plaintext: await signalDecryptPreKey(message, ...common, ...stores), isNew: kyber.wasUsed }
      }
      if (type !== CIPHERTEXT.WHISPER) throw new Error(`ciphertexts of type ${type} are not read here`)
      return { plaintext: await signalDecrypt(SignalMessage.deserialize(bytes(content)), ...common), isNew: false }
    } catch (error) {
      throw unreadable(error, identities.offered)
    }
  },

  complain(content, type, sentAtMs, senderDeviceId) {
    const kind = type === CIPHERTEXT.PREKEY ? CiphertextMessageType.PreKey : CiphertextMessageType.Whisper
    const message = DecryptionErrorMessage.forOriginal(bytes(content), kind, sentAtMs, senderDeviceId)
    return PlaintextContent.from(message).serialize()
  },
  readComplaint(stage, from, content) {
    const body = PlaintextContent.deserialize(bytes(content)).body()
    const message = DecryptionErrorMessage.extractFromSerializedBody(body)
    const ratchetKey = message.ratchetKey()
    return {
      sentAtMs: message.timestamp(),
      deviceId: message.deviceId(),
      isAboutCurrentSession: !!ratchetKey && !!recordOf(stage, from)?.currentRatchetKeyMatches(ratchetKey),
    }
  },

  usernameHash,
  usernameProof,
  usernameCandidates,

  createRecoveryCode: () => randomBytes(16).toString('base64url'),

  createProvisionKey,
  sealProvision,
})
