// Who is online, as the SDK tells it: changes only, nobody without a connection, and what a user shows of themselves. [G-2] [H-10]
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Device, PresenceEvent } from '../../client/index.ts'
import type { sealpost } from '../../proto/generated/relay.js'
import { uuidFromBytes, uuidToBytes } from '../../proto/ids.ts'
import { FakeTime } from '../support/faketime.ts'
import { pass } from '../support/passing.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, linked, live, quiet, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

const seenBy = (it: Device): PresenceEvent[] => {
  const events: PresenceEvent[] = []
  it.on('presence', (event) => events.push(event))
  return events
}

describe('whatever the relay says', () => {
  /** A device whose subscriptions do not reach the relay: the test answers them. */
  async function watching() {
    const [time, wire] = [new FakeTime(), new Tamper()]
    const it = await joined(relay, { time, transport: wire })
    await quiet(it)
    const asked: { requestId: number; users: string[] }[] = []
    wire.passes = ({ presenceSubscription, requestId }) => {
      if (!presenceSubscription) return true
      asked.push({ requestId, users: (presenceSubscription.userIds ?? []).map((id) => uuidFromBytes(id)) })
      return false
    }
    const say = (online: Record<string, boolean>, requestId = 0) => {
      const users = Object.entries(online).map(([id, isOnline]) => ({ userId: uuidToBytes(id), isOnline }))
      wire.say({ requestId, presence: { users } })
    }
    const refuse = (code: sealpost.v1.ErrorCode, retryAfterMs: number) =>
      wire.say({ requestId: asked.at(-1)!.requestId, error: { code, retryAfterMs } })
    return { it, time, wire, asked, say, refuse, events: seenBy(it) }
  }

  it('only changes are told, and only of users who are watched', async () => {
    const { it, asked, say, events } = await watching()
    const [bob, carol, dave] = [randomUUID(), randomUUID(), randomUUID()]
    it.watchPresence([bob, carol, bob])
    expect(asked[0]!.users).toEqual([bob, carol])
    say({ [bob]: true, [carol]: false, [dave]: true }, asked[0]!.requestId)
    await quiet(it)
    expect(events).toEqual([{ userId: bob, isOnline: true }])
    it.watchPresence([carol, bob])
    expect(asked).toHaveLength(1)
    say({ [bob]: true, [dave]: true })
    say({ [carol]: true })
    say({ [bob]: false })
    say({ [bob]: false })
    expect(events.slice(1)).toEqual([
      { userId: carol, isOnline: true },
      { userId: bob, isOnline: false },
    ])
    expect([bob, carol, dave].map((id) => it.isOnline(id))).toEqual([false, true, false])
    await it.close()
  })

  it('the last list counts: an answer to an earlier one is not mixed with it', async () => {
    const { it, asked, say, events } = await watching()
    const [bob, carol] = [randomUUID(), randomUUID()]
    it.watchPresence([bob])
    it.watchPresence([carol])
    say({ [bob]: true }, asked[0]!.requestId)
    say({ [carol]: true }, asked[1]!.requestId)
    await quiet(it)
    expect(events).toEqual([{ userId: carol, isOnline: true }])
    it.watchPresence([])
    expect(asked[2]!.users).toEqual([])
    say({ [carol]: true })
    expect([it.isOnline(carol), events.length]).toEqual([false, 1])
    await it.close()
  })

  it('everybody is offline without a connection, and the next one watches again', async () => {
    const { it, time, wire, asked, say, events } = await watching()
    const bob = randomUUID()
    it.watchPresence([bob])
    say({ [bob]: true }, asked[0]!.requestId)
    await quiet(it)
    wire.cut(1006)
    expect(events.at(-1)).toEqual({ userId: bob, isOnline: false })
    expect(it.isOnline(bob)).toBe(false)
    const back = until(it, 'state', ({ name }) => name === 'live')
    time.advance(1000)
    await back
    expect(asked.map(({ users }) => users)).toEqual([[bob], [bob]])
    say({ [bob]: true }, asked[1]!.requestId)
    await quiet(it)
    expect(events.map(({ isOnline }) => isOnline)).toEqual([true, false, true])
    await it.close()
  })

  it('a relay that is busy is asked again when it said so; one that refuses is not', async () => {
    const { it, time, wire, asked, refuse } = await watching()
    it.watchPresence([randomUUID()])
    refuse(7, 3000)
    // The refusal is read in a later turn than it came.
    await new Promise(setImmediate)
    time.advance(2999)
    expect(asked).toHaveLength(1)
    time.advance(1)
    await wire.asked(({ presenceSubscription, requestId }) => !!presenceSubscription && requestId > asked[0]!.requestId)
    refuse(1, 0)
    await quiet(it)
    pass(time, wire, 60_000)
    await quiet(it)
    expect(asked).toHaveLength(2)
    await it.close()
  })

  it('more than 500 are refused without asking, and what was watched stays', async () => {
    const { it, asked, say } = await watching()
    const bob = randomUUID()
    it.watchPresence([bob])
    say({ [bob]: true }, asked[0]!.requestId)
    await quiet(it)
    const many = Array.from({ length: 501 }, () => randomUUID())
    expect(() => it.watchPresence(many)).toThrow(expect.objectContaining({ code: 'TOO_LARGE' }))
    expect([asked.length, it.isOnline(bob)]).toEqual([1, true])
    it.watchPresence(many.slice(1))
    expect(asked[1]!.users).toHaveLength(500)
    await it.close()
  })
})

describe('over the relay', () => {
  it('a user is online while any device is connected, to those who share a conversation', async () => {
    const [alice, bob, stranger] = [await joined(relay), await joined(relay), await joined(relay)]
    await alice.conversations.direct(bob.userId)
    const events = seenBy(alice)
    const seen = until(alice, 'presence')
    alice.watchPresence([bob.userId, stranger.userId])
    expect(await seen).toEqual({ userId: bob.userId, isOnline: true })
    const tablet = await linked(bob, relay)
    await bob.close()
    const gone = until(alice, 'presence', ({ isOnline }) => !isOnline)
    await tablet.close()
    expect(await gone).toEqual({ userId: bob.userId, isOnline: false })
    expect(events.map(({ userId, isOnline }) => [userId, isOnline])).toEqual([
      [bob.userId, true],
      [bob.userId, false],
    ])
    await Promise.all([alice.close(), stranger.close()])
  })

  it('who comes back is told, and what was watched offline is watched once connected', async () => {
    const [alice, bob] = [await joined(relay), await joined(relay)]
    await alice.conversations.direct(bob.userId)
    alice.disconnect()
    bob.disconnect()
    alice.watchPresence([bob.userId])
    const gone = until(alice, 'presence', ({ isOnline }) => !isOnline)
    gone.catch(() => {})
    await live(alice)
    await quiet(alice)
    // For 3 s nobody is told that he left. [G-2.2]
    if (alice.isOnline(bob.userId)) await gone
    const seen = until(alice, 'presence')
    await live(bob)
    expect(await seen).toEqual({ userId: bob.userId, isOnline: true })
    await Promise.all([alice.close(), bob.close()])
  })

  it('who switches presence off is offline to others, and others to them', async () => {
    const [alice, bob] = [await joined(relay), await joined(relay)]
    await alice.conversations.direct(bob.userId)
    await bob.conversations.direct(alice.userId)
    expect(await alice.settings()).toEqual({ readReceipts: true, presence: true })
    const online = [until(alice, 'presence'), until(bob, 'presence')]
    alice.watchPresence([bob.userId])
    bob.watchPresence([alice.userId])
    await Promise.all(online)
    const offline = [until(alice, 'presence'), until(bob, 'presence')]
    expect(await alice.changeSettings({ presence: false })).toEqual({ readReceipts: true, presence: false })
    expect(await Promise.all(offline)).toEqual([
      { userId: bob.userId, isOnline: false },
      { userId: alice.userId, isOnline: false },
    ])
    const again = [until(alice, 'presence'), until(bob, 'presence')]
    expect(await alice.changeSettings({ presence: true })).toEqual({ readReceipts: true, presence: true })
    expect((await Promise.all(again)).every(({ isOnline }) => isOnline)).toBe(true)
    await Promise.all([alice.close(), bob.close()])
  })
})
