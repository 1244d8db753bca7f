// The device set of a send: missing, extra, stale, together and apart; SUBSET; withheld; nothing stored by a refusal. [S-4] [S-6] I8

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { Client, idOf, type ServerFrame, type Socket } from '../support/client.ts'
import { prekeyJson } from '../support/enrolment.ts'
import { TestDevice } from '../support/keys.ts'
import { queueFaults } from '../support/node.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ErrorCode, Scope, Withheld } = sealpost.v1

let relay: TestRelay
let alice: Client
let laptop: Client
let bob: Client
let phone: Client
let from: Socket
let conversation: string
beforeAll(async () => {
  relay = await testRelay()
  ;[alice, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
  ;[laptop, phone] = [await alice.link(), await bob.link()]
  conversation = await alice.direct(bob)
  from = await alice.live()
})
afterAll(async () => {
  await from?.close()
  await relay?.close()
})

const stored = async () => {
  const [row] = await relay.db.database.sql`select (select count(*) from messages where sender_type = 1) as messages,
    (select count(*) from message_deliveries where ciphertext_type > 0 or withheld > 0) as rows`
  return row
}
let before: unknown
afterEach(async () => {
  expect(await queueFaults(relay.db.database.sql)).toEqual([])
})

/** As `user.device` with the registration id where it says something; `self` etc. are easier to read than ids. */
function mismatchOf(answer: ServerFrame) {
  expect(answer.error?.code).toBe(ErrorCode.ERROR_CODE_DEVICE_MISMATCH)
  expect(answer.error?.retryAfterMs).toBe(0)
  const { missing, extra, stale } = answer.error!.deviceMismatch!
  const names = (list: sealpost.v1.DeviceAddress.$Properties[] | null | undefined) =>
    (list ?? []).map((each) => `${nameOf(each)}/${each.registrationId}`).sort()
  return { missing: names(missing), extra: names(extra), stale: names(stale) }
}
const nameOf = (each: sealpost.v1.DeviceAddress.$Properties) =>
  [alice, laptop, bob, phone].find((c) => c.userId === idOf(each.userId) && c.deviceId === each.deviceId)
    ? `${idOf(each.userId)}.${each.deviceId}`
    : `stranger.${each.deviceId}`
const current = (client: Client) => `${client.userId}.${client.deviceId}/${client.device.registrationId}`
const otherRegistration = (client: Client) => (client.device.registrationId % 16383) + 1
const stale = (client: Client) => ({ ...client.to(), registrationId: otherRegistration(client) })

describe('SCOPE_ALL names every device but the sending one, each once [S-4.1]', () => {
  const refusals: [string, () => sealpost.v1.Recipient.$Properties[], () => ReturnType<typeof mismatchOf>][] = [
    [
      'missing: one of the recipient’s devices',
      () => [laptop.to(), bob.to()],
      () => ({ missing: [current(phone)], extra: [], stale: [] }),
    ],
    [
      'missing: the sender’s own other device',
      () => [bob.to(), phone.to()],
      () => ({ missing: [current(laptop)], extra: [], stale: [] }),
    ],
    [
      'missing: nobody is addressed',
      () => [],
      () => ({ missing: [current(laptop), current(bob), current(phone)].sort(), extra: [], stale: [] }),
    ],
    [
      'extra: a device number that is not there',
      () => [laptop.to(), bob.to(), phone.to(), { ...bob.to(), deviceId: 99 }],
      () => ({ missing: [], extra: [`stranger.99/${bob.device.registrationId}`], stale: [] }),
    ],
    [
      'extra: a user who is no member',
      () => [laptop.to(), bob.to(), phone.to(), { ...bob.to(), userId: uuidToBytes(uuidV7(1)) }],
      () => ({ missing: [], extra: [`stranger.${bob.deviceId}/${bob.device.registrationId}`], stale: [] }),
    ],
    [
      'extra: the sending device itself [S-1.3]',
      () => [alice.to(), laptop.to(), bob.to(), phone.to()],
      () => ({ missing: [], extra: [current(alice)], stale: [] }),
    ],
    [
      'stale: a device under another registration id; the current one is told',
      () => [laptop.to(), stale(bob), phone.to()],
      () => ({ missing: [], extra: [], stale: [current(bob)] }),
    ],
    [
      'all three at once',
      () => [alice.to(), laptop.to(), stale(bob), { ...phone.to(), deviceId: 77 }],
      () => ({
        missing: [current(phone)],
        extra: [current(alice), `stranger.77/${phone.device.registrationId}`].sort(),
        stale: [current(bob)],
      }),
    ],
  ]
  it.each(refusals)('%s', async (_, recipients, expected) => {
    before = await stored()
    const clientMessageId = uuidToBytes(uuidV7(Date.now()))
    expect(mismatchOf(await from.send(conversation, recipients(), { clientMessageId }))).toEqual(expected())
    expect(await stored()).toEqual(before)
    // The corrected send is accepted under the same id [S-2.2].
    const corrected = await from.send(conversation, [laptop.to(), bob.to(), phone.to()], { clientMessageId })
    expect(corrected.messageAccepted).toMatchObject({ duplicate: false, skipped: [] })
  })

  it('a device addressed twice is INVALID_REQUEST, not a mismatch [S-1.3]', async () => {
    const answer = await from.send(conversation, [laptop.to(), bob.to(), bob.to(), phone.to()])
    expect(answer.error?.code).toBe(ErrorCode.ERROR_CODE_INVALID_REQUEST)
  })

  it('with the right set, every device gets its own ciphertext, the sending one nothing', async () => {
    const to = await Promise.all([laptop, bob, phone].map((each) => each.live()))
    const contents = ['for the laptop', 'for bob', 'for the phone'].map((each) => Buffer.from(each))
    const recipients = [laptop, bob, phone].map((each, i) => each.to(contents[i]))
    await from.send(conversation, recipients)
    const got = await Promise.all(to.map(async (each) => (await each.next('envelope')).ciphertext!.content))
    expect(got).toEqual(contents)
    await from.fence()
    expect(from.envelopes()).toEqual([])
    await Promise.all(to.map((each) => each.close()))
  })
})

describe('SCOPE_SUBSET names some of them [S-4.2]', () => {
  const subset = { scope: Scope.SCOPE_SUBSET }

  it('reports nothing missing, and reaches only whom it names', async () => {
    const to = await Promise.all([laptop, bob, phone].map((each) => each.live()))
    expect((await from.send(conversation, [phone.to()], subset)).messageAccepted).toBeTruthy()
    await to[2]!.next('envelope')
    await Promise.all(to.map((each) => each.fence()))
    expect(to.map((each) => each.envelopes().length)).toEqual([0, 0, 0])
    await Promise.all(to.map((each) => each.close()))
  })

  it('to the sender’s own device only', async () => {
    expect((await from.send(conversation, [laptop.to()], subset)).messageAccepted).toBeTruthy()
  })

  it.each<[string, () => sealpost.v1.Recipient.$Properties, () => ReturnType<typeof mismatchOf>]>([
    ['stale', () => stale(phone), () => ({ missing: [], extra: [], stale: [current(phone)] })],
    [
      'extra',
      () => ({ ...phone.to(), deviceId: 50 }),
      () => ({ missing: [], extra: [`stranger.50/${phone.device.registrationId}`], stale: [] }),
    ],
    ['extra: the sending device', () => alice.to(), () => ({ missing: [], extra: [current(alice)], stale: [] })],
  ])('still reports %s, and stores nothing for those that fit', async (_, recipient, expected) => {
    before = await stored()
    expect(mismatchOf(await from.send(conversation, [laptop.to(), recipient()], subset))).toEqual(expected())
    expect(await stored()).toEqual(before)
  })

  it('needs a recipient', async () => {
    expect((await from.send(conversation, [], subset)).error?.code).toBe(ErrorCode.ERROR_CODE_INVALID_REQUEST)
  })
})

describe('withheld [S-6]', () => {
  const withheld = (client: Client, why: sealpost.v1.Withheld) => ({
    userId: uuidToBytes(client.userId),
    deviceId: client.deviceId,
    registrationId: client.device.registrationId,
    withheld: why,
  })

  it.each([
    Withheld.WITHHELD_UNTRUSTED_IDENTITY,
    Withheld.WITHHELD_NO_COMPATIBLE_KEYS,
    Withheld.WITHHELD_NOT_IN_ROSTER,
  ])(
    'reason %i counts as addressed and arrives as an envelope without content, live and from the queue',
    async (why) => {
      const [to, other] = [await bob.live(), await phone.live()]
      const answer = await from.send(conversation, [laptop.to(), withheld(bob, why), phone.to()])
      const { messageId } = answer.messageAccepted!
      const envelope = await to.next('envelope')
      expect(envelope.messageId).toEqual(messageId)
      expect(envelope.ciphertext).toMatchObject({ withheld: why, ciphertextType: 0 })
      expect(envelope.ciphertext!.content!.length).toBe(0)
      // The others lose nothing by it.
      expect((await other.next('envelope')).ciphertext!.content!.length).toBe(64)
      await to.close()
      const later = await bob.connect()
      const [again] = await later.drain()
      expect(again!.messageId).toEqual(messageId)
      expect(again!.ciphertext).toMatchObject({ withheld: why, ciphertextType: 0 })
      await Promise.all([later.close(), other.close()])
    },
  )

  it('does not make up for a stale registration id', async () => {
    const answer = await from.send(conversation, [
      laptop.to(),
      { ...withheld(bob, Withheld.WITHHELD_UNTRUSTED_IDENTITY), registrationId: otherRegistration(bob) },
      phone.to(),
    ])
    expect(mismatchOf(answer).stale).toEqual([current(bob)])
  })
})

it('a device that started over (PUT /v1/keys with replace) is stale under its old registration id [K-8.1]', async () => {
  const carol = await Client.register(relay)
  const talk = await alice.direct(carol)
  expect((await from.send(talk, [laptop.to(), carol.to()])).messageAccepted).toBeTruthy()
  const registrationId = otherRegistration(carol)
  const fresh = new TestDevice({ identity: carol.device.identity, registrationId })
  const signed = fresh.makeSignedPrekey(2)
  const answer = await carol.put('/v1/keys', {
    replace: true,
    registration_id: registrationId,
    signed_prekey: prekeyJson(signed),
  })
  expect(answer.status).toBeLessThan(300)
  const old = await from.send(talk, [laptop.to(), carol.to()])
  expect(old.error?.deviceMismatch?.stale).toMatchObject([{ deviceId: 1, registrationId }])
  expect((await from.send(talk, [laptop.to(), { ...carol.to(), registrationId }])).messageAccepted).toBeTruthy()
})
