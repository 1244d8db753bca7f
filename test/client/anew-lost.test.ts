// Beginning anew over a network that loses answers and requests, or brings them late: it ends in one device, whose key is there. [I-6.7]
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Device, type HttpAnswer, MemoryStorage } from '../../client/index.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, linked, live, quiet, say, shown } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

const hangUp = (...devices: Device[]): void => {
  for (const each of devices) each.disconnect()
}

describe('answers and requests that are lost', () => {
  const sequences = [0, 1, 2, 3, 4, 5, 6, 7].map((bits) => [4, 2, 1].map((bit) => (bits & bit ? 'answer' : 'request')))

  it.each(sequences)('%s, %s, then %s: the same call again ends in one device', async (...losses) => {
    const alice = await joined(relay)
    const code = await alice.recovery.makeCode()
    hangUp(alice)
    const way = new Tamper()
    const left = [...losses]
    const through = way.request.bind(way)
    way.request = async (request) => {
      const lost = request.method === 'PUT' && request.url.endsWith('/v1/identity') ? left.shift() : undefined
      if (lost === 'request') throw new Error('the network is down')
      const answer = await through(request)
      if (lost === 'answer') throw new Error('the network went down')
      return answer
    }
    const anew = device(relay, { transport: way })
    for (const _ of losses)
      await expect(anew.recover({ userId: alice.userId, code })).rejects.toThrow('does not answer')
    expect(left).toEqual([])
    await anew.recover({ userId: alice.userId, code })
    await live(anew)
    await quiet(anew)
    expect([anew.userId, anew.deviceId]).toEqual([alice.userId, 1])
    expect(await anew.devices()).toHaveLength(1)
    const bob = await joined(relay)
    const conversation = await bob.conversations.direct(alice.userId)
    await say(bob, conversation, 'are you there?')
    await shown(anew, conversation, 'are you there?')
    hangUp(anew, bob)
  })

  /**
   * The first requests for a new identity are late: nobody answers, and each reaches the relay only where `plan` says, before the request
   * of that number that follows. @returns what the relay said, in its order, and what lets the rest arrive.
   */
  function late(way: Tamper, plan: number[]): { seen: string[]; rest(): Promise<void> } {
    const through = way.request.bind(way)
    const seen: string[] = []
    const held: { at: number; arrive(): Promise<HttpAnswer> }[] = []
    const left = [...plan]
    let asked = 0
    const pass = async (request: () => Promise<HttpAnswer>): Promise<HttpAnswer> => {
      const answer = await request()
      seen.push(answer.status === 200 ? 'done' : JSON.parse(answer.body).error.code)
      return answer
    }
    const arrive = async (which: typeof held): Promise<void> => {
      for (const each of which) {
        held.splice(held.indexOf(each), 1)
        await pass(each.arrive)
      }
    }
    way.request = async (request) => {
      if (request.method !== 'PUT' || !request.url.endsWith('/v1/identity')) return through(request)
      const at = left.shift()
      if (at !== undefined) {
        held.push({ at, arrive: () => through(request) })
        throw new Error('the network went down')
      }
      asked++
      await arrive(held.filter((each) => each.at === asked))
      return pass(() => through(request))
    }
    return { seen, rest: () => arrive([...held]) }
  }

  it.each([
    [1, 1],
    [1, 2],
    [2, 1],
    [2, 2],
    [3, 3],
    [4, 4],
  ])(
    'two requests under way at once, carried out before request %i and %i that follow: no key is erased that may come into force',
    async (...plan) => {
      const way = new Tamper()
      const alice = await joined(relay)
      const code = await alice.recovery.makeCode()
      hangUp(alice)
      const anew = device(relay, { transport: way })
      const { rest } = late(way, plan)
      for (const _ of plan)
        await expect(anew.recover({ userId: alice.userId, code })).rejects.toThrow('does not answer')
      await anew.recover({ userId: alice.userId, code })
      await rest()
      await live(anew)
      expect([anew.userId, anew.deviceId, (await anew.devices()).length]).toEqual([alice.userId, 1, 1])
      hangUp(anew)
    },
  )

  it.each(['recovery', 'replacement'] as const)(
    'a %s that the relay carries out late, before its repetition, keeps its key',
    async (kind) => {
      const way = new Tamper()
      const store = new MemoryStorage()
      const alice = await joined(relay, kind === 'replacement' ? { storage: store, transport: way } : {})
      const code = kind === 'recovery' ? await alice.recovery.makeCode() : ''
      hangUp(alice)
      const anew = kind === 'recovery' ? device(relay, { storage: store, transport: way }) : alice
      const ask = () => (code ? anew.recover({ userId: alice.userId, code }) : anew.replaceIdentity())
      const { seen } = late(way, [1])
      await expect(ask()).rejects.toThrow('does not answer')
      await ask()
      expect(seen).toEqual(['done', 'FORBIDDEN', 'done'])
      await live(anew)
      expect([anew.userId, anew.deviceId, (await anew.devices()).length]).toEqual([alice.userId, 1, 1])
      hangUp(anew)
    },
  )

  it('a replacement that was refused for now is not carried out by the next connection, but by its user’s next word', async () => {
    const way = new Tamper()
    const alice = await joined(relay, { transport: way })
    const before = alice.deviceId
    const through = way.request.bind(way)
    const later = { status: 429, body: '{"error":{"code":"RATE_LIMITED","message":"","retry_after_ms":1000}}' }
    let asked = 0
    way.request = async (request) => {
      if (request.method !== 'PUT' || !request.url.endsWith('/v1/identity')) return through(request)
      return asked++ === 0 ? later : through(request)
    }
    const phone = await linked(alice, relay)
    await expect(alice.replaceIdentity()).rejects.toMatchObject({ code: 'RATE_LIMITED' })
    await live(alice)
    await quiet(alice)
    expect([asked, alice.deviceId, (await alice.devices()).length]).toEqual([1, before, 2])
    await alice.replaceIdentity()
    await live(alice)
    expect([asked, (await alice.devices()).length]).toEqual([2, 1])
    hangUp(alice, phone)
  })

  it('another code that is of no use says nothing of the first, which may be carried out yet', async () => {
    const way = new Tamper()
    const [alice, anew] = [await joined(relay), device(relay, { transport: way })]
    const wrong = await alice.recovery.makeCode()
    const code = await alice.recovery.makeCode()
    hangUp(alice)
    const { seen } = late(way, [3])
    await expect(anew.recover({ userId: alice.userId, code })).rejects.toThrow('does not answer')
    for (const _ of [1, 2])
      await expect(anew.recover({ userId: alice.userId, code: wrong })).rejects.toMatchObject({ code: 'FORBIDDEN' })
    await anew.recover({ userId: alice.userId, code })
    expect(seen).toEqual(['FORBIDDEN', 'FORBIDDEN', 'done', 'FORBIDDEN', 'done'])
    await live(anew)
    expect(anew.userId).toBe(alice.userId)
    hangUp(anew)
  })

  it('a warrant that never held is said so, and nothing of it is left', async () => {
    const way = new Tamper()
    const [alice, anew, { seen }] = [await joined(relay), device(relay, { transport: way }), late(way, [3])]
    const code = await alice.recovery.makeCode()
    await alice.recovery.removeCode()
    await expect(anew.recover({ userId: alice.userId, code })).rejects.toThrow('does not answer')
    await expect(anew.recover({ userId: alice.userId, code })).rejects.toMatchObject({ code: 'FORBIDDEN' })
    // The repetition, and what the key it brings may say.
    expect(seen).toEqual(['FORBIDDEN', 'FORBIDDEN'])
    await anew.recover({ userId: alice.userId, code: await alice.recovery.makeCode() })
    expect([anew.userId, seen.slice(2)]).toEqual([alice.userId, ['FORBIDDEN', 'done']])
    hangUp(alice)
  })
})
