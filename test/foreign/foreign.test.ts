// A client in another language, written from proto/README.md and docs/clients.md, against the running relay and our own clients.
import { PublicKey } from '@signalapp/libsignal-client'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { uuidFromBytes, uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { readVectors } from '../keys/vectors.ts'
import { readBundles } from '../support/bundles.ts'
import { Client, type Socket } from '../support/client.ts'
import { packText, unpackText } from '../support/content.ts'
import { INSTALL_MAX_MS, type Obtained, obtain } from '../support/debian.ts'
import { Messenger } from '../support/messenger.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { startOver } from '../support/startover.ts'
import { type Foreign, openForeign, PYTHON } from './python.ts'

let python: Obtained<string>
let foreign: Foreign
let relay: TestRelay
let alice: Client
let socket: Socket
let bob: { user_id: string; device_id: number; registration_id: number; secret: string; identity: string }
let conversation: string
beforeAll(async () => {
  python = await obtain(PYTHON)
  if (python.it === null) return
  foreign = await openForeign(python.it)
  relay = await testRelay()
  alice = await Client.register(relay)
}, INSTALL_MAX_MS)
afterAll(async () => {
  await socket?.close()
  await relay?.close()
  await foreign?.close()
})
beforeEach(({ skip }) => skip(python.it === null, python.missing ?? ''))

const place = () => ({ url: relay.url, realm: relay.realm })

/** Sends a padded text, not encrypted, as the Python client does. */
async function say(text: string): Promise<void> {
  const clientMessageId = uuidToBytes(uuidV7(Date.now()))
  const content = packText({ conversationId: uuidToBytes(conversation), clientMessageId, sentAtMs: Date.now() }, text)
  const to = { userId: uuidToBytes(bob.user_id), deviceId: 1, registrationId: bob.registration_id }
  const recipient = { ...to, ciphertextType: 2, content }
  const { messageAccepted } = await socket.send(conversation, [recipient], { clientMessageId })
  if (!messageAccepted) throw new Error('was not accepted')
}

type Envelope = Awaited<ReturnType<typeof socket.next<'envelope'>>>
const textOf = (envelope: Envelope): string =>
  unpackText(envelope.ciphertext!.content!, {
    conversationId: envelope.conversationId!,
    clientMessageId: envelope.ciphertext!.clientMessageId!,
    sentAtMs: envelope.sentAtMs!,
  })

/** Alice's next text, whatever the relay tells her in between. */
async function heard(): Promise<{ text: string; from: string }> {
  for (;;) {
    const envelope = await socket.next('envelope')
    if (envelope.ciphertext) return { text: textOf(envelope), from: uuidFromBytes(envelope.ciphertext.senderUserId!) }
  }
}

it('makes the bytes of the test vectors, and tells good signatures from bad ones', async () => {
  const proofs = readVectors('valid', 'identity_proof')
  const of = (folder: 'valid' | 'invalid') =>
    readVectors(folder, 'signature').map((each) => ({ ...each, message: each.public_key }))
  const [good, bad] = [[...of('valid'), ...proofs], of('invalid')]
  const result = await foreign.play('vectors', { proofs, signatures: [...good, ...bad] })
  expect(result.proofs).toEqual(Object.fromEntries(proofs.map(({ file, message }) => [file, message])))
  expect(result.signatures).toEqual(
    Object.fromEntries([...good.map(({ file }) => [file, true]), ...bad.map(({ file }) => [file, false])]),
  )
  expect([proofs.length, good.length, bad.length].every((count) => count > 5)).toBe(true)
})

it('registers with a proof of its own, gets a token, and connects with a header or as browsers do', async () => {
  const result = await foreign.play('registers', place())
  bob = result.device
  expect(result).toMatchObject({
    ...{ wrong_secret: 'invalid_client', without_token: 401 },
    hello: { realm: relay.realm, user_id: bob.user_id, device_id: 1, queue_waiting: false, page_messages: 100 },
  })
  const [bundle] = readBundles((await alice.get(`/v1/keys/${bob.user_id}/*`)).body)
  expect(bundle).toMatchObject({ deviceId: 1, registrationId: bob.registration_id, kyberPrekey: null })
  const { publicKey, signature } = bundle!.signedPrekey
  const identity = PublicKey.deserialize(Uint8Array.from(bundle!.identityKey))
  expect(identity.verify(Uint8Array.from(publicKey), Uint8Array.from(signature))).toBe(true)
})

it('reads what waits page by page, acks it, then hears what is new; what it did not ack comes again and is dropped', async () => {
  conversation = (await alice.post('/v1/conversations', { kind: 'direct', user_id: bob.user_id })).body.conversation_id
  socket = await alice.live()
  const texts = Array.from({ length: 5 }, (_, i) => `waiting ${i}`)
  for (const text of texts) await say(text)
  const result = await foreign.play('reads', { ...place(), device: bob }, { live: () => say('live') })
  // The first envelope is the relay's word of the new conversation.
  expect(result).toEqual({
    ...{ waiting: [true, true, false], first: [1, 2], has_more: true, rest: [3, 4, 5, 6] },
    ...{ texts, live: 'live', left: 0 },
  })
})

it('sends once whatever it repeats, and corrects its list of devices as the relay says', async () => {
  let laptop: Client
  const got: string[] = []
  const hear = async () => {
    const { text, from } = await heard()
    expect(from).toBe(bob.user_id)
    got.push(text)
  }
  const result = await foreign.play(
    'sends',
    { ...place(), device: bob, conversation },
    {
      link: async () => {
        laptop = await alice.link()
      },
      unlink: () => alice.delete(`/v1/devices/${laptop.deviceId}`),
      'start over': () => startOver(new Messenger(alice)),
      'wait for it': async () => {
        while (got.at(-1) !== 'said once') await hear()
      },
    },
  )
  const rounds = { duplicate: false, rounds: 2 }
  expect(result).toMatchObject({
    ...{ first: rounds, linked: rounds, unlinked: rounds, stale: rounds },
    again: { message_id: result.first.message_id, duplicate: true, rounds: 1 },
    lost: { duplicate: true, rounds: 1 },
  })
  expect(got).toEqual(['to a stranger', 'after a link', 'after an unlink', 'after a new start', 'said once'])
  await socket.fence()
  expect(socket.envelopes().filter((each) => each.ciphertext)).toEqual([])
})

it('reads codes and close codes: refused, malformed, displaced, unlinked', async () => {
  const { body } = await alice.post('/v1/devices/link-code')
  const identity = Buffer.from(alice.device.identity.privateKey.serialize()).toString('hex')
  const given = { ...place(), device: bob, user_id: alice.userId, link_code: body.link_code, identity }
  const unlink = ({ device_id }: { device_id: number }) => alice.delete(`/v1/devices/${device_id}`)
  expect(await foreign.play('errors', given, { unlink })).toEqual({
    ...{ unknown_conversation: 'INVALID_REQUEST', too_many_acks: 'TOO_LARGE', empty_token: 'UNAUTHENTICATED' },
    ...{ garbage: 'INVALID_REQUEST', reauthenticated: true, malformed: 4400, displaced: 4409 },
    ...{ unlinked: 4401, unlinked_token: 'invalid_client' },
  })
})
