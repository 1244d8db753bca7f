// Groups after one of their members began anew, what a relay may say of identities, and who may begin anew by which key. [I-6] [V-5]
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Device, MemoryStorage } from '../../client/index.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, linked, live, quiet, say, shown, texts, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

/** Who the members are, as a device has it. */
const members = (it: Device, group: string): string[] =>
  it.conversations
    .get(group)!
    .members.map(({ userId }) => userId)
    .sort()
const hex = (bytes?: Uint8Array | null): string => Buffer.from(bytes ?? []).toString('hex')
const changed = (it: Device, user: Device) => until(it, 'identity_changed', ({ userId }) => userId === user.userId)
const hangUp = (...devices: Device[]): void => {
  for (const each of devices) each.disconnect()
}

/** A group made by alice, in which everybody has read something of everybody. */
async function group(...others: Device[]): Promise<{ alice: Device; id: string; ids: string[] }> {
  const alice = await joined(relay)
  const id = await alice.conversations.group(others.map(({ userId }) => userId))
  for (const each of [alice, ...others]) {
    await say(each, id, `hello from ${each.userId}`)
    for (const other of [alice, ...others]) await shown(other, id, `hello from ${each.userId}`)
  }
  return { alice, id, ids: [alice, ...others].map(({ userId }) => userId).sort() }
}

/** That user again, on an empty device. */
async function recovered(lost: Device): Promise<Device> {
  const code = await lost.recovery.makeCode()
  const anew = device(relay)
  await anew.recover({ userId: lost.userId, code })
  return live(anew)
}

describe('a group whose admin lost everything', () => {
  it('goes on: the members’ messages say who is in it, the admin adds somebody, and she verifies all of it', async () => {
    const [bob, carol, dave] = [await joined(relay), await joined(relay), await joined(relay)]
    const { alice, id, ids } = await group(bob, carol)
    // Somebody is added while carol is away: she meets that change together with the new key.
    hangUp(carol)
    await alice.conversations.addMembers(id, [dave.userId])
    await say(alice, id, 'dave is here')
    // Dave, too, knows the old key: he has to meet her before she has another one.
    for (const each of [bob, dave]) await shown(each, id, 'dave is here')
    const all = [...ids, dave.userId].sort()
    const told = changed(bob, alice)
    const anew = await recovered(alice)
    await told
    await quiet(anew)

    const found = anew.conversations.get(id)!
    expect([found.members, found.unconfirmed?.members.map(({ userId }) => userId).sort()]).toEqual([[], all])
    const early = await say(anew, id, 'is anybody there?', 'failed')
    expect(anew.messages(id).at(-1)!.message).toMatchObject({ id: early.id, failure: 'roster_unconfirmed' })

    await live(carol)
    await quiet(carol)
    if (!carol.offeredIdentity(alice.userId)) await changed(carol, alice)
    for (const each of [bob, carol, dave]) {
      if (!each.offeredIdentity(alice.userId)) await changed(each, alice)
      await each.acceptIdentity(alice.userId)
      expect(members(each, id)).toEqual(all)
    }
    // One alone may be in league with the relay.
    await say(bob, id, 'we are')
    await quiet(anew)
    expect([texts(anew, id).includes('we are'), members(anew, id)]).toEqual([false, []])
    await say(carol, id, 'all of us')
    await say(dave, id, 'me too')
    for (const text of ['we are', 'all of us', 'me too']) await shown(anew, id, text)
    expect([members(anew, id), anew.conversations.get(id)!.unconfirmed]).toEqual([all, null])
    anew.retry(early.id)
    for (const each of [bob, carol, dave]) await shown(each, id, 'is anybody there?')

    // A change under the new key, and a member who never knew the old one.
    const erin = await joined(relay)
    await anew.conversations.addMembers(id, [erin.userId])
    await say(anew, id, 'and erin')
    const whole = [...all, erin.userId].sort()
    for (const each of [bob, carol, dave, erin]) {
      await shown(each, id, 'and erin')
      expect(members(each, id)).toEqual(whole)
      expect(each.conversations.get(id)!.unsignedRevisions).toEqual([])
    }
    await say(erin, id, 'thank you')
    for (const each of [anew, bob, carol, dave]) await shown(each, id, 'thank you')
    hangUp(anew, bob, carol, dave, erin)
  })

  it('goes on after her own look, too, at what she looked at and nothing else', async () => {
    const [bob, carol] = [await joined(relay), await joined(relay)]
    const { alice, id, ids } = await group(bob, carol)
    const anew = await recovered(alice)
    await quiet(anew)
    const { revision, members: shownMembers } = anew.conversations.get(id)!.unconfirmed!
    expect(shownMembers.map(({ userId }) => userId).sort()).toEqual(ids)
    expect(() => anew.confirmMembers(id, revision + 1)).toThrow('no such change')
    anew.confirmMembers(id, revision)
    expect(members(anew, id)).toEqual(ids)
    expect(() => anew.confirmMembers(id, revision)).toThrow('no such change')
    await say(anew, id, 'it is me')
    for (const each of [bob, carol]) {
      if (!each.offeredIdentity(alice.userId)) await changed(each, alice)
      expect(texts(each, id)).not.toContain('it is me')
      await each.acceptIdentity(alice.userId)
      await shown(each, id, 'it is me')
    }
    hangUp(anew, bob, carol)
  })

  it('keeps who was added under the old key, also where the relay tells of it only after the new key was accepted', async () => {
    const held = new Tamper()
    const [bob, carol] = [await joined(relay, { transport: held }), await joined(relay)]
    const { alice, id, ids } = await group(bob, carol)
    const dave = await joined(relay)
    held.frames = (frame) => (frame.envelope?.systemEvent?.conversationChanged ? [] : [frame])
    await alice.conversations.addMembers(id, [dave.userId])
    const told = changed(bob, alice)
    const anew = await recovered(alice)
    await told
    expect(members(bob, id)).toEqual(ids)
    await bob.acceptIdentity(alice.userId)
    expect(members(bob, id)).toEqual([...ids, dave.userId].sort())
    expect(bob.conversations.get(id)!.unsignedRevisions).toEqual([])
    hangUp(anew, bob, carol, dave)
  })

  it('gets no member that the relay slips in meanwhile', async () => {
    const [bob, carol, ghost] = [await joined(relay), await joined(relay), await joined(relay)]
    const { alice, id, ids } = await group(bob, carol)
    const code = await alice.recovery.makeCode()
    const lying = new Tamper()
    let forged = 0
    // Her own creation, made up: of four, under a signature nobody can check any more.
    lying.answers = (request, answer) => {
      if (!request.url.includes(`/v1/conversations/${id}?`)) return answer
      const json = JSON.parse(answer.body)
      for (const each of json.changes) if (each.change === 'created') forged = each.subject_user_ids.push(ghost.userId)
      return { ...answer, body: JSON.stringify(json) }
    }
    const anew = device(relay, { transport: lying })
    await anew.recover({ userId: alice.userId, code })
    await live(anew)
    await quiet(anew)
    expect(forged).toBe(4)
    expect(anew.conversations.get(id)!.unconfirmed!.members).toHaveLength(4)
    for (const each of [bob, carol]) {
      if (!each.offeredIdentity(alice.userId)) await changed(each, alice)
      await each.acceptIdentity(alice.userId)
    }
    await say(bob, id, 'only us three')
    await quiet(anew)
    // Not what he sees: nothing is believed, nothing shown, and nothing goes to the ghost.
    expect([members(anew, id), texts(anew, id)]).toEqual([[], []])
    const tried = await say(anew, id, 'anybody?', 'failed')
    expect(tried.id).toBe(anew.messages(id).at(-1)!.message.id)
    expect(members(bob, id)).toEqual(ids)
    hangUp(anew, bob, carol, ghost)
  })
})

describe('what the relay says of an identity', () => {
  it('is a reason to look, and nothing else: the same key, strangers, and one’s own user change nothing', async () => {
    const lying = new Tamper()
    const [alice, bob, stranger] = [await joined(relay, { transport: lying }), await joined(relay), await joined(relay)]
    const conversation = await alice.conversations.direct(bob.userId)
    await say(alice, conversation, 'hello')
    await shown(bob, conversation, 'hello')
    await quiet(alice)
    const number = alice.safetyNumber(bob.userId)
    const told: string[] = []
    alice.on('identity_changed', ({ userId }) => told.push(userId))
    const bytes = (id: string) => Buffer.from(id.replaceAll('-', ''), 'hex')
    const asked = () =>
      lying.requests.filter(({ url }) => url.includes('/v1/keys/')).map(({ url }) => url.split('/keys/')[1])
    const before = asked().length
    for (const [at, userId] of [bob.userId, stranger.userId, alice.userId].entries())
      lying.say({
        envelope: {
          messageId: bytes(`01900000-0000-7000-8000-00000000000${at}`),
          sentAtMs: Date.now(),
          sequence: 1000 + at,
          systemEvent: { identityChanged: { userId: bytes(userId), identityKey: new Uint8Array(33).fill(5) } },
        },
      })
    await quiet(alice)
    await say(bob, conversation, 'still me')
    await shown(alice, conversation, 'still me')
    expect(
      asked()
        .slice(before)
        .filter((url) => url!.includes('*')),
    ).toEqual([`${bob.userId}/*`])
    expect([told, alice.offeredIdentity(bob.userId), alice.safetyNumber(bob.userId)]).toEqual([[], null, number])
    hangUp(alice, bob, stranger)
  })
})

describe('a linked device', () => {
  it('cannot make a recovery code', async () => {
    const alice = await joined(relay)
    const laptop = await linked(alice, relay)
    await expect(laptop.recovery.makeCode()).rejects.toMatchObject({ code: 'FORBIDDEN' })
    expect(laptop.recovery.madeAtMs).toBeNull()
    hangUp(alice, laptop)
  })

  it('replaces the identity of a stolen primary and takes its place; what may have left is its user’s to repeat', async () => {
    const [bob, store] = [await joined(relay), new MemoryStorage()]
    const alice = await joined(relay)
    const carol = await joined(relay)
    const id = await alice.conversations.group([bob.userId, carol.userId])
    const way = new Tamper()
    const laptop = await linked(alice, relay, { storage: store, transport: way })
    await say(alice, id, 'before')
    for (const each of [bob, carol, laptop]) await shown(each, id, 'before')
    await say(laptop, id, 'me too')
    for (const each of [bob, carol, alice]) await shown(each, id, 'me too')
    await quiet(laptop)
    // One leaves, and nobody hears of it; one never leaves.
    way.hole = true
    const left = laptop.send(id, { text: 'did it leave?' })
    await way.asked(({ signalMessage }) => hex(signalMessage?.clientMessageId) === left.id.replaceAll('-', ''))
    hangUp(laptop)
    way.hole = false
    const waits = laptop.send(id, { text: 'it did not' })
    const gone = until(alice, 'state', ({ name }) => name === 'closed')
    const number = laptop.safetyNumber(bob.userId)
    await laptop.replaceIdentity({ name: 'laptop' })
    expect(await gone).toEqual({ name: 'closed', reason: 'unlinked' })
    expect([laptop.deviceId, laptop.userId]).toEqual([1, alice.userId])
    expect(laptop.safetyNumber(bob.userId)).not.toBe(number)
    const stateOf = (messageId: string) => laptop.messages(id).find(({ message }) => message.id === messageId)!.message
    expect(stateOf(left.id)).toMatchObject({ state: 'failed', failure: 'began_anew', senderDeviceId: 1 })
    await live(laptop)
    for (const each of [bob, carol]) {
      if (!each.offeredIdentity(alice.userId)) await changed(each, alice)
      await each.acceptIdentity(alice.userId)
      await shown(each, id, 'it did not')
    }
    expect(stateOf(waits.id).state).not.toBe('failed')
    laptop.retry(left.id)
    for (const each of [bob, carol]) {
      await shown(each, id, 'did it leave?')
      expect(texts(each, id)).toEqual(['before', 'me too', 'it did not', 'did it leave?'])
    }
    // The same store, opened again, is that device.
    hangUp(laptop)
    await quiet(laptop)
    const again = await live(device(relay, { storage: store }))
    expect((await again.devices()).map(({ deviceId, name }) => [deviceId, name])).toEqual([[1, 'laptop']])
    await say(bob, id, 'good')
    await shown(again, id, 'good')
    hangUp(again, bob, carol)
  })
})
