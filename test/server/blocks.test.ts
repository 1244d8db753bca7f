// Blocks: who is blocked is answered like anybody else, and nothing of what he sends is anywhere. [V-7] [H-13] I13
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { BLOCKS_MAX } from '../../proto/limits.ts'
import { openLocalHub } from '../../server/bus/local.ts'
import { openLocalPresence } from '../../server/bus/presence.ts'
import { Client, idOf, type Socket } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { must } from '../support/request.ts'
import { pass, progress, progressOf, read, send, take, told, typing, unasked, watch } from '../support/signals.ts'

const { ErrorCode } = sealpost.v1
const time = new FakeTime()
const shared = openLocalPresence()
/** Asks the store as a third node would. */
const outside = shared()
const nodes = {
  bus: openLocalHub((error) => {
    throw error
  }),
  presence: shared,
}
let relay: TestRelay
let far: TestRelay
beforeAll(async () => {
  relay = await testRelay({ time, nodes })
  far = await testRelay({ time, nodes, db: relay.db })
})
afterAll(async () => {
  await far.close()
  await relay.close()
})

/** Ann blocks; Bob is blocked, and on the other node. */
let ann: Client
let bob: Client
let direct = ''
let a: Socket
let b: Socket
let open: Socket[] = []
const elsewhere = (client: Client): Client => Object.assign(Object.create(client), { url: far.url })
const live = async (client: Client): Promise<Socket> => {
  const socket = await client.live()
  open.push(socket)
  return socket
}
beforeEach(async () => {
  time.nowMs = Date.now()
  ;[ann, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
  bob = elsewhere(bob)
  direct = await ann.direct(bob)
  ;[a, b] = [await live(ann), await live(bob)]
  return async () => {
    await Promise.all(open.map((each) => each.close()))
    open = []
    await pass(time, 4_000)
  }
})
/** What came so far is acked and gone. */
async function clear(...sockets: Socket[]): Promise<void> {
  for (const socket of sockets) {
    await socket.fence()
    await socket.ack(...socket.envelopes().map((each) => each.messageId))
    socket.frames.length = 0
  }
}
const block = async () => must(await ann.put(`/v1/blocks/${bob.userId}`, {}))
const unblock = async () => must(await ann.delete(`/v1/blocks/${bob.userId}`))

describe('the list [H-13]', () => {
  it('holds whom the user blocks, and nobody else sees it', async () => {
    expect(await ann.get('/v1/blocks')).toMatchObject({ status: 200, body: { blocks: [] } })
    expect(await block()).toMatchObject({ status: 204 })
    await block()
    const { body } = await ann.get('/v1/blocks')
    expect(body).toEqual({ blocks: [{ user_id: bob.userId, blocked_at_ms: expect.any(Number) }] })
    expect((await ann.get(`/v1/blocks/${bob.userId}`)).body).toEqual({ blocked: true })
    expect((await bob.get('/v1/blocks')).body).toEqual({ blocks: [] })
    expect((await bob.get(`/v1/blocks/${ann.userId}`)).body).toEqual({ blocked: false })
    const states = await Promise.all([ann, bob].map((each) => each.get(`/v1/conversations/${direct}`)))
    expect(states.map(({ body }) => body.state)).toEqual(['blocked', 'active'])
    expect(await unblock()).toMatchObject({ status: 204 })
    await unblock()
    expect((await ann.get('/v1/blocks')).body).toEqual({ blocks: [] })
  })

  it('takes whoever may not exist, not oneself, no more than there may be', async () => {
    expect((await ann.put(`/v1/blocks/${randomUUID()}`, {})).status).toBe(204)
    expect((await ann.put(`/v1/blocks/${ann.userId}`, {})).status).toBe(400)
    expect((await ann.put('/v1/blocks/me', {})).status).toBe(400)
    await relay.db.database.sql`insert into blocks (blocker, blocked)
      select ${ann.userId}, gen_random_uuid() from generate_series(2, ${BLOCKS_MAX})`
    expect((await ann.put(`/v1/blocks/${bob.userId}`, {})).status).toBe(409)
    expect((await ann.get(`/v1/blocks/${bob.userId}`)).body).toEqual({ blocked: false })
  })
})

describe('in a direct conversation [V-7.1]', () => {
  it('the blocked one is answered as ever, and nothing of it is stored for any device of the blocker', async () => {
    const ann2 = await ann.link()
    const [bob2, before] = [elsewhere(await bob.link()), await b.send(direct, [ann.to(), ann2.to()])]
    expect(before.error?.code).toBe(ErrorCode.ERROR_CODE_DEVICE_MISMATCH)
    const [a2, b2] = [await live(ann2), await live(bob2)]
    await clear(a, b, a2, b2)
    await block()
    const { messageAccepted } = await b.send(direct, [ann.to(), ann2.to(), bob2.to()])
    expect(messageAccepted).toMatchObject({ duplicate: false, skipped: [] })
    // His own devices have it.
    expect((await b2.next('envelope')).messageId).toEqual(messageAccepted!.messageId)
    for (const socket of [a, a2]) {
      await socket.fence()
      expect(socket.envelopes()).toEqual([])
    }
    const rows = await relay.db.database.sql`
      select 1 from message_deliveries where message_id = ${idOf(messageAccepted!.messageId)} union all
      select 1 from dead_letters where message_id = ${idOf(messageAccepted!.messageId)}`
    expect(rows).toHaveLength(1)
    expect(await progress(b, messageAccepted!.messageId!)).toEqual({ [idOf(messageAccepted!.messageId)]: '0/0' })
    await unblock()
    expect((await b.send(direct, [ann.to(), ann2.to(), bob2.to()])).messageAccepted).toBeTruthy()
    expect((await a.next('envelope')).ciphertext).toBeTruthy()
  })

  it('what does not fit is told as without it: missing, extra, stale, repeats, an archived conversation', async () => {
    const other = await Client.register(relay)
    const asked = async () => {
      const wrong = [[], [ann.to(), other.to()], [{ ...ann.to(), registrationId: 1 }]]
      const answers = []
      for (const each of wrong) answers.push((await b.send(direct, each)).error)
      return answers
    }
    const before = await asked()
    await block()
    expect(await asked()).toEqual(before)
    const clientMessageId = Buffer.from(randomUUID().replaceAll('-', ''), 'hex')
    const first = (await b.send(direct, [ann.to()], { clientMessageId })).messageAccepted!
    const again = (await b.send(direct, [ann.to()], { clientMessageId })).messageAccepted
    expect(again).toEqual({ ...first, duplicate: true })
    must(await ann.post(`/v1/conversations/${direct}/archive`))
    expect((await b.send(direct, [ann.to()])).error?.code).toBe(ErrorCode.ERROR_CODE_FORBIDDEN)
  })

  it('the blocker still reaches him, and gets her own answers', async () => {
    await block()
    const message = await send(a, direct, bob)
    expect(await take(b)).toEqual(message)
  })

  it('of what he ends or begins the blocker hears nothing', async () => {
    await block()
    must(await bob.post(`/v1/conversations/${direct}/archive`))
    await bob.direct(ann)
    await a.fence()
    expect(a.envelopes()).toEqual([])
  })
})

describe('signals [V-7.3]', () => {
  it('neither sees the other write, in groups neither, or is told who is there', async () => {
    const cy = await Client.register(relay)
    const group = await ann.group([bob, cy])
    const c = await live(cy)
    await clear(a, b)
    // What they show of themselves is read after Hello.
    while ((await outside.online([ann.userId, bob.userId])).size < 2) await a.fence()
    expect(await watch(b, ann)).toEqual({ [ann.userId]: true })
    expect(await watch(a, bob)).toEqual({ [bob.userId]: true })
    await block()
    for (const [socket, other] of [
      [a, bob],
      [b, ann],
    ] as const) {
      while ((await unasked(socket, 'presence')).length === 0) await pass(time, 500)
      expect(await told(socket)).toEqual({ [other.userId]: false })
    }
    expect([await watch(a, bob), await watch(b, ann)]).toEqual([{ [bob.userId]: false }, { [ann.userId]: false }])
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      from.write(typing(direct))
      from.write(typing(group))
      await from.fence()
      expect((await c.next('typing')).isTyping).toBe(true)
      expect(await unasked(to, 'typing')).toEqual([])
    }
    await unblock()
    expect(await watch(b, ann)).toEqual({ [ann.userId]: true })
  })

  it('numbers stay where they were: neither delivered nor read moves for what came before', async () => {
    await clear(a, b)
    const sent: Uint8Array[] = []
    for (let i = 0; i < 3; i++) {
      // Ids are in the order of the milliseconds.
      time.advance(1)
      sent.push(await send(b, direct, ann))
    }
    const [one, two, three] = sent as [Uint8Array, Uint8Array, Uint8Array]
    await take(a)
    await read(a, direct, one)
    await take(a)
    expect(await progress(b, one, two, three)).toEqual({ [idOf(one)]: '1/1', [idOf(two)]: '1/0', [idOf(three)]: '0/0' })
    await block()
    await take(a)
    await read(a, direct, three)
    await pass(time, 2_000)
    expect(await progress(b, one, two, three)).toEqual({ [idOf(one)]: '1/1', [idOf(two)]: '1/0', [idOf(three)]: '0/0' })
    const updates = (await unasked(b, 'statusUpdate')).map((each) => progressOf(each.statusUpdate!))
    expect(updates.flatMap((each) => Object.entries(each)).filter(([id]) => id === idOf(three))).toEqual([])
    for (const each of updates) expect([undefined, '0/0', '1/0']).toContain(each[idOf(two)])
    // What she reads is hers to know on her devices.
    expect((await ann.get(`/v1/conversations/${direct}`)).body.read_up_to).toBe(idOf(three))
    await unblock()
    expect(await progress(b, one, two, three)).toEqual({ [idOf(one)]: '1/1', [idOf(two)]: '1/1', [idOf(three)]: '1/1' })
  })
})

describe('in a group [V-7.2]', () => {
  it('messages of either arrive as ever: a group is a room of all its members', async () => {
    const group = await ann.group([bob, await Client.register(relay)])
    await clear(a, b)
    await block()
    const answer = await b.send(group, [ann.to()])
    const missing = answer.error!.deviceMismatch!.missing!
    const all = [ann.to(), { ...missing[0]!, ciphertextType: 3, content: Buffer.of(1) }]
    expect((await b.send(group, all)).messageAccepted).toBeTruthy()
    const { messageId, ciphertext } = await a.next('envelope')
    expect(idOf(ciphertext!.senderUserId)).toBe(bob.userId)
    await a.ack(messageId)
    expect(await progress(b, messageId!)).toEqual({ [idOf(messageId)]: '0/0' })
  })

  it('whoever he removes is told so: it is no invitation', async () => {
    const group = await bob.group([ann, await Client.register(relay)])
    await clear(a, b)
    await block()
    must(await bob.delete(`/v1/conversations/${group}/members/${ann.userId}`))
    const { systemEvent } = await a.next('envelope')
    expect(systemEvent?.conversationChanged?.subjectUserIds?.map((each) => idOf(each))).toEqual([ann.userId])
  })
})
