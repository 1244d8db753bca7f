// Crypto for tests of everything around it, in pages and on Node alike, where libsignal's binaries cannot run.
// NOT SECURE, and not libsignal's protocol: identity keys and their XEdDSA signatures are real, so that the relay takes them and
// rosters can be checked; messages are sealed to the identity key (sealing.ts) without any ratchet; Kyber keys are random bytes.
import { sha256 } from '@noble/hashes/sha2.js'
import { base64url, bigEndian, concat, hex, isSame } from '../../../client/bytes.ts'
import {
  type Crypto,
  InvalidUsername,
  type OfferedAccount,
  type Provision,
  type ProvisionTarget,
  type SignedPublicKey,
  Undecryptable,
  Unopened,
} from '../../../client/crypto.ts'
import type { Stage } from '../../../client/stage.ts'
import type { Reader, Writer } from '../../../client/storage.ts'
import { Table } from '../../../client/tables.ts'
import { CIPHERTEXT, nameOf } from '../../../client/wire.ts'
import type { Uuid } from '../../../proto/ids.ts'
import { open, seal } from './sealing.ts'
import { isSignedBy, makePrivateKey, publicKeyOf, sign } from './xeddsa.ts'

/** `isAnswered`: they have our session, so that it need not be carried along. */
type Session = { registrationId: number; identityKey: Uint8Array; isAnswered: boolean; isArchived: boolean }
type Peer = { userId: Uuid; deviceId: number }

const secrets = new Table<Uint8Array>('test.secrets')
const identities = new Table<Uint8Array>('test.identities')
const sessions = new Table<Session>('test.sessions')

const KYBER_TYPE = 8
const KYBER_BYTES = 1569

function secret(from: Reader, name: string): Uint8Array {
  const key = secrets.get(from, name)
  if (!key) throw new Error(`this device has no ${name} key`)
  return key
}

function usable(from: Reader, peer: Peer): Session | null {
  const session = sessions.get(from, nameOf(peer))
  return session && !session.isArchived ? session : null
}

/** What ties a ciphertext to its two ends. */
const ends = (from: Peer, to: Peer): Uint8Array => new TextEncoder().encode(`${nameOf(from)} ${nameOf(to)}`)

function oneTimeKey(stage: Stage, name: string) {
  const privateKey = makePrivateKey()
  secrets.put(stage, name, privateKey)
  return publicKeyOf(privateKey)
}

function kyberLike(stage: Stage, keyId: number, slot: string): SignedPublicKey {
  const publicKey = crypto.getRandomValues(new Uint8Array(KYBER_BYTES)).with(0, KYBER_TYPE)
  return { keyId, publicKey, signature: sign(secret(stage, `identity${slot}`), publicKey) }
}

const idsOf = (range: { first: number; count: number } | undefined): number[] =>
  Array.from({ length: range?.count ?? 0 }, (_, at) => range!.first + at)

/** Fit for tests and for nothing else. */
export const testCrypto = (): Crypto => ({
  hash: (message) => sha256(message),

  createIdentity(stage, slot = '') {
    if (secrets.has(stage, `identity${slot}`)) throw new Error('this store has an identity')
    return oneTimeKey(stage, `identity${slot}`)
  },
  abandonIdentity: (to, slot = '') => secrets.delete(to, `identity${slot}`),
  ownIdentity: (stage, slot = '') => publicKeyOf(secret(stage, `identity${slot}`)),
  sign: (stage, message, slot = '') => sign(secret(stage, `identity${slot}`), message),
  adoptIdentity(tx, slot) {
    secrets.put(tx, 'identity', secret(tx, `identity${slot}`))
    for (const { key } of sessions.scan(tx)) sessions.delete(tx, key)
  },
  isSignedBy,
  identityOf: (from, userId) => identities.get(from, userId),
  trust(stage, userId, identityKey) {
    identities.put(stage, userId, identityKey)
    for (let deviceId = 1; deviceId <= 127; deviceId++) {
      const session = sessions.get(stage, nameOf({ userId, deviceId }))
      if (session && !isSame(session.identityKey, identityKey)) sessions.delete(stage, nameOf({ userId, deviceId }))
    }
  },
  safetyNumber(stage, _self, userId) {
    const theirs = identities.get(stage, userId)
    if (!theirs) return null
    const both = [hex(theirs), hex(publicKeyOf(secret(stage, 'identity')))].sort().join('')
    return Array.from(sha256(new TextEncoder().encode(both)), (byte) => String(byte % 100).padStart(2, '0'))
      .join('')
      .slice(0, 60)
  },

  makeKeys(stage, order, _nowMs, slot = '') {
    const signed = (keyId: number): SignedPublicKey => {
      const publicKey = oneTimeKey(stage, `signed.${keyId}`)
      return { keyId, publicKey, signature: sign(secret(stage, `identity${slot}`), publicKey) }
    }
    return {
      signed: order.signed === undefined ? null : signed(order.signed),
      lastResort: order.lastResort === undefined ? null : kyberLike(stage, order.lastResort, slot),
      oneTime: idsOf(order.oneTime).map((keyId) => ({ keyId, publicKey: oneTimeKey(stage, `one_time.${keyId}`) })),
      kyberOneTime: idsOf(order.kyberOneTime).map((keyId) => kyberLike(stage, keyId, slot)),
    }
  },
  retireKeys: () => {},
  pruneKeys: () => {},

  session: (stage, to) => usable(stage, to),
  registrationOf: (from, peer) => sessions.get(from, nameOf(peer))?.registrationId ?? null,
  async openSession(stage, _self, userId, { deviceId, registrationId, identityKey, signed }) {
    const known = identities.get(stage, userId)
    if (known && !isSame(known, identityKey)) return 'untrusted'
    if (!isSignedBy(identityKey, signed.publicKey, signed.signature)) return 'invalid'
    identities.put(stage, userId, identityKey)
    const session = { registrationId, identityKey, isAnswered: false, isArchived: false }
    sessions.put(stage, nameOf({ userId, deviceId }), session)
    return 'opened'
  },
  archive(store: Writer, to) {
    const session = sessions.get(store, nameOf(to))
    if (session) sessions.put(store, nameOf(to), { ...session, isArchived: true })
  },
  forgetSessions(tx) {
    for (const { key } of sessions.scan(tx)) sessions.delete(tx, key)
  },
  async encrypt(stage, self, to, plaintext) {
    const session = usable(stage, to)
    if (!session) throw new Error(`no session with ${nameOf(to)}`)
    const own = secret(stage, 'identity')
    const sealed = seal(own, session.identityKey, plaintext, ends(self, to))
    if (session.isAnswered) return { type: CIPHERTEXT.WHISPER, content: sealed }
    const content = concat(bigEndian(self.registrationId, 2), publicKeyOf(own), sealed)
    return { type: CIPHERTEXT.PREKEY, content }
  },
  async decrypt(stage, self, from, type, content) {
    const before = usable(stage, from)
    const opens = type === CIPHERTEXT.PREKEY
    const identityKey = opens ? content.slice(2, 35) : before?.identityKey
    if (!identityKey) throw new Undecryptable('unreadable')
    const known = identities.get(stage, from.userId)
    if (known && !isSame(known, identityKey)) throw new Undecryptable('untrusted_identity', identityKey)
    let plaintext: Uint8Array
    try {
      const sealed = opens ? content.slice(35) : content
      plaintext = open(secret(stage, 'identity'), identityKey, sealed, ends(from, self))
    } catch (cause) {
      throw new Undecryptable('unreadable', null, cause)
    }
    const registrationId = opens ? content[0]! * 256 + content[1]! : before!.registrationId
    identities.put(stage, from.userId, identityKey)
    sessions.put(stage, nameOf(from), { registrationId, identityKey, isAnswered: true, isArchived: false })
    return { plaintext, isNew: opens && !before }
  },

  complain: (_content, _type, sentAtMs, senderDeviceId) =>
    concat(bigEndian(sentAtMs, 8), Uint8Array.of(senderDeviceId)),
  readComplaint(_from, _peer, content) {
    if (content.length !== 9) throw new Error('this is no complaint')
    const view = new DataView(Uint8Array.from(content).buffer)
    return { sentAtMs: Number(view.getBigUint64(0)), deviceId: view.getUint8(8), isAboutCurrentSession: true }
  },

  // Proofs of usernames are libsignal's own zero-knowledge proofs; nothing else makes them.
  usernameHash: withoutUsernames,
  usernameProof: withoutUsernames,
  usernameCandidates: withoutUsernames,

  createRecoveryCode: () => base64url(crypto.getRandomValues(new Uint8Array(16))),

  createProvisionKey() {
    const privateKey = makePrivateKey()
    const target = { address: crypto.getRandomValues(new Uint8Array(16)), key: publicKeyOf(privateKey) }
    return { ...target, open: (sealed) => openAccount(privateKey, target, sealed) }
  },
  sealProvision(stage, to, account) {
    const message = concat(secret(stage, 'identity'), new TextEncoder().encode(JSON.stringify(account)))
    const ephemeral = makePrivateKey()
    return concat(publicKeyOf(ephemeral), seal(ephemeral, to.key, message, concat(to.address, to.key)))
  },
})

function openAccount(privateKey: Uint8Array, { address, key }: ProvisionTarget, sealed: Uint8Array): OfferedAccount {
  try {
    const opened = open(privateKey, sealed.slice(0, 33), sealed.slice(33), concat(address, key))
    const identity = opened.slice(0, 32)
    const account = JSON.parse(new TextDecoder().decode(opened.slice(32))) as Provision
    return {
      ...account,
      identityKey: publicKeyOf(identity),
      adopt: (stage) => secrets.put(stage, 'identity', identity),
    }
  } catch (error) {
    throw new Unopened('what came was altered, or sealed for another request', { cause: error })
  }
}

function withoutUsernames(): never {
  throw new InvalidUsername('usernames need libsignal')
}
