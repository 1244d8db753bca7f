// When what nothing else will ever tell is said again: by what was lost, at a Redis that takes or refuses what it is given. I11 I12
import { EventEmitter } from 'node:events'
import { afterEach, expect, it } from 'vitest'
import type { Bus, Hint } from '../../server/bus/bus.ts'
import { openRedisHints, type Publisher, type Subscriber } from '../../server/bus/redis-hints.ts'

const [USER, CONVERSATION, MESSAGE] = ['user', 'conversation', 'message']
const ownRead: Hint = { kind: 'ownRead', userId: USER, deviceKey: 1, conversationId: CONVERSATION, messageId: MESSAGE }
const presence: Hint = { kind: 'presence', userId: USER }

/** A connection that is there, and refuses while it is told to. */
class Connection extends EventEmitter {
  status = 'ready'
  refuses = false
  published: string[] = []
  async spublish(channel: string): Promise<void> {
    if (this.refuses) throw new Error('CLUSTERDOWN')
    this.published.push(channel)
  }
  async ssubscribe(): Promise<void> {}
  async sunsubscribe(): Promise<void> {}
}

let bus: Bus | null = null
afterEach(() => bus?.close())
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** A node's end; `asked` are the times it was to say things again. */
async function open(status = 'ready') {
  const connection = Object.assign(new Connection(), { status })
  const own = { asked: 0, connection }
  const report = (error: unknown): void => {
    throw error
  }
  const ends = { publisher: connection as Publisher, subscriber: connection as unknown as Subscriber }
  bus = openRedisHints({ ...ends, report, onLost: () => {} })((hint) => {
    if (hint.kind === 'again') own.asked++
  })
  await turn()
  return own
}

it('a mark that did not get out is a reason, as soon as something does; another hint is none', async () => {
  const own = await open()
  for (const [lost, asked] of [
    [presence, 0],
    [ownRead, 1],
  ] as const) {
    own.connection.refuses = true
    bus!.publish(lost)
    await turn()
    own.connection.refuses = false
    bus!.publish(presence)
    await turn()
    expect(own.asked).toBe(asked)
  }
  // Of this node alone: the others were not asked.
  expect(own.connection.published).not.toContain('sealpost:nodes')
})

it('masters of a cluster that are others now are a reason for every node, once it has heard them', async () => {
  const own = await open()
  own.connection.emit('subscribersReady')
  await turn()
  expect([own.asked, own.connection.published]).toEqual([1, ['sealpost:nodes']])
})

it('a cluster that comes to know its masters for the first time is none', async () => {
  const own = await open('connecting')
  own.connection.emit('subscribersReady')
  own.connection.status = 'ready'
  own.connection.emit('ready')
  await turn()
  expect([own.asked, own.connection.published]).toEqual([0, []])
})
