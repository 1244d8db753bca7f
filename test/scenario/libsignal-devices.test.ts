// Real libsignal clients with several devices and groups: self-sync, pairwise groups, devices that start over, that cannot be
// written to, that lost a session.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { PREKEY, WHISPER } from '../support/keys.ts'
import { Messenger, PLAINTEXT_CONTENT } from '../support/messenger.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { startOver } from '../support/startover.ts'

const { Withheld } = sealpost.v1

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

const join = (options: Parameters<typeof Messenger.join>[1] = {}) => Messenger.join(relay, options)
const closeAll = (...messengers: Messenger[]) => Promise.all(messengers.map((each) => each.close()))

/** Two users who have written to each other. */
async function talking() {
  const [alice, bob] = [await join(), await join()]
  const conversation = await alice.client.direct(bob.client)
  await alice.say(conversation, 'hello')
  await bob.hearText()
  await bob.say(conversation, 'hello to you')
  await alice.hearText()
  return { alice, bob, conversation }
}

describe('several devices', () => {
  it('of both users: every other device reads every message, the sender’s own included', async () => {
    const phones = { alice: await join(), bob: await join() }
    const laptops = { alice: await phones.alice.link(), bob: await phones.bob.link() }
    const all = [phones.alice, laptops.alice, phones.bob, laptops.bob]
    const conversation = await phones.alice.client.direct(phones.bob.client)
    for (const [i, sender] of [...all, ...all].entries()) {
      const { recipients, rounds } = await sender.say(conversation, `message ${i}`)
      expect(recipients.length).toBe(3)
      expect(rounds).toBe(1)
      // Each device its own ciphertext: not one session is shared.
      expect(new Set(recipients.map((each) => Buffer.from(each.content!).toString('hex'))).size).toBe(3)
      for (const other of all.filter((each) => each !== sender))
        expect(await other.hearText()).toMatchObject({
          text: `message ${i}`,
          from: sender.userId,
          fromDevice: sender.device.deviceId,
        })
    }
    await closeAll(...all)
  })

  it('one linked during a conversation: the next send is refused, repaired and read by it; no session is rebuilt', async () => {
    const { alice, bob, conversation } = await talking()
    const laptop = await bob.link()
    const sent = await alice.say(conversation, 'to all of you')
    expect(sent).toMatchObject({ rounds: 2, repaired: { missing: [{ userId: bob.userId, deviceId: 2 }] } })
    expect(sent.repaired).toMatchObject({ extra: [], stale: [] })
    expect(await bob.hearText()).toMatchObject({ text: 'to all of you', type: WHISPER })
    expect(await laptop.hearText()).toMatchObject({ text: 'to all of you', type: PREKEY })
    await laptop.say(conversation, 'from the laptop')
    expect(await alice.hearText()).toMatchObject({ text: 'from the laptop', fromDevice: 2 })
    expect(await bob.hearText()).toMatchObject({ text: 'from the laptop', fromDevice: 2 })
    await closeAll(alice, bob, laptop)
  })

  it('one unlinked during a conversation: it is left out, the rest goes on in its sessions', async () => {
    const phone = await join()
    const [laptop, bob] = [await phone.link(), await join()]
    const conversation = await bob.client.direct(phone.client)
    await bob.say(conversation, 'to both')
    expect([(await phone.hearText()).text, (await laptop.hearText()).text]).toEqual(['to both', 'to both'])
    expect((await phone.client.delete('/v1/devices/2')).status).toBe(204)
    expect(await laptop.socket.end()).toBe(4401)
    const sent = await bob.say(conversation, 'to the phone')
    expect(sent.repaired).toMatchObject({ missing: [], extra: [{ deviceId: 2 }], stale: [] })
    expect((await phone.hearText()).text).toBe('to the phone')
    await closeAll(phone, bob)
  })
})

describe('a group', () => {
  it('of four users and five devices, encrypted pairwise: each message is read by every other device, once', async () => {
    const members = [await join(), await join(), await join(), await join()]
    const conversation = await members[0]!.client.group(members.slice(1))
    const all = [...members, await members[1]!.link()]
    for (const [i, sender] of all.entries()) {
      const { recipients } = await sender.say(conversation, `round ${i}`)
      expect(recipients.length).toBe(4)
      for (const other of all.filter((each) => each !== sender))
        expect((await other.hearText()).text).toBe(`round ${i}`)
    }
    for (const each of all) expect(await each.catchUp()).toEqual([])
    await closeAll(...all)
  })

  it('with a device that speaks X3DH only: it is told that something was withheld, and blocks nobody', async () => {
    const [alice, bob, old] = [await join(), await join(), await join({ kyber: false, kyberOneTime: 0 })]
    const conversation = await alice.client.group([bob, old])
    const bundle = (await alice.fetchBundle(old.userId, 1))!
    expect(bundle.kyberPrekey).toBeNull()
    expect(await alice.openSession(old.userId, bundle)).toBe(false)
    const { recipients } = await alice.say(conversation, 'who can read this?')
    expect(recipients.find((each) => each.withheld)).toMatchObject({
      withheld: Withheld.WITHHELD_NO_COMPATIBLE_KEYS,
      deviceId: 1,
    })
    expect((await bob.hearText()).text).toBe('who can read this?')
    const skipEvents = async () => {
      for (;;) {
        const received = await old.hear()
        if (received.kind !== 'event') return received
      }
    }
    expect(await skipEvents()).toMatchObject({
      kind: 'withheld',
      reason: Withheld.WITHHELD_NO_COMPATIBLE_KEYS,
      from: alice.userId,
    })
    await closeAll(alice, bob, old)
  })
})

describe('a device that starts over', () => {
  it('is stale to its senders, who open a new session and go on; its old mail is unreadable and does not block', async () => {
    const { alice, bob, conversation } = await talking()
    await bob.close()
    await alice.say(conversation, 'for a session that is no more')
    await startOver(bob)
    const sent = await alice.say(conversation, 'welcome back')
    expect(sent.repaired).toMatchObject({
      missing: [],
      extra: [],
      stale: [{ userId: bob.userId, deviceId: 1, registrationId: bob.device.registrationId }],
    })
    await bob.connect()
    const read = await bob.catchUp()
    expect(read).toMatchObject([{ kind: 'unreadable' }, { kind: 'text', text: 'welcome back', type: PREKEY }])
    await bob.say(conversation, 'thank you')
    expect((await alice.hearText()).text).toBe('thank you')
    await alice.say(conversation, 'as before')
    expect(await bob.hearText()).toMatchObject({ text: 'as before', type: WHISPER })
    await closeAll(alice, bob)
  })
})

describe('a message that cannot be read', () => {
  it('is complained of to its sender’s device alone, which opens a new session and sends it again', async () => {
    const { alice, bob, conversation } = await talking()
    const laptop = await alice.link()
    await bob.say(conversation, 'laptop, meet')
    await Promise.all([alice.hearText(), laptop.hearText()])
    // Bob's store lost the session, and nothing else.
    bob.device.sessions.records.delete(`${alice.userId}.1`)
    const lost = await alice.say(conversation, 'do you read me?')
    expect((await laptop.hearText()).text).toBe('do you read me?')
    const unreadable = await bob.hear()
    expect(unreadable.kind).toBe('unreadable')
    await bob.complain(unreadable)

    const complaint = await hearPast(alice, 'complaint')
    expect(complaint).toMatchObject({ from: bob.userId, aboutMs: lost.sentAtMs, sessionDropped: true })
    expect(complaint.envelope.ciphertext).toMatchObject({ ciphertextType: PLAINTEXT_CONTENT, urgent: false })
    await laptop.socket.fence()
    expect(laptop.socket.envelopes()).toEqual([])

    await alice.say(conversation, 'do you read me?', { only: [alice.book.find(bob.userId, 1)] })
    expect(await bob.hearText()).toMatchObject({ text: 'do you read me?', type: PREKEY })
    await bob.say(conversation, 'loud and clear')
    expect((await alice.hearText()).text).toBe('loud and clear')
    await closeAll(alice, laptop, bob)
  })

  it('a complaint that comes late, about a session that was replaced since, drops nothing', async () => {
    const { alice, bob, conversation } = await talking()
    bob.device.sessions.records.delete(`${alice.userId}.1`)
    await alice.say(conversation, 'lost')
    const unreadable = await bob.hear()
    await bob.say(conversation, 'a new session, from my side')
    expect((await alice.hearText()).type).toBe(PREKEY)
    await bob.complain(unreadable)
    expect(await alice.hear()).toMatchObject({ kind: 'complaint', sessionDropped: false })
    await alice.say(conversation, 'still here')
    expect(await bob.hearText()).toMatchObject({ text: 'still here', type: WHISPER })
    await closeAll(alice, bob)
  })
})

/** The next thing of that kind, past what else arrives. */
async function hearPast(messenger: Messenger, kind: 'complaint') {
  for (;;) {
    const received = await messenger.hear()
    if (received.kind === kind) return received
  }
}
