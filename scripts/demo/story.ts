// What happens in the demo, step by step, with real libsignal clients. Each step checks what it says; printing is in narration.ts.
import { Fingerprint, IdentityKeyPair, PublicKey } from '@signalapp/libsignal-client'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidFromBytes, uuidToBytes } from '../../proto/ids.ts'
import type { Bundle } from '../../test/support/bundles.ts'
import { Client } from '../../test/support/client.ts'
import { PREKEY, TestDevice, WHISPER } from '../../test/support/keys.ts'
import { Messenger, type Received, type Sent } from '../../test/support/messenger.ts'
import { Broken, hold, type Narration } from './narration.ts'
import type { RunningRelay } from './relay.ts'

const { DeviceChange } = sealpost.v1
const STOCK = { oneTime: 30, kyberOneTime: 30 }

const short = (id: string): string => `${id.slice(0, 8)}…`
const count = (n: number): string => n.toLocaleString('en-US')
const sizeOf = (sent: Sent): number => sent.recipients.reduce((sum, each) => sum + (each.content?.length ?? 0), 0)

/** What the two are, and everything that was said, to compare with what the relay was given. */
type Cast = { alice: Messenger; bob: Messenger; laptop: Messenger; conversation: string; said: Map<string, Sent> }

/** @throws what the first step that does not hold throws; later ones are not tried. */
export async function tell(narration: Narration, relay: RunningRelay): Promise<void> {
  const step = narration.step.bind(narration)
  const cast = { said: new Map() } as Cast

  await step('Alice and Bob register', async (say) => {
    cast.alice = new Messenger(await register(relay))
    cast.bob = new Messenger(await register(relay))
    say('Each device makes its keys itself and publishes the public halves:')
    say(`identity key, signed prekey, last-resort key, ${STOCK.oneTime} one-time keys of each kind.`)
    say(
      `Alice is ${short(cast.alice.userId)}, Bob is ${short(cast.bob.userId)}; names and phone numbers are not asked.`,
    )
  })
  const { alice, bob } = cast

  await step('Both connect', async (say) => {
    await Promise.all([alice.live(), bob.live()])
    const { hello } = bob.socket
    hold(hello.realm === relay.realm, `Hello names the realm ${hello.realm}, not ${relay.realm}`)
    hold(uuidFromBytes(hello.userId!) === bob.userId, 'Hello names another user')
    say(`Hello says whose connection it is, the limits (${hello.limits!.contentBytes! / 1024} KiB a message)`)
    say(`and the keys in stock (${hello.prekeyCounts!.ecOneTime} and ${hello.prekeyCounts!.kyberOneTime}).`)
  })

  await step('Alice opens a PQXDH session from Bob’s bundle', async (say) => {
    cast.conversation = await alice.client.direct(bob.client)
    await alice.meet(cast.conversation)
    const { body } = await bob.client.get('/v1/keys')
    const left = [body.one_time.count, body.kyber_one_time.count]
    hold(left[0] === STOCK.oneTime - 1, `one-time keys left: ${left[0]}`)
    hold(left[1] === STOCK.kyberOneTime - 1, `one-time Kyber keys left: ${left[1]}`)
    hold(alice.device.hasSession(bob.userId, 1), 'there is no session')
    say('Bob’s device was not asked: the key directory handed out one of his')
    say(`one-time keys of each kind (${left[0]} and ${left[1]} are left), never to be used again.`)
  })

  await step('Alice writes, Bob reads', async (say) => {
    const sent = await speak(cast, alice, 'Hello Bob, nobody in between can read this.')
    const read = await hear(cast, bob, sent)
    hold(read.type === PREKEY, `the first message has type ${read.type}`)
    say(`“${read.text}”`)
    say(`The relay saw ${count(sizeOf(sent))} bytes of ciphertext, said “accepted” once they were`)
    say('committed to disk, and erased them when Bob’s device acked.')
  })

  await step('Bob answers; both compare safety numbers', async (say) => {
    const read = await hear(cast, alice, await speak(cast, bob, 'Hello Alice, I can.'))
    const next = await hear(cast, bob, await speak(cast, alice, 'Good. The ratchet turns with every answer.'))
    hold(read.type === WHISPER && next.type === WHISPER, 'the session is not established')
    const [atAlice, atBob] = [safetyNumber(alice, bob), safetyNumber(bob, alice)]
    hold(atAlice === atBob, 'the safety numbers differ')
    say(`“${read.text}” “${next.text}”`)
    say(`Safety number at both ends: ${atAlice.slice(0, 30).replace(/(.{5})/g, '$1 ')}…`)
  })

  await step('Bob is offline; Alice writes three messages', async (say) => {
    await bob.close()
    for (const text of ['Are you there?', 'Then read this later.', 'Good night!']) await speak(cast, alice, text)
    say('All three are accepted: they are on disk, each for Bob’s one device.')
  })

  await step('Bob comes back, syncs, acks', async (say) => {
    const { hello } = await bob.connect()
    hold(hello.queueWaiting, 'Hello does not say that something waits')
    const texts = (await bob.catchUp()).map(textOf)
    hold(texts.join('|') === 'Are you there?|Then read this later.|Good night!', `Bob read ${JSON.stringify(texts)}`)
    const again = await bob.catchUp()
    hold(again.length === 0, `${again.length} messages came again after the ack`)
    say(texts.map((text) => `“${text}”`).join(' '))
    say('In order, in one page; a second sync brings nothing: what is acked is gone.')
  })

  await step('Bob’s app dies before it acks', async (say) => {
    const sent = await speak(cast, alice, 'One more thing.')
    const first = await bob.read(await bob.socket.next('envelope'))
    hold(first.kind === 'text', 'the message cannot be read')
    await bob.close()
    await bob.connect()
    const [second] = await bob.catchUp()
    hold(second, 'the message was lost')
    hold(Buffer.compare(second.envelope.messageId!, sent.messageId) === 0, 'another message came')
    hold(second.kind === 'again', 'the client took it for a new message')
    say('Delivery ends with the ack and with nothing else: the message comes again,')
    say('and Bob’s client, which had read it, shows it once.')
  })

  await step('Alice’s send is repeated: one message', async (say) => {
    const sent = await speak(cast, alice, 'Did you get this?')
    const { clientMessageId, recipients } = sent
    const { messageAccepted } = await alice.socket.send(cast.conversation, recipients, { clientMessageId })
    hold(messageAccepted?.duplicate, 'the repetition was taken for a new message')
    hold(Buffer.compare(messageAccepted.messageId!, sent.messageId) === 0, 'the repetition got another message id')
    await hear(cast, bob, sent)
    await bob.socket.fence()
    hold(bob.socket.envelopes().length === 0, 'Bob got it twice')
    say('As after a lost answer. The relay gives the first answer again, marked duplicate,')
    say('and delivers nothing: Bob has it once.')
  })

  await step('Alice links a laptop', async (say) => {
    cast.laptop = await alice.link(STOCK)
    const { event } = await hearEvent(alice)
    hold(event.devicesChanged?.change === DeviceChange.DEVICE_CHANGE_LINKED, 'the phone was not told')
    say('The phone hands it a one-time code and the identity key, past the relay.')
    say('The phone is told by the relay: device 2 was linked.')
  })

  await step('Bob writes: DEVICE_MISMATCH, repaired', async (say) => {
    const sent = await speak(cast, bob, 'Is that a new laptop?')
    hold(sent.rounds === 2, `the send took ${sent.rounds} rounds`)
    const { missing, extra, stale } = sent.repaired
    hold(missing.length === 1 && missing[0]!.deviceId === 2, 'the laptop was not named as missing')
    hold(extra.length === 0 && stale.length === 0, 'a device was named that fits')
    const [phone, laptop] = [await hear(cast, alice, sent), await hear(cast, cast.laptop, sent)]
    hold(phone.type === WHISPER && laptop.type === PREKEY, 'a working session was given up')
    say(`“${phone.text}”`)
    say('Bob’s client knew of the phone only. The relay stored nothing and named the')
    say('missing device; the client fetched its bundle and sent again, for both.')
  })

  await step('The laptop answers; the phone gets its copy', async (say) => {
    const sent = await speak(cast, cast.laptop, 'It is. Every device has its own keys.')
    const [atBob, atPhone] = [await hear(cast, bob, sent), await hear(cast, alice, sent)]
    hold(atBob.fromDevice === 2 && atPhone.fromDevice === 2, 'it does not come from device 2')
    say(`“${atBob.text}”`)
    say(`${sent.recipients.length} ciphertexts: one for Bob, one for Alice’s other device.`)
  })

  await step('A relay that lies: four tampered bundles', async (say) => {
    const bundle = (await cast.laptop.fetchBundle(bob.userId, 1))!
    for (const [what, tampered] of lies(bundle)) say(`${what.padEnd(38)} ${await refused(alice, bob.userId, tampered)}`)
    say('Alice’s client refuses each, and her session with Bob goes on:')
    const sent = await speak(cast, alice, 'Still you?')
    await Promise.all([hear(cast, bob, sent), hear(cast, cast.laptop, sent)])
    say('“Still you?”')
  })

  await step('What is left on the relay', async (say) => {
    for (const each of [alice, cast.laptop, bob]) {
      const left = await each.catchUp()
      hold(left.length === 0, `left in a queue: ${left.map(textOf).join(', ')}`)
    }
    const given = Buffer.concat([...cast.said.values()].flatMap((sent) => sent.recipients.map((each) => each.content!)))
    const leaked = [...cast.said.keys()].filter((text) => given.includes(text))
    hold(leaked.length === 0, `the relay was given “${leaked[0]}”`)
    say('Three empty queues.')
    say(`It carried ${cast.said.size} messages as ${count(given.length)} bytes; not one of the texts is in them.`)
  })

  await Promise.all([alice, bob, cast.laptop].map((each) => each.close()))
}

async function register(relay: RunningRelay): Promise<Client> {
  try {
    return await Client.register(relay, STOCK)
  } catch (error) {
    const { message } = error as Error
    if (message.includes('identity_proof'))
      throw new Broken(`${message}\nis its realm another? npm run demo -- --realm ${relay.realm}`)
    if (/HTTP 40[13]/.test(message))
      throw new Broken(`${message}\nnot everybody may register there; with a relay of its own: npm run demo -- --own`)
    throw error
  }
}

async function speak(cast: Cast, who: Messenger, text: string): Promise<Sent> {
  const sent = await who.say(cast.conversation, text)
  cast.said.set(text, sent)
  return sent
}

/** That message and no other, decrypted and acked. */
async function hear(cast: Cast, who: Messenger, sent: Sent) {
  const received = await who.hearText()
  const text = [...cast.said].find(([, each]) => each === sent)![0]
  hold(received.text === text, `read “${received.text}” instead of “${text}”`)
  return received
}

async function hearEvent(who: Messenger) {
  const received = await who.hear()
  hold(received.kind === 'event', `got ${received.kind} instead of an event`)
  return received
}

const textOf = (received: Received): string => (received.kind === 'text' ? received.text : `(${received.kind})`)

function safetyNumber(own: Messenger, other: Messenger): string {
  const key = PublicKey.deserialize(Uint8Array.from(Buffer.from(own.pinned.get(other.userId)!, 'base64')))
  const [ownId, otherId] = [own.userId, other.userId].map((id) => Uint8Array.from(uuidToBytes(id)))
  return Fingerprint.new(5200, 2, ownId!, own.device.identity.publicKey, otherId!, key)
    .displayableFingerprint()
    .toString()
}

function lies(bundle: Bundle): [string, Bundle][] {
  const mallory = new TestDevice({ identity: IdentityKeyPair.generate() })
  const flipped = (bytes: Uint8Array) => bytes.map((byte, i) => (i === 8 ? byte ^ 1 : byte))
  const { signedPrekey, kyberPrekey } = bundle
  return [
    [
      'a bit flipped in the EC signature:',
      { ...bundle, signedPrekey: { ...signedPrekey, signature: flipped(signedPrekey.signature) } },
    ],
    [
      'a bit flipped in the Kyber signature:',
      { ...bundle, kyberPrekey: { ...kyberPrekey!, signature: flipped(kyberPrekey!.signature) } },
    ],
    ['a signed prekey of Mallory:', { ...bundle, signedPrekey: mallory.makeSignedPrekey(1) }],
    [
      'all of it Mallory’s, rightly signed:',
      {
        ...bundle,
        identityKey: mallory.identityKey,
        signedPrekey: mallory.makeSignedPrekey(1),
        kyberPrekey: mallory.makeLastResort(1),
      },
    ],
  ]
}

/** @returns why the client refused. @throws Broken when it did not. */
async function refused(who: Messenger, userId: string, bundle: Bundle): Promise<string> {
  try {
    await who.openSession(userId, bundle)
  } catch (error) {
    return `refused: ${(error as Error).message.replace(/ for .*/, '')}`
  }
  throw new Broken('the client took a tampered bundle')
}
