// Becoming one more device of a user: both users are asked, nothing is kept before, and whatever goes wrong, another request follows. [I-5]
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type LinkRequest, LinkUriRefused, MemoryStorage } from '../../client/index.ts'
import { FakeTime } from '../support/faketime.ts'
import { Fate } from '../support/fate.ts'
import { offered, shownUri } from '../support/linking.ts'
import { Overheard } from '../support/overheard.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, linked, live, quiet, say, shown } from '../support/sdk.ts'

let relay: TestRelay
/** The relay's clock. */
let aheadMs = 0
beforeAll(async () => {
  relay = await testRelay({ clock: () => Date.now() + aheadMs })
})
afterAll(() => relay.close())

describe('a request', () => {
  it('names the device, offers the account by its username, and after both words is a device that reads and writes', async () => {
    const [alice, bob] = [await joined(relay), await joined(relay)]
    await alice.usernames.claim('alicelinks.01')
    const conversation = await alice.conversations.direct(bob.userId)
    await say(alice, conversation, 'before')
    const laptop = device(relay)
    const request = laptop.requestLink({ name: 'Zoë’s laptop & more' })
    const uri = await shownUri(request)
    expect(uri).toMatch(/^sealpost:link\?host=127\.0\.0\.1:\d+&address=[\w-]{22}&key=[\w-]{44}&name=/)
    expect(alice.readLinkUri(` ${uri}\n`).name).toBe('Zoë’s laptop & more')
    expect(`http://${new URLSearchParams(uri.split('?')[1]).get('host')}`).toBe(relay.url)

    const [offer] = await Promise.all([request.once('offer'), alice.approveLink(uri)])
    expect({ ...offer }).toMatchObject({ userId: alice.userId, username: 'alicelinks.01' })
    expect([request.uri, request.offer, laptop.isRegistered]).toEqual([null, offer, false])
    const done = request.once('linked')
    await offer.accept()
    expect(await done).toEqual({ userId: alice.userId })
    expect([laptop.userId, laptop.deviceId, laptop.usernames.own]).toEqual([alice.userId, 2, 'alicelinks.01'])
    expect(() => laptop.requestLink()).toThrow('registered')

    await live(laptop)
    await quiet(laptop)
    expect((await alice.devices()).map(({ deviceId, name }) => [deviceId, name])).toEqual([
      [1, ''],
      [2, 'Zoë’s laptop & more'],
    ])
    await say(laptop, conversation, 'from my laptop')
    await shown(bob, conversation, 'from my laptop')
    await shown(alice, conversation, 'from my laptop')
    await say(bob, conversation, 'to all of you')
    await shown(laptop, conversation, 'to all of you')
    // Where it waited is nobody's to read, nor what it was let in with. I16
    const { address } = Object.fromEntries(new URLSearchParams(uri.split('?')[1]))
    expect(relay.logged.filter((line) => line.includes(address!))).toEqual([])
    for (const each of [alice, bob, laptop]) each.disconnect()
  })

  it('that is answered by the wrong account is shown again under another uri, and nothing of it was stored', async () => {
    const [alice, mallory] = [await joined(relay), await joined(relay)]
    const store = new Fate(Number.POSITIVE_INFINITY)
    const laptop = device(relay, { storage: store.storage(new MemoryStorage()) })
    const request = laptop.requestLink()
    const uri = await shownUri(request)
    const offer = await offered(request, mallory)
    expect(offer.userId).toBe(mallory.userId)
    offer.reject()
    await expect(offer.accept()).rejects.toThrow('no longer open')
    const next = await shownUri(request, uri)
    for (const name of ['address', 'key']) {
      const of = (text: string) => new URLSearchParams(text.split('?')[1]).get(name)
      expect(of(next)).not.toBe(of(uri))
    }
    expect([store.steps, laptop.isRegistered, request.offer]).toEqual([0, false, null])
    // Where it waited before, nobody waits.
    await expect(mallory.approveLink(uri)).rejects.toMatchObject({ code: 'NOT_FOUND' })
    offer.reject()
    expect(request.uri).toBe(next)

    await (await offered(request, alice)).accept()
    expect(laptop.userId).toBe(alice.userId)
    expect([(await alice.devices()).length, (await mallory.devices()).length]).toEqual([2, 1])
    for (const each of [alice, mallory]) each.disconnect()
  })

  it('that is no request, is for another relay, or is read by a linked device is refused, and the one that waits goes on waiting', async () => {
    const heard = new Overheard()
    const alice = await joined(relay, { transport: heard.transport() })
    const second = await linked(alice, relay)
    const request = device(relay).requestLink({ name: 'tablet' })
    const uri = await shownUri(request)
    await quiet(alice)
    // What it is asked for over its socket, and signs of life, come when they come.
    const calls = () => heard.seen.filter(({ at }) => !at.startsWith('socket')).length
    const before = calls()
    const [, host] = uri.match(/host=([^&]*)/)!
    const bad = {
      not_a_request: [
        '',
        'https://example.org/',
        uri.replace('sealpost:link?', 'sealpost:join?'),
        uri.replace(/&address=[^&]*/, ''),
        uri.replace(/address=./, 'address='),
        uri.replace(/&key=[^&]*/, ''),
        uri.replace(/key=B/, 'key=C'),
        uri.replace(/(key=[^&]*)[^&]{4}/, '$1'),
        uri.replace(/key=[^&]{4}/, 'key=!!!!'),
        uri.replace(/host=[^&]*/, 'host='),
        uri.replace(/host=[^&]*/, 'host=a b'),
        `${uri}&name=another`,
        uri.replace('tablet', '%'),
        uri.replace('tablet', 'x'.repeat(129)),
        uri.replace('tablet', '%E2%80%AEtelbat'),
        uri.replace('tablet', 'two%0Alines'),
      ],
      another_relay: [
        uri.replace(host!, 'relay.example.org'),
        uri.replace(host!, '127.0.0.1:1'),
        uri.replace(host!, `${host}.example.org`.replace(/:\d+/, '')),
        uri.replace(host!, `127.0.0.1`),
      ],
    }
    for (const [reason, uris] of Object.entries(bad))
      for (const each of uris) {
        const refused = await alice.approveLink(each).catch((error) => error)
        expect(refused, each).toBeInstanceOf(LinkUriRefused)
        expect(refused, each).toMatchObject({ reason })
        expect(() => alice.readLinkUri(each)).toThrow(LinkUriRefused)
      }
    // Nothing of it was anybody's business.
    expect(calls()).toBe(before)
    // What it does not know is of a later protocol. [I-5.1]
    expect(alice.readLinkUri(`${uri}&colour=blue`).name).toBe('tablet')

    expect(second.readLinkUri(uri).name).toBe('tablet')
    await expect(second.approveLink(uri)).rejects.toMatchObject({
      code: 'FORBIDDEN',
      message: expect.stringContaining('primary'),
    })
    expect(request.uri).toBe(uri)
    expect((await alice.devices()).length).toBe(2)
    await (await offered(request, alice)).accept()
    expect((await alice.devices()).length).toBe(3)
    for (const each of [alice, second]) each.disconnect()
  })

  it('has another address and key after 90 s, whether the relay says so or is dead', async () => {
    const [alice, time, heard] = [await joined(relay), new FakeTime(), new Overheard()]
    const request = device(relay, { time, transport: heard.transport() }).requestLink()
    const first = await shownUri(request)
    time.advance(90_000)
    aheadMs += 90_000
    const second = await shownUri(request, first)
    await expect(alice.approveLink(first)).rejects.toMatchObject({ code: 'NOT_FOUND' })

    heard.isSilent = true
    time.advance(94_999)
    expect(request.uri).toBe(second)
    time.advance(1)
    const third = await shownUri(request, second)
    heard.isSilent = false
    const keys = [first, second, third].flatMap((uri) => uri.match(/(address|key)=[\w-]+/g)!)
    expect(new Set(keys).size).toBe(6)
    await (await offered(request, alice)).accept()
    expect((await alice.devices()).length).toBe(2)
    alice.disconnect()
  })

  it('that is cancelled shows nothing and waits nowhere; a registration ends it, too', async () => {
    const alice = await joined(relay)
    const laptop = device(relay)
    for (const end of [(it: LinkRequest) => it.cancel(), () => laptop.register()]) {
      const request = laptop.requestLink()
      const uri = await shownUri(request)
      await end(request)
      expect(request.uri).toBeNull()
      await expect(alice.approveLink(uri)).rejects.toMatchObject({ code: 'NOT_FOUND' })
    }
    expect(laptop.userId).not.toBe(alice.userId)
    // Nor does an account that was offered before.
    const other = device(relay)
    const request = other.requestLink()
    const offer = await offered(request, alice)
    request.cancel()
    await expect(offer.accept()).rejects.toThrow('no longer open')
    expect([other.isRegistered, (await alice.devices()).length]).toEqual([false, 1])
    alice.disconnect()
  })
})
