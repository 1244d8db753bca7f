// One more device of a user, through the provisioning channel: the client as the device that lets in, and as the one that is let in.
// [I-4] [I-5]
import { randomBytes } from 'node:crypto'
import { IdentityKeyPair, PrivateKey, PublicKey } from '@signalapp/libsignal-client'
import { sealpost } from '../../../../proto/generated/content.js'
import { uuidFromBytes, uuidToBytes } from '../../../../proto/ids.ts'
import { base64, base64url, be, fromBase64, own, sha256, utf8 } from '../../bytes.ts'
import { type Check, hold, same, there } from '../../check.ts'
import type { Person } from '../person.ts'
import type { Stage } from '../stage.ts'

const { Provision } = sealpost.v1
const INFO = 'sealpost.v1 provision'

type Shown = { uri: string | null; offer: { user_id: string } | null; linked: boolean }
const shown = (stage: Stage): Promise<Shown> => stage.call('link_state')

/** What a link request says. [I-5.1] @throws Violation when it is not of that form. */
function readUri(stage: Stage, uri: string): { address: Uint8Array; key: Uint8Array } {
  hold(uri.startsWith('sealpost:link?'), 'sealpost:link?…', uri)
  const query = new URLSearchParams(uri.slice('sealpost:link?'.length))
  const field = (name: string): string => there(query.get(name), `${name} in the link request`)
  same(field('host'), new URL(stage.relay.url).host, 'as host')
  const [address, key] = [field('address'), field('key')]
  same([address.length, key.length], [22, 44], 'as length of address and key')
  return { address: Buffer.from(address, 'base64url'), key: Buffer.from(key, 'base64url') }
}

/** The client waits to be linked, and shows where. */
async function waits(stage: Stage): Promise<{ uri: string; address: Uint8Array; key: Uint8Array }> {
  const { url, realm } = stage.relay
  await stage.call('link_request', { url, realm, name: 'tablet' })
  const { uri } = await stage.until(async () => {
    const state = await shown(stage)
    return state.uri !== null && state
  }, 'a link request to be shown')
  return { uri: uri!, ...readUri(stage, uri!) }
}

/** Bob's account, sealed for a device that waits. */
function sealed(bob: Person, to: { address: Uint8Array; key: Uint8Array }, linkCode: string): Uint8Array {
  const { publicKey, privateKey } = bob.identity
  const provision = Provision.encode({
    ...{ userId: uuidToBytes(bob.userId), linkCode, username: '' },
    ...{ identityPublicKey: publicKey.serialize(), identityPrivateKey: privateKey.serialize() },
  }).finish()
  return PublicKey.deserialize(own(to.key)).seal(own(provision), INFO, own(Buffer.concat([to.address, to.key])))
}

function newCode(stage: Stage, bob: Person): string {
  const code = base64url(randomBytes(16))
  stage.relay.linkCodes.set(code, bob.userId)
  return code
}

export const linking: Check<Stage>[] = [
  {
    clauses: ['I-5.3', 'I-5.4', 'I-4', 'I-4.3', 'H-10'],
    title: 'lets a device in: the account sealed to the key that was shown, and nothing of it in clear',
    async run(stage) {
      stage.needs('link')
      const { relay } = stage
      await stage.join()
      const pair = PrivateKey.generate()
      const [address, key] = [randomBytes(16), pair.getPublicKey().serialize()]
      const message = new Promise<Uint8Array>((take) => relay.channels.set(base64url(address), { take }))
      const host = new URL(relay.url).host
      const uri = `sealpost:link?host=${host}&address=${base64url(address)}&key=${base64url(key)}&name=tablet&colour=red`
      await stage.call('link_approve', { uri })
      const opened = pair.open(own(await message), INFO, own(Buffer.concat([address, key])))
      const { userId, identityPublicKey, identityPrivateKey, linkCode } = Provision.decode(opened)
      const { userId: me } = relay.device
      same(uuidFromBytes(userId), me, 'as user')
      same(base64(identityPublicKey), relay.directory.identities.get(me), 'as identity key')
      const secret = PrivateKey.deserialize(own(identityPrivateKey))
      same(secret.getPublicKey().serialize(), identityPublicKey, 'as public half of the private key')
      same(relay.linkCodes.get(linkCode), me, 'as user of the link code')
      const said = JSON.stringify(relay.requests.map(({ path, query, json }) => [path, String(query), json]))
      for (const form of ['base64', 'base64url', 'hex'] as const)
        hold(!said.includes(Buffer.from(identityPrivateKey).toString(form)), 'no private key in clear', form)
      hold(
        !said.includes(base64url(key)) && !said.includes(base64(key)),
        'the new device’s key kept from the relay',
        'it was sent',
      )
      return 'user, identity pair and link code, readable to the new device alone'
    },
  },
  {
    clauses: ['I-5.1', 'I-5.2', 'I-5.4', 'I-5.5', 'I-4', 'I-4.2', 'I-2.1'],
    title: 'is let in: asks its user before it joins, and proves that it holds the identity key',
    async run(stage) {
      stage.needs('link')
      const { relay } = stage
      const bob = stage.person()
      const to = await waits(stage)
      const code = newCode(stage, bob)
      there(relay.channels.get(base64url(to.address)), 'the device waiting at its address').take(sealed(bob, to, code))
      const { offer } = await stage.until(async () => {
        const state = await shown(stage)
        return state.offer !== null && state
      }, 'the account to be offered to its user')
      same(offer!.user_id, bob.userId, 'as account offered')
      same(relay.asked('POST', '/v1/devices').length, 0, 'before its user’s word, as requests to link')
      await stage.call('link_accept')
      await stage.until(async () => (await shown(stage)).linked, 'the device to be linked')
      const { json } = relay.asked('POST', '/v1/devices')[0]!
      const identity = IdentityKeyPair.deserialize(bob.identity.serialize()).publicKey
      same(json.identity_key, base64(identity.serialize()), 'as identity key')
      hold(
        json.registration_id !== bob.device.entry.registrationId,
        'another registration id than the other device’s',
        json.registration_id,
      )
      const last = json.last_resort_kyber_prekey
      const part = (each: { key_id: number; public_key: string }) => [be(each.key_id, 4), fromBase64(each.public_key)]
      const keys = [
        identity.serialize(),
        be(json.registration_id, 2),
        ...part(json.signed_prekey),
        ...(last ? [be(1, 1), ...part(last)] : [be(0, 1)]),
      ]
      const { timestamp_ms, signature } = json.identity_proof
      const proof = [utf8(`sealpost.v1 link\0${relay.realm}`), sha256(utf8(code)), sha256(...keys), be(timestamp_ms, 8)]
      hold(
        identity.verify(own(Buffer.concat(proof)), fromBase64(signature)),
        'a proof for this code and these keys',
        'one that does not hold',
      )
      await stage.connect()
      return `asked, linked as device ${relay.device.deviceId}, live`
    },
  },
  {
    clauses: ['I-5.4', 'I-5.2'],
    title: 'what was sealed for another does not open, and another address and key follow; so after 1001',
    async run(stage) {
      stage.needs('link')
      const { relay } = stage
      const bob = stage.person()
      const to = await waits(stage)
      const other = PrivateKey.generate().getPublicKey().serialize()
      relay.channels
        .get(base64url(to.address))!
        .take(sealed(bob, { address: to.address, key: other }, newCode(stage, bob)))
      let uri: string | null = null
      const follows = async (before: string): Promise<string> => {
        for (let tries = 0; tries < 40; tries++) {
          await stage.pass(1000)
          const state = await shown(stage)
          same(state.offer, null, 'as offer')
          if (state.uri !== null && state.uri !== before) return state.uri
        }
        return hold(false, 'another link request within 40 s', before) as never
      }
      uri = await follows(to.uri)
      const second = readUri(stage, uri)
      hold(
        Buffer.compare(second.address, to.address) !== 0 && Buffer.compare(second.key, to.key) !== 0,
        'another address and another key',
        'the same',
      )
      await stage.pass(20_000, () => false, 5000)
      relay.waiting.get(base64url(second.address))!.close(1001)
      const third = readUri(stage, await follows(uri))
      hold(Buffer.compare(third.key, second.key) !== 0, 'another key', 'the same')
      return 'nothing was offered; a new address and key each time'
    },
  },
]
