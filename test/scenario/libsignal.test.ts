// Two real libsignal clients through a real relay: how sessions begin, what they refuse, what they survive.
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { IdentityKeyPair } from '@signalapp/libsignal-client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import type { Bundle } from '../support/bundles.ts'
import { enrolmentJson, request } from '../support/client.ts'
import { packText } from '../support/content.ts'
import { testDatabase } from '../support/database.ts'
import { prekeyJson } from '../support/enrolment.ts'
import { PREKEY, TestDevice, WHISPER } from '../support/keys.ts'
import { Messenger, UntrustedIdentity } from '../support/messenger.ts'
import { ownPort } from '../support/ports.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

async function pair(options: Parameters<typeof Messenger.join>[1] = {}) {
  const [alice, bob] = [await Messenger.join(relay), await Messenger.join(relay, options)]
  const conversation = await alice.client.direct(bob.client)
  return { alice, bob, conversation, close: () => Promise.all([alice.close(), bob.close()]) }
}

const flipped = (bytes: Uint8Array): Uint8Array => bytes.map((byte, i) => (i === 8 ? byte ^ 1 : byte))

describe('a session begins', () => {
  it('with one-time keys of both kinds, which the receiver deletes; prekey messages until the other answers', async () => {
    const { alice, bob, conversation, close } = await pair()
    const [ec, kyber] = [bob.device.prekeys.records.size, bob.device.kyberPrekeys.records.size]
    const first = await alice.say(conversation, 'one')
    expect(await bob.hearText()).toMatchObject({ text: 'one', type: PREKEY, from: alice.userId, fromDevice: 1 })
    expect(bob.device.prekeys.records.size).toBe(ec - 1)
    expect(bob.device.kyberPrekeys.records.size).toBe(kyber - 1)
    expect(first.rounds).toBe(1)
    await alice.say(conversation, 'two')
    expect(await bob.hearText()).toMatchObject({ text: 'two', type: PREKEY })
    await bob.say(conversation, 'three')
    expect(await alice.hearText()).toMatchObject({ text: 'three', type: WHISPER })
    await alice.say(conversation, 'four')
    expect(await bob.hearText()).toMatchObject({ text: 'four', type: WHISPER })
    await close()
  })

  it.each([
    { stock: 'no one-time key', oneTime: 0, kyberOneTime: 1, lastResort: false },
    { stock: 'no one-time Kyber key', oneTime: 1, kyberOneTime: 0, lastResort: true },
    { stock: 'no one-time keys at all', oneTime: 0, kyberOneTime: 0, lastResort: true },
  ])('with $stock', async ({ oneTime, kyberOneTime, lastResort }) => {
    const { alice, bob, conversation, close } = await pair({ oneTime, kyberOneTime })
    const before = new Set(bob.device.kyberPrekeys.records.keys())
    await alice.say(conversation, 'hello')
    expect(await bob.hearText()).toMatchObject({ text: 'hello', type: PREKEY })
    const used = [...before].filter((id) => !bob.device.kyberPrekeys.records.has(id))
    expect(used.length).toBe(lastResort ? 0 : 1)
    const { body } = await bob.client.get('/v1/keys')
    expect(body).toMatchObject({ one_time: { count: 0 }, kyber_one_time: { count: 0 } })
    expect(body.last_resort.used).toBe(lastResort)
    await close()
  })

  it('by several senders with one last-resort key, each with a session of its own', async () => {
    const bob = await Messenger.join(relay, { oneTime: 0, kyberOneTime: 0 })
    const senders = await Promise.all([1, 2, 3].map(() => Messenger.join(relay)))
    for (const [i, sender] of senders.entries()) {
      const conversation = await sender.client.direct(bob.client)
      await sender.say(conversation, `from ${i}`)
      expect((await bob.hearText()).text).toBe(`from ${i}`)
      await bob.say(conversation, `to ${i}`)
      expect((await sender.hearText()).text).toBe(`to ${i}`)
    }
    await Promise.all([bob, ...senders].map((each) => each.close()))
  })

  it('at both ends at once: both first messages are read, and the two agree on one session', async () => {
    const { alice, bob, conversation, close } = await pair()
    await Promise.all([alice.meet(conversation), bob.meet(conversation)])
    await Promise.all([alice.say(conversation, 'I begin'), bob.say(conversation, 'no, I do')])
    const [atAlice, atBob] = await Promise.all([alice.hearText(), bob.hearText()])
    expect(atAlice).toMatchObject({ text: 'no, I do', type: PREKEY })
    expect(atBob).toMatchObject({ text: 'I begin', type: PREKEY })
    for (let i = 0; i < 3; i++) {
      await alice.say(conversation, `a${i}`)
      expect((await bob.hearText()).text).toBe(`a${i}`)
      await bob.say(conversation, `b${i}`)
      expect((await alice.hearText()).text).toBe(`b${i}`)
    }
    await alice.say(conversation, 'settled')
    expect(await bob.hearText()).toMatchObject({ text: 'settled', type: WHISPER })
    await close()
  })
})

describe('a bundle is refused', () => {
  const mallory = IdentityKeyPair.generate()
  const another = new TestDevice({ identity: mallory })
  it.each<[string, (bundle: Bundle) => Bundle]>([
    [
      'with a tampered EC signature',
      (it) => ({ ...it, signedPrekey: { ...it.signedPrekey, signature: flipped(it.signedPrekey.signature) } }),
    ],
    [
      'with a tampered Kyber signature',
      (it) => ({ ...it, kyberPrekey: { ...it.kyberPrekey!, signature: flipped(it.kyberPrekey!.signature) } }),
    ],
    ['with a signed prekey of another', (it) => ({ ...it, signedPrekey: another.makeSignedPrekey(1) })],
    ['with a Kyber prekey of another', (it) => ({ ...it, kyberPrekey: another.makeLastResort(1) })],
    ['with another identity key', (it) => ({ ...it, identityKey: another.identityKey })],
  ])('%s; no session is left, and the untouched one works', async (_what, tamper) => {
    const { alice, bob, conversation, close } = await pair()
    const bundle = (await alice.fetchBundle(bob.userId, 1))!
    await expect(alice.openSession(bob.userId, tamper(bundle))).rejects.toThrow(/signature|invalid/i)
    expect(alice.device.hasSession(bob.userId, 1)).toBe(false)
    expect(await alice.openSession(bob.userId, bundle)).toBe(true)
    await alice.say(conversation, 'after all')
    expect((await bob.hearText()).text).toBe('after all')
    await close()
  })

  it('with an identity key, keys and signatures of somebody else, once the right one is known', async () => {
    const { alice, bob, conversation, close } = await pair()
    await alice.say(conversation, 'hello')
    const stranger = await Messenger.join(relay)
    const theirs = (await alice.fetchBundle(stranger.userId, 1))!
    await expect(alice.openSession(bob.userId, theirs)).rejects.toThrow(UntrustedIdentity)
    await alice.say(conversation, 'again')
    expect((await bob.hearText()).text).toBe('hello')
    expect((await bob.hearText()).text).toBe('again')
    await Promise.all([close(), stranger.close()])
  })

  it('never for a key of low order: no way of publishing takes one, and what is served is what was there', async () => {
    const { alice, bob, close } = await pair({ oneTime: 1 })
    const folder = new URL('../vectors/invalid/', import.meta.url)
    const names = readdirSync(folder).filter((name) => name.startsWith('keys-ec-low-order'))
    expect(names.length).toBe(14)
    const device = bob.device
    for (const name of names) {
      const publicKey = Buffer.from(JSON.parse(readFileSync(new URL(name, folder), 'utf8')).key, 'hex')
      const signed = { keyId: 2, publicKey, signature: device.sign(publicKey) }
      const register = enrolmentJson(new TestDevice(), relay.realm)
      const answers = [
        await bob.client.put('/v1/keys', { one_time_prekeys: [prekeyJson({ keyId: 9, publicKey })] }),
        await bob.client.put('/v1/keys', { signed_prekey: prekeyJson(signed) }),
        await bob.client.put('/v1/keys', { replace: true, signed_prekey: prekeyJson(signed) }),
        await request(relay.url, 'POST', '/v1/accounts', {
          json: { ...register, identity_key: publicKey.toString('base64') },
        }),
      ]
      expect(answers.map(({ body }) => body.error?.code)).toEqual(Array(4).fill('INVALID_REQUEST'))
    }
    const bundle = (await alice.fetchBundle(bob.userId, 1))!
    expect(bundle.signedPrekey.keyId).toBe(1)
    expect(bundle.oneTimePrekey?.keyId).toBe(0)
    expect(await alice.openSession(bob.userId, bundle)).toBe(true)
    expect((await alice.fetchBundle(bob.userId, 1))!.oneTimePrekey).toBeNull()
    await close()
  })
})

describe('a session survives', () => {
  it('messages read in another order than they were sent', async () => {
    const { alice, bob, conversation, close } = await pair()
    await alice.say(conversation, 'zero')
    await bob.hearText()
    await bob.say(conversation, 'so both ratchets turn')
    await alice.hearText()
    for (const text of ['one', 'two', 'three']) await alice.say(conversation, text)
    const envelopes = [await bob.socket.next('envelope'), await bob.socket.next('envelope')]
    envelopes.push(await bob.socket.next('envelope'))
    for (const [i, text] of [[2, 'three'] as const, [0, 'one'] as const, [1, 'two'] as const])
      expect(await bob.read(envelopes[i]!)).toMatchObject({ kind: 'text', text })
    expect(await bob.read(envelopes[0]!)).toMatchObject({ kind: 'again' })
    await close()
  })

  it('prekey messages read in another order than they were sent', async () => {
    const { alice, bob, conversation, close } = await pair()
    for (const text of ['one', 'two', 'three']) await alice.say(conversation, text)
    const envelopes = []
    while (envelopes.length < 3) {
      const envelope = await bob.socket.next('envelope')
      if (envelope.ciphertext) envelopes.push(envelope)
    }
    for (const [i, text] of [[2, 'three'] as const, [0, 'one'] as const, [1, 'two'] as const])
      expect(await bob.read(envelopes[i]!)).toMatchObject({ kind: 'text', text, type: PREKEY })
    await close()
  })

  it('the loss of its first message: the second prekey message brings the session', async () => {
    const { alice, bob, conversation, close } = await pair()
    await alice.meet(conversation)
    const clientMessageId = uuidToBytes(uuidV7(Date.now()))
    const binding = { conversationId: uuidToBytes(conversation), clientMessageId, sentAtMs: Date.now() }
    // Encrypted, never sent: the app was killed.
    const lost = await alice.sealFor(alice.book.find(bob.userId, 1), packText(binding, 'lost'))
    expect(lost.ciphertextType).toBe(PREKEY)
    await alice.say(conversation, 'found')
    expect(await bob.hearText()).toMatchObject({ text: 'found', type: PREKEY })
    await bob.say(conversation, 'I have you')
    expect((await alice.hearText()).text).toBe('I have you')
    await close()
  })

  it('a restart of the relay between two messages', async () => {
    const db = await testDatabase()
    const config = { port: await ownPort() }
    let own = await testRelay({ db, config })
    const [alice, bob] = [await Messenger.join(own), await Messenger.join(own)]
    const conversation = await alice.client.direct(bob.client)
    await alice.say(conversation, 'before')
    await bob.hearText()
    await bob.say(conversation, 'I answer')
    await alice.hearText()
    await bob.close()
    await alice.say(conversation, 'while you are away')
    const gone = alice.socket.end()
    await own.close()
    expect(await gone).toBe(1001)
    own = await testRelay({ db, config })
    await alice.live()
    await alice.say(conversation, 'after')
    await bob.connect()
    const read = (await bob.catchUp()).filter((each) => each.kind === 'text')
    expect(read).toMatchObject([{ text: 'while you are away' }, { text: 'after', type: WHISPER }])
    await bob.say(conversation, 'here again')
    expect((await alice.hearText()).text).toBe('here again')
    await Promise.all([alice.close(), bob.close()])
    await own.close()
    await db.close()
  })

  it('two hundred messages of ping-pong, each read exactly once', async () => {
    const { alice, bob, conversation, close } = await pair()
    for (let i = 0; i < 200; i++) {
      const [from, to] = i % 2 === 0 ? [alice, bob] : [bob, alice]
      const text = `${i} ${randomBytes(i).toString('hex')}`
      await from.say(conversation, text)
      expect(await to.hearText()).toMatchObject({ text, type: i === 0 ? PREKEY : WHISPER })
    }
    await Promise.all([alice.socket.fence(), bob.socket.fence()])
    expect([...alice.socket.envelopes(), ...bob.socket.envelopes()]).toEqual([])
    expect([await alice.catchUp(), await bob.catchUp()]).toEqual([[], []])
    await close()
  })
})
