// A crash or a lost answer between any two steps of linking: one device more, or none and a clean start. [I-4.5] [I-5]
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Device, type LinkRequest, MemoryStorage, systemTime, Unreachable } from '../../client/index.ts'
import { wsTransport } from '../../client/node.ts'
import { Fate } from '../support/fate.ts'
import { offered, shownUri } from '../support/linking.ts'
import { Overheard } from '../support/overheard.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, live, quiet, say, shown } from '../support/sdk.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

const doomed = (storage: MemoryStorage, fate: Fate) =>
  device(relay, {
    storage: fate.storage(storage),
    transport: fate.transport(wsTransport()),
    time: fate.time(systemTime),
  })

async function everyStep(run: (fate: Fate) => Promise<void>): Promise<string[]> {
  const ends: string[] = []
  for (let step = 1; step < 100; step++) {
    const fate = new Fate(step)
    await run(fate)
    if (!fate.dead) return ends
    ends.push(fate.at)
  }
  throw new Error('it never ends')
}

/** The user has these devices and no more, and the new one writes what the primary reads. */
async function isWhole(primary: Device, second: Device, at: string): Promise<void> {
  expect([second.userId, (await primary.devices()).length], at).toEqual([primary.userId, 2])
  await live(second)
  await quiet(second)
  const peer = await joined(relay)
  const conversation = await second.conversations.direct(peer.userId)
  await say(second, conversation, 'it is me')
  await shown(primary, conversation, 'it is me')
  await shown(peer, conversation, 'it is me')
  for (const each of [primary, second, peer]) each.disconnect()
}

it('a crash of the new device between any two steps: the next process is that device, or is linked by a second approval', {
  timeout: 120_000,
}, async () => {
  const begunAnew: string[] = []
  const ends = await everyStep(async (fate) => {
    const [primary, store] = [await joined(relay), new MemoryStorage()]
    const request = doomed(store, fate).requestLink()
    const done = request.once('linked')
    request.on('offer', (offer) => void offer.accept().catch(() => {}))
    await primary.approveLink(await shownUri(request))
    await Promise.race([done, fate.death])

    const second = device(relay, { storage: store })
    if (!second.isRegistered) {
      const again = second.requestLink()
      const finished = again.once('linked')
      const first = await Promise.race([finished, shownUri(again)])
      if (typeof first === 'string') {
        begunAnew.push(fate.at)
        expect((await primary.devices()).length, fate.at).toBe(1)
        await (await offered(again, primary)).accept()
      }
      await finished
    }
    await isWhole(primary, second, fate.at)
  })
  expect(ends.length).toBeGreaterThan(6)
  // Whoever was asked to join is not asked again.
  expect(begunAnew).toEqual(['1 before a frame came', '2 before commit'])
})

it('a crash of the primary at any step of its approval: an offer came whole or not at all, and a second approval is as good', {
  timeout: 120_000,
}, async () => {
  const ends = await everyStep(async (fate) => {
    const store = new MemoryStorage()
    const before = await joined(relay, { storage: store })
    await quiet(before)
    before.disconnect()
    const laptop = device(relay)
    const request = laptop.requestLink()
    const uri = await shownUri(request)
    const offer = request.once('offer')
    const approval = doomed(store, fate).approveLink(uri)
    await Promise.race([approval, fate.death])
    const primary = await live(device(relay, { storage: store }))
    expect((await primary.devices()).length, fate.at).toBe(1)
    const hasLeft = !fate.dead || fate.at.includes('after PUT')
    if (!hasLeft) {
      expect([request.uri, request.offer], fate.at).toEqual([uri, null])
      await primary.approveLink(uri)
    }
    await (await offer).accept()
    await isWhole(primary, laptop, fate.at)
  })
  expect(ends.map((at) => at.replace(/^\d+ /, ''))).toEqual(
    ['POST /oauth/token', 'POST /v1/devices/link-code', 'PUT /v1/provisioning/'].flatMap((call) => [
      expect.stringContaining(`before ${call}`),
      expect.stringContaining(`after ${call}`),
    ]),
  )
})

/** A new device whose first answer of POST /v1/devices is lost. */
async function unanswered(primary: Device): Promise<{ laptop: Device; request: LinkRequest; heard: Overheard }> {
  const heard = new Overheard()
  const laptop = device(relay, { transport: heard.transport() })
  const request = laptop.requestLink()
  const offer = await offered(request, primary)
  heard.after = (method, path) => {
    if (`${method} ${path}` !== 'POST /v1/devices') return
    heard.after = null
    throw new Error('the line is cut')
  }
  await expect(offer.accept()).rejects.toThrow(Unreachable)
  expect([laptop.isRegistered, request.offer, (await primary.devices()).length]).toEqual([false, offer, 2])
  return { laptop, request, heard }
}

it('the lost answer is asked for again, by the same offer or by another request: the same device, once', async () => {
  for (const again of [
    async ({ request }: { request: LinkRequest }) => request.offer!.accept(),
    async ({ laptop }: { laptop: Device }) => void (await laptop.requestLink().once('linked')),
  ]) {
    const primary = await joined(relay)
    const { heard, ...waiting } = await unanswered(primary)
    await again(waiting)
    expect(heard.seen.filter(({ at }) => at === 'POST /v1/devices answered').length).toBe(2)
    await isWhole(primary, waiting.laptop, 'lost answer')
  }
})

it('two requests at once do not undo each other: the earlier one is answered before the later asks', async () => {
  const [primary, heard] = [await joined(relay), new Overheard()]
  const laptop = device(relay, { transport: heard.transport() })
  const offer = await offered(laptop.requestLink(), primary)
  let release = () => {}
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  const asked = new Promise<void>((resolve) => {
    heard.before = (_, path) => {
      if (path !== '/v1/devices') return
      heard.before = null
      resolve()
      return released
    }
  })
  const accepted = offer.accept()
  await asked
  const second = laptop.requestLink().once('linked')
  // Whatever the second request does at once, it has done when the relay has answered somebody else.
  await primary.devices()
  release()
  await Promise.all([accepted, second])
  await isWhole(primary, laptop, 'two at once')
})

it('a registration while a link is under way waits for its end, and is refused when it came to one', async () => {
  const [primary, heard] = [await joined(relay), new Overheard()]
  const laptop = device(relay, { transport: heard.transport() })
  const offer = await offered(laptop.requestLink(), primary)
  let registration: Promise<unknown> = Promise.resolve()
  heard.before = (_, path) => {
    if (path !== '/v1/devices') return
    heard.before = null
    registration = laptop.register().catch((error) => error)
  }
  await offer.accept()
  expect(await registration).toMatchObject({ message: 'this device is registered' })
  await isWhole(primary, laptop, 'registration at once')
})
