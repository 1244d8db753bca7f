// How far one's own messages have come: sending, sent, delivered, read, as numbers that never fall, asked for on every connection. [G-3]
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Device, MemoryStorage, type Message, type MessageState } from '../../client/index.ts'
import { follow, openQuestions } from '../../client/progress.ts'
import type { sealpost } from '../../proto/generated/relay.js'
import { uuidFromBytes, uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, directory, joined, linked, live, quiet, say, shown, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
const files = directory()
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(async () => {
  await relay.close()
  files.end()
})

type Numbers = Pick<Message, 'state' | 'delivered' | 'read' | 'audience'>
const numbers = ({ state, delivered, read, audience }: Message): Numbers => ({ state, delivered, read, audience })
const stored = (it: Device, conversation: string, text: string): Message =>
  it.messages(conversation).find(({ message }) => message.body.text === text)!.message

/** Resolves once a message fits, also when it does already. */
async function comes(it: Device, which: Message, fits: (message: Message) => boolean): Promise<Message> {
  const coming = until(it, 'message_changed', (each) => each.id === which.id && fits(each))
  coming.catch(() => {})
  const now = it.messages(which.conversationId, { limit: 1000 }).find(({ message }) => message.id === which.id)?.message
  return now && fits(now) ? now : coming
}
const reaches = (it: Device, message: Message, state: MessageState): Promise<Message> =>
  comes(it, message, (each) => each.state === state)

/** Everything a message of that text was on this device, in the order in which it was told. */
function told(it: Device, text: string): Numbers[] {
  const all: Numbers[] = []
  for (const name of ['message', 'message_changed'] as const)
    it.on(name, (message) => {
      if (message.body.text === text) all.push(numbers(message))
    })
  return all
}

describe('over the relay', () => {
  it('a message to one user is sending, sent, delivered, read, and still is after a restart', async () => {
    const storage = files.sqlite('states.db')
    const [alice, bob] = [await joined(relay, { storage }), await joined(relay)]
    const conversation = await alice.conversations.direct(bob.userId)
    bob.disconnect()
    const states = told(alice, 'hello')
    const message = await say(alice, conversation, 'hello')
    expect(numbers(message)).toEqual({ state: 'sent', delivered: 0, read: 0, audience: 1 })
    await live(bob)
    await reaches(alice, message, 'delivered')
    await shown(bob, conversation, 'hello')
    bob.markRead(conversation)
    expect(numbers(await reaches(alice, message, 'read'))).toEqual({
      state: 'read',
      delivered: 1,
      read: 1,
      audience: 1,
    })
    expect(states.map(({ state }) => state)).toEqual(['sending', 'sent', 'delivered', 'read'])
    await alice.close()
    const again = device(relay, { storage: files.sqlite('states.db') })
    expect(stored(again, conversation, 'hello').state).toBe('read')
    await Promise.all([again.close(), bob.close()])
  })

  it('a group’s message is delivered and read when it is by everybody, and numbers tell how far it is', async () => {
    const [alice, bob, carol] = [await joined(relay), await joined(relay), await joined(relay)]
    const group = await alice.conversations.group([bob.userId, carol.userId])
    await shown(carol, group, (await say(alice, group, 'first')).body.text!)
    carol.disconnect()
    const message = await say(alice, group, 'second')
    await shown(bob, group, 'second')
    const one = await comes(alice, message, ({ delivered }) => delivered === 1)
    expect(numbers(one)).toEqual({ state: 'sent', delivered: 1, read: 0, audience: 2 })
    bob.markRead(group)
    expect(numbers(await comes(alice, message, ({ read }) => read === 1))).toEqual({
      state: 'sent',
      delivered: 1,
      read: 1,
      audience: 2,
    })
    await live(carol)
    await reaches(alice, message, 'delivered')
    carol.markRead(group)
    expect(numbers(await reaches(alice, message, 'read'))).toMatchObject({ delivered: 2, read: 2 })
    await Promise.all([alice, bob, carol].map((each) => each.close()))
  })

  it('what happened while this device was away is asked for on its next connection', async () => {
    const [alice, bob] = [await joined(relay), await joined(relay)]
    const conversation = await alice.conversations.direct(bob.userId)
    bob.disconnect()
    const messages = [await say(alice, conversation, 'one'), await say(alice, conversation, 'two')]
    alice.disconnect()
    await live(bob)
    await shown(bob, conversation, 'two')
    bob.markRead(conversation)
    await quiet(bob)
    await live(alice)
    for (const each of messages) await reaches(alice, each, 'read')
    await Promise.all([alice.close(), bob.close()])
  })

  it('an own message is as far on one’s other devices as on the one that sent it', async () => {
    const [alice, bob] = [await joined(relay), await joined(relay)]
    const laptop = await linked(alice, relay)
    const conversation = await alice.conversations.direct(bob.userId)
    await say(alice, conversation, 'hello')
    const copy = await shown(laptop, conversation, 'hello')
    expect(copy).toMatchObject({ senderDeviceId: 1, audience: 1 })
    await shown(bob, conversation, 'hello')
    await reaches(laptop, copy, 'delivered')
    bob.markRead(conversation)
    await reaches(laptop, copy, 'read')
    await Promise.all([alice, bob, laptop].map((each) => each.close()))
  })

  it('who switches read receipts off is not seen to read, and sees nobody read', async () => {
    const [alice, bob] = [await joined(relay), await joined(relay)]
    const conversation = await alice.conversations.direct(bob.userId)
    await bob.changeSettings({ readReceipts: false })
    const message = await say(alice, conversation, 'read this')
    await shown(bob, conversation, 'read this')
    bob.markRead(conversation)
    await quiet(bob)
    await reaches(alice, message, 'delivered')
    alice.disconnect()
    await live(alice)
    await quiet(alice)
    expect(numbers(stored(alice, conversation, 'read this'))).toMatchObject({ state: 'delivered', read: 0 })
    const answer = await say(bob, conversation, 'and this')
    await shown(alice, conversation, 'and this')
    alice.markRead(conversation)
    await quiet(alice)
    await reaches(bob, answer, 'delivered')
    bob.disconnect()
    await live(bob)
    await quiet(bob)
    expect(numbers(stored(bob, conversation, 'and this'))).toMatchObject({ state: 'delivered', read: 0 })
    await Promise.all([alice.close(), bob.close()])
  })
})

describe('whatever the relay says', () => {
  type Update = { delivered?: number; read?: number }

  /** A device that hears of how far messages came from the test alone. */
  async function scripted() {
    const [time, wire, storage] = [new FakeTime(), new Tamper(), new MemoryStorage()]
    const [alice, bob] = [await joined(relay, { time, transport: wire, storage }), await joined(relay)]
    const conversation = await alice.conversations.direct(bob.userId)
    await quiet(alice)
    const asked: string[][] = []
    /** null = left out of the answer. */
    let answer: (id: string) => Update | null = () => ({})
    wire.frames = (frame) => (frame.statusUpdate ? [] : [frame])
    wire.passes = ({ statusRequest, requestId }) => {
      if (!statusRequest) return true
      const ids = (statusRequest.messageIds ?? []).map((id) => uuidFromBytes(id))
      asked.push(ids)
      const messages = ids.flatMap((id) => {
        const update = answer(id)
        return update ? [{ messageId: uuidToBytes(id), ...update }] : []
      })
      queueMicrotask(() => wire.say({ requestId, statusUpdate: { messages } }))
      return false
    }
    const update = (...all: ({ id: string } & Update)[]) =>
      wire.say({ statusUpdate: { messages: all.map(({ id, ...rest }) => ({ messageId: uuidToBytes(id), ...rest })) } })
    const reconnect = async () => {
      alice.disconnect()
      asked.length = 0
      await live(alice)
      await quiet(alice)
    }
    const answers = (how: typeof answer) => {
      answer = how
    }
    const end = () => Promise.all([alice.close(), bob.close()])
    return { alice, bob, conversation, time, wire, storage, asked, update, reconnect, answers, end }
  }

  it('numbers and states never fall: old, doubled and reordered updates change nothing', async () => {
    const { alice, conversation, update, end } = await scripted()
    const { messageId: id } = await say(alice, conversation, 'hello')
    const states = told(alice, 'hello')
    update({ id, delivered: 1 })
    update({ id, delivered: 1 })
    update({ id })
    update({ id, read: 1 })
    update({ id, delivered: 1 }, { id })
    expect(states).toEqual([
      { state: 'delivered', delivered: 1, read: 0, audience: 1 },
      { state: 'read', delivered: 1, read: 1, audience: 1 },
    ])
    expect(stored(alice, conversation, 'hello').state).toBe('read')
    await end()
  })

  it('an update that comes before MessageAccepted is not lost, and states are told in their order', async () => {
    const { alice, conversation, wire, end } = await scripted()
    const states = told(alice, 'quick')
    wire.frames = (frame) => {
      if (frame.statusUpdate) return []
      const messageId = frame.messageAccepted?.messageId
      if (!messageId) return [frame]
      wire.say({ statusUpdate: { messages: [{ messageId, delivered: 1, read: 0 }] } })
      return [frame]
    }
    await say(alice, conversation, 'quick', 'delivered')
    expect(states.map(({ state }) => state)).toEqual(['sending', 'sent', 'delivered'])
    await end()
  })

  it('a message whose acceptance was lost is asked about when it is accepted again', async () => {
    const { alice, conversation, time, wire, asked, answers, end } = await scripted()
    const dropped = new Promise<void>((resolve) => {
      wire.frames = (frame) => {
        if (frame.statusUpdate) return []
        if (!frame.messageAccepted) return [frame]
        resolve()
        return []
      }
    })
    const { id } = alice.send(conversation, { text: 'twice' })
    await dropped
    wire.frames = (frame) => (frame.statusUpdate ? [] : [frame])
    answers(() => ({ delivered: 1 }))
    const delivered = until(alice, 'message_changed', (each) => each.id === id && each.state === 'delivered')
    wire.cut(1006)
    const back = until(alice, 'state', ({ name }) => name === 'live')
    time.advance(1000)
    await back
    await delivered
    expect(asked.flat()).toEqual([stored(alice, conversation, 'twice').messageId])
    await end()
  })

  it('only what is not read by everybody is asked about, and what the relay forgot is not asked about again', async () => {
    const { alice, conversation, update, asked, answers, reconnect, end } = await scripted()
    const ids = [] as string[]
    for (const text of ['a', 'b', 'c']) ids.push((await say(alice, conversation, text)).messageId)
    const [a, b, c] = ids as [string, string, string]
    update({ id: a, read: 1 }, { id: b, delivered: 1 })
    await reconnect()
    expect(asked).toEqual([[c, b]])
    answers((id) => (id === b ? null : { delivered: 1 }))
    await reconnect()
    expect(asked).toEqual([[c, b]])
    await reconnect()
    expect(asked).toEqual([[c]])
    expect(stored(alice, conversation, 'b').state).toBe('delivered')
    // Not asked about is not deaf.
    update({ id: b, read: 1 })
    expect(stored(alice, conversation, 'b').state).toBe('read')
    await end()
  })

  it('more than the relay’s page goes in pages, newest first, 1,000 of 30 days at most', async () => {
    const { alice, conversation, time, storage, asked, reconnect, end } = await scripted()
    const own = await say(alice, conversation, 'own')
    const nowMs = time.now()
    const message = (atMs: number): Message => ({ ...own, messageId: uuidV7(atMs), sentAtMs: atMs })
    const recent = Array.from({ length: 1100 }, (_, i) => message(nowMs - 60_000 - i * 1000))
    storage.transaction((tx) => {
      for (const each of recent) follow(tx, null, each)
    })
    await reconnect()
    expect(asked.map((page) => page.length)).toEqual(Array(10).fill(100))
    expect(asked.flat()).toEqual([own, ...recent].slice(0, 1000).map(({ messageId }) => messageId))
    const dayMs = 24 * 3_600_000
    expect(storage.transaction((tx) => openQuestions(tx, nowMs + 29 * dayMs))).toHaveLength(1000)
    expect(storage.transaction((tx) => openQuestions(tx, nowMs + 31 * dayMs))).toEqual([])
    expect(storage.transaction((tx) => openQuestions(tx, nowMs))).toEqual([])
    await end()
  })

  it('a relay that is busy is asked again for the page it refused', async () => {
    const { alice, conversation, time, wire, update, end } = await scripted()
    const { messageId: id } = await say(alice, conversation, 'hello')
    const requests: number[] = []
    const reply = (frame: sealpost.v1.ServerFrame.$Properties) => queueMicrotask(() => wire.say(frame))
    wire.passes = ({ statusRequest, requestId }) => {
      if (!statusRequest) return true
      requests.push(requestId)
      if (requests.length === 1) reply({ requestId, error: { code: 7, retryAfterMs: 2000 } })
      else reply({ requestId, statusUpdate: { messages: [{ messageId: uuidToBytes(id), delivered: 1 }] } })
      return false
    }
    alice.disconnect()
    await live(alice)
    await new Promise(setImmediate)
    expect(requests).toHaveLength(1)
    time.advance(2000)
    await quiet(alice)
    expect(stored(alice, conversation, 'hello').state).toBe('delivered')
    update({ id, delivered: 0 })
    await end()
  })

  it('made-up numbers and ids do no more harm than receipts can', async () => {
    const { alice, bob, conversation, update, end } = await scripted()
    const { messageId: id } = await say(alice, conversation, 'hello')
    const theirs = await say(bob, conversation, 'from bob')
    await shown(alice, conversation, 'from bob')
    const unknown = Array.from({ length: 2000 }, () => ({ id: uuidV7(Date.now()), delivered: 1, read: 1 }))
    update(...unknown, { id: theirs.messageId, delivered: 1, read: 1 }, { id, delivered: 4_000_000, read: 0 })
    expect(numbers(stored(alice, conversation, 'hello'))).toEqual({
      ...{ state: 'delivered', delivered: 1, read: 0, audience: 1 },
    })
    expect(stored(alice, conversation, 'from bob').state).toBe('received')
    await end()
  })
})
