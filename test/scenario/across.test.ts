// Sender and recipient on different nodes: stories told elsewhere of one relay, told again of two, and what only two can do. All of
// them are `npm run test:nodes`.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { holdLocks } from '../server/barrier.ts'
import { deviceKeyOf, waitingFor } from '../support/backlog.ts'
import { Client, idOf } from '../support/client.ts'
import { type TestCluster, testCluster } from '../support/cluster.ts'
import { FakeTime } from '../support/faketime.ts'
import { messageTo, post } from '../support/http-frames.ts'

const before = process.env.SEALPOST_TEST_NODES
process.env.SEALPOST_TEST_NODES = '2'
afterAll(() => {
  if (before === undefined) delete process.env.SEALPOST_TEST_NODES
  else process.env.SEALPOST_TEST_NODES = before
})

describe('what is sent, in order, synced and acked', () => import('./chat.test.ts').then(() => {}))
describe('which devices a send is for, I8', () => import('./mismatch.test.ts').then(() => {}))
describe('a send and a change of its devices at once, I8', () => import('./races.test.ts').then(() => {}))
describe('one consumer per device, I6', () => import('./displacement.test.ts').then(() => {}))

describe('two nodes named', () => {
  let cluster: TestCluster
  beforeAll(async () => {
    cluster = await testCluster({ nodes: 2, proxied: false, lockMs: 60_000 })
  })
  afterAll(() => cluster?.close())

  it('two copies of a message in flight at different nodes are one message, whichever gets its locks first, I2', async () => {
    const [one, two] = [cluster.nodes[0]!, cluster.nodes[1]!]
    const { sql } = cluster.db.database
    const [ann, bob] = [await Client.register(one), await Client.register(two)]
    const conversation = await ann.direct(bob)
    const [from, to] = [await ann.live(), await two.from(bob).live()]
    const key = await deviceKeyOf(sql, bob)
    for (const bySocketFirst of [true, false]) {
      const clientMessageId = uuidToBytes(uuidV7(Date.now()))
      const bySocket = () => from.send(conversation, [bob.to()], { clientMessageId })
      const byHttp = () => post(two.from(ann), messageTo(conversation, [bob.to()], { clientMessageId }))
      const held = await holdLocks(
        sql,
        (tx) => tx`select 1 from device_locks where device_key = ${key} for no key update`,
      )
      const first = (bySocketFirst ? bySocket : byHttp)()
      await held.waiting(1)
      const second = (bySocketFirst ? byHttp : bySocket)()
      await held.waiting(2)
      await held.release()
      const answers = (await Promise.all([first, second])).map((each) =>
        'frame' in each ? each.frame!.messageAccepted! : each.messageAccepted!,
      )
      expect(answers.map((each) => each.duplicate)).toEqual([false, true])
      expect(new Set(answers.map((each) => idOf(each.messageId))).size).toBe(1)
      const { messageId } = await to.next('envelope')
      expect(idOf(messageId)).toBe(idOf(answers[0]!.messageId))
      await to.fence()
      expect(to.envelopes()).toEqual([])
      await to.ack(messageId)
      expect(await waitingFor(sql, bob)).toEqual([])
    }
    await Promise.all([from.close(), to.close()])
  })

  it.each([false, true])(
    'unlinked at one node, connected at another: closed with 4401, the hint lost: %s',
    async (isLost) => {
      const [one, two] = [cluster.nodes[0]!, cluster.nodes[1]!]
      const bob = await Client.register(one)
      const phone = await bob.link()
      const socket = await two.from(phone).live()
      const heard = two.hints.get('unlinked') ?? 0
      two.loses = (hint) => isLost && hint.kind === 'unlinked'
      expect((await bob.delete(`/v1/devices/${phone.deviceId}`)).status).toBeLessThan(300)
      expect(await socket.end()).toBe(4401)
      // Now and then the node's own look is faster than the hint.
      const told = (): number => (two.hints.get('unlinked') ?? 0) - heard
      while (!isLost && told() === 0) await new Promise((resolve) => setImmediate(resolve))
      expect(told()).toBe(isLost ? 0 : 1)
      two.loses = () => false
    },
  )

  it('unlinked at one node, a token that another remembers opens nothing there any more [T-2]', async () => {
    // What a node remembers lasts 5 s of its time, which stands still here: only being told ends it.
    const own = await testCluster({ nodes: 2, proxied: false, db: cluster.db, time: new FakeTime() })
    try {
      const [one, two] = [own.nodes[0]!, own.nodes[1]!]
      const bob = await Client.register(one)
      const phone = await bob.link()
      const knock = async (): Promise<number> => (await two.from(phone).get('/v1/devices')).status
      expect(await knock()).toBe(200)
      expect((await bob.delete(`/v1/devices/${phone.deviceId}`)).status).toBeLessThan(300)
      while ((await knock()) !== 401);
    } finally {
      await own.close()
    }
  })
})
