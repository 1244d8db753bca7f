// Full queues: QUEUE_FULL in a direct conversation, skipped in a group, a gap for the device. D7
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import type { RosterDevice } from '../../server/rosters.ts'
import { commitUnannounced, deviceKeyOf, waitingFor } from '../support/backlog.ts'
import { Client, idOf, type ServerFrame } from '../support/client.ts'
import { type Node, openNode, queueFaults, refused, sendTo, waitingRows } from '../support/node.ts'
import { pair } from '../support/pair.ts'
import { converse, type Person, populate } from '../support/population.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ErrorCode } = sealpost.v1
const QUOTA = 1000

let relay: TestRelay
let node: Node
beforeAll(async () => {
  relay = await testRelay({ config: { queue: { maxMessages: QUOTA, ttlMs: 30 * 24 * 3600 * 1000 } } })
  node = openNode(relay.db.url, { quota: 10 })
})
afterAll(async () => {
  await node?.close()
  await relay?.close()
})
afterEach(async () => {
  expect(await queueFaults(relay.db.database.sql)).toEqual([])
  expect(node.reported).toEqual([])
})
const sql = () => relay.db.database.sql

describe('on the socket, quota 1,000', () => {
  const fill = (from: Client, to: Client, conversation: string, count = QUOTA) =>
    commitUnannounced(sql(), { from, to, conversation, count })
  /** Acks in the device's name, from wherever. */
  const ack = async (client: Client, ids: string[]) => node.acks.endByIds(await deviceKeyOf(sql(), client), ids)
  const skippedOf = (answer: ServerFrame) =>
    (answer.messageAccepted!.skipped ?? []).map((each) => `${idOf(each.userId)}.${each.deviceId}`)
  const nameOf = (client: Client) => `${client.userId}.${client.deviceId}`

  it('a direct conversation is refused with QUEUE_FULL and a time to wait, stores nothing, burns no id', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const from = await alice.live()
    const waiting = await fill(alice, bob, conversation)
    const clientMessageId = uuidToBytes(uuidV7(Date.now()))
    for (let i = 0; i < 2; i++) {
      const answer = await from.send(conversation, [bob.to()], { clientMessageId })
      expect(answer.error?.code).toBe(ErrorCode.ERROR_CODE_QUEUE_FULL)
      expect(answer.error?.retryAfterMs).toBeGreaterThanOrEqual(10_000)
    }
    expect(await waitingFor(sql(), bob)).toEqual(waiting)
    // Nothing was lost, so there is no gap.
    expect(await sql()`select 1 from gaps where device_key = ${await deviceKeyOf(sql(), bob)}`).toHaveLength(0)
    await ack(bob, waiting.slice(0, QUOTA / 2))
    const later = await from.send(conversation, [bob.to()], { clientMessageId })
    expect(later.messageAccepted).toMatchObject({ duplicate: false, skipped: [] })
    await from.close()
  })

  it('a group is delivered to all others; the full device is skipped, and told at its next sync until it acks the gap', async () => {
    const [alice, bob, carol] = [
      await Client.register(relay),
      await Client.register(relay),
      await Client.register(relay),
    ]
    const group = await alice.group([bob, carol])
    const [from, toCarol] = [await alice.live(), await carol.live()]
    await (await bob.live()).close()
    const waiting = await fill(alice, bob, group)
    const clientMessageId = uuidToBytes(uuidV7(Date.now()))
    const answer = await from.send(group, [bob.to(), carol.to()], { clientMessageId })
    expect(skippedOf(answer)).toEqual([nameOf(bob)])
    const { messageId } = answer.messageAccepted!
    expect((await toCarol.next('envelope')).messageId).toEqual(messageId)
    const letters =
      await sql()`select message_id, reason from dead_letters where device_key = ${await deviceKeyOf(sql(), bob)}`
    expect(letters).toEqual([{ message_id: idOf(messageId), reason: 'overflow' }])

    // The same answer again [S-2.1], also from a node that has never seen it.
    const again = await from.send(group, [bob.to(), carol.to()], { clientMessageId })
    expect(again.messageAccepted).toMatchObject({ messageId, duplicate: true })
    expect(skippedOf(again)).toEqual([nameOf(bob)])

    const reader = await bob.connect()
    const first = (await reader.sync(null, 1)).gap!
    expect(first).toMatchObject({ overflowed: 1, expired: 0 })
    expect(first.sinceMs).toBeGreaterThan(0)
    // On every page until it is acked; another id when it has grown.
    expect((await reader.sync(null, 1)).gap?.gapId).toEqual(first.gapId)
    await from.send(group, [bob.to(), carol.to()])
    const grown = (await reader.sync(null, 1)).gap!
    expect(grown.overflowed).toBe(2)
    expect(grown.gapId).not.toEqual(first.gapId)
    // The ack of what was read earlier does not hide what came since.
    await reader.ack(first.gapId)
    expect((await reader.sync(null, 1)).gap?.gapId).toEqual(grown.gapId)
    await reader.ack(grown.gapId)
    expect((await reader.sync(null, 1)).gap).toBeFalsy()
    await ack(bob, waiting)
    await Promise.all([from.close(), toCarol.close(), reader.close()])
  })

  it('a gap alone makes a device wait for its sync [Q-1.1]', async () => {
    const [alice, bob, carol] = [
      await Client.register(relay),
      await Client.register(relay),
      await Client.register(relay),
    ]
    const group = await alice.group([bob, carol])
    const from = await alice.live()
    await (await bob.live()).close()
    const waiting = await fill(alice, bob, group)
    await from.send(group, [bob.to(), carol.to()])
    await ack(bob, waiting)
    const reader = await bob.connect()
    expect(reader.hello.queueWaiting).toBe(true)
    const page = await reader.sync()
    expect(page).toMatchObject({ messages: [], hasMore: false, gap: { overflowed: 1 } })
    await reader.next('queueEmpty')
    await reader.ack(page.gap!.gapId)
    await reader.close()
    const after = await bob.connect()
    expect(after.hello.queueWaiting).toBe(false)
    await Promise.all([from.close(), after.close()])
  })

  it('system events are always taken', async () => {
    const [alice, bob, carol, dave] = await Promise.all([1, 2, 3, 4].map(() => Client.register(relay)))
    const group = await alice!.group([bob!, carol!])
    await (await bob!.live()).close()
    await fill(alice!, bob!, group)
    await alice!.post(`/v1/conversations/${group}/members`, { user_ids: [dave!.userId] })
    expect(await waitingFor(sql(), bob!)).toHaveLength(QUOTA + 1)
  })
})

describe('the count, quota 10', () => {
  async function world(users = 2, devicesEach = 1) {
    const people = await populate(sql(), users, devicesEach)
    const conversation = await converse(sql(), people)
    const [from, ...others] = people.flatMap((each) => each.devices)
    const send = (to = others, more: Parameters<typeof sendTo>[2] = {}) =>
      node.send(from!, sendTo(conversation, to, more))
    return { people, conversation, from: from!, others, to: others[0]!, send }
  }
  const fill = async (send: () => Promise<unknown>, count: number) => {
    for (let i = 0; i < count; i++) await send()
  }
  const ackSome = (to: RosterDevice, ...sequences: number[]) =>
    node.acks.end(sequences.map((sequence) => ({ deviceKey: to.deviceKey, sequence })))
  const lengthOf = async (to: RosterDevice) => (await waitingRows(sql(), to.deviceKey)).length
  const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i)

  it('is exact: the tenth is taken, the eleventh is not', async () => {
    const { send, to } = await world()
    await fill(send, 10)
    expect((await refused(send())).code).toBe('QUEUE_FULL')
    expect(await lengthOf(to)).toBe(10)
  })

  it('is exact within one batch too: what fits is taken, in order', async () => {
    const { send, to } = await world()
    await fill(send, 7)
    const settled = await Promise.allSettled(range(1, 6).map(() => send()))
    expect(settled.map((each) => each.status)).toEqual([...Array(3).fill('fulfilled'), ...Array(3).fill('rejected')])
    expect(await lengthOf(to)).toBe(10)
  })

  it('follows acks in the middle of the queue, however often it went round', async () => {
    const { send, to } = await world()
    await fill(send, 9)
    await ackSome(to, ...range(3, 7))
    await fill(send, 6)
    expect((await refused(send())).code).toBe('QUEUE_FULL')
    expect(await lengthOf(to)).toBe(10)
    await ackSome(to, 1, 2, 8, 9)
    // Six wait: 10 to 15.
    await fill(send, 4)
    expect((await refused(send())).code).toBe('QUEUE_FULL')
    // A hundred more, acked as they come.
    await ackSome(to, ...range(10, 19))
    for (let i = 0; i < 100; i++) {
      const { committed } = await send()
      await ackSome(to, committed[0]!.delivery.sequence)
    }
    await fill(send, 10)
    expect((await refused(send())).code).toBe('QUEUE_FULL')
  })

  it('answers whom its user blocks like anybody else: refused, skipped, again; of him it stores no row and tells no gap [V-7.1]', async () => {
    /** Bob, blocked or not, writes to Ann's two devices, of which Cy filled the first, and later the second. */
    const answers = async (isBlocked: boolean) => {
      const [bob, ann, cy] = (await populate(sql(), 3, 2)) as [Person, Person, Person]
      const [theirs, other] = [await converse(sql(), [bob, ann]), await converse(sql(), [cy, ann])]
      const subset = { scope: 'SUBSET' as const }
      const fillOne = async (to: RosterDevice) =>
        fill(() => node.send(cy.devices[0]!, sendTo(other, [to], subset)), 10 - (await lengthOf(to)))
      if (isBlocked) await sql()`insert into blocks (blocker, blocked) values (${ann.userId}, ${bob.userId})`
      const [first, second] = ann.devices as [RosterDevice, RosterDevice]
      const said = async (work: Promise<{ skipped: { userId: string; deviceId: number }[]; duplicate: boolean }>) => {
        try {
          const { skipped, duplicate } = await work
          return { duplicate, skipped: skipped.map((each) => [each.userId === ann.userId, each.deviceId]) }
        } catch (error) {
          return (error as { code: string }).code
        }
      }
      const to = [first, second, bob.devices[1]!]
      const send = (more: Parameters<typeof sendTo>[2] = {}, devices = to) =>
        said(node.send(bob.devices[0]!, sendTo(theirs, devices, more)))
      await fillOne(first)
      const { clientMessageId } = sendTo(theirs, to)
      const all = [await send({ clientMessageId }), await send({ clientMessageId }), await send(subset, [first])]
      await fillOne(second)
      all.push(await send(), await send(subset, [bob.devices[1]!]))
      await ackSome(second, ...range(1, 9))
      all.push(await send())
      const gaps = await sql()`select 1 from gaps where device_key = ${first.deviceKey}`
      expect([gaps.length, await lengthOf(first)]).toEqual([isBlocked ? 0 : 1, 10])
      return all
    }
    const unblocked = await answers(false)
    const skipped = [[true, 1]]
    expect(unblocked).toEqual([
      ...[{ duplicate: false, skipped }, { duplicate: true, skipped }, 'QUEUE_FULL', 'QUEUE_FULL'],
      ...[
        { duplicate: false, skipped: [] },
        { duplicate: false, skipped },
      ],
    ])
    expect(await answers(true)).toEqual(unblocked)
  })

  it.each(['direct', 'group'])('a full queue (%s) takes nothing until a fifth of it is gone [Q-8.2]', async (kind) => {
    const { send, to, others } = await world(kind === 'direct' ? 2 : 3)
    const taken = async () => {
      try {
        return (await send()).skipped.length === 0
      } catch (error) {
        expect(error).toMatchObject({ code: 'QUEUE_FULL' })
        return false
      }
    }
    await fill(send, 10)
    expect(await taken()).toBe(false)
    await ackSome(to, 4)
    expect(await taken()).toBe(false)
    expect(await lengthOf(to)).toBe(9)
    // The group's other member reads everything, so that only one queue is full.
    for (const other of others.slice(1)) await ackSome(other, ...range(1, 99))
    await ackSome(to, 1)
    // Eight wait: there is room for two, and then it is full again.
    expect(await taken()).toBe(true)
    expect(await taken()).toBe(true)
    expect(await taken()).toBe(false)
    expect(await lengthOf(to)).toBe(10)
  })

  it('one full device of two does not stop a direct conversation: it is skipped, the other gets its copy', async () => {
    const { people, conversation, from, send, others } = await world(2, 2)
    const [laptop, phone, tablet] = [people[0]!.devices[1]!, people[1]!.devices[0]!, people[1]!.devices[1]!]
    for (let i = 0; i < 10; i++) await node.send(from, sendTo(conversation, [phone], { scope: 'SUBSET' }))
    const outcome = await send(others)
    expect(outcome.skipped.map((each) => each.deviceId)).toEqual([1])
    expect(outcome.committed.map((each) => each.deviceKey).sort()).toEqual([laptop.deviceKey, tablet.deviceKey].sort())
    // Nor does the sender's own device that is never switched on.
    for (let i = 0; i < 10; i++) await node.send(from, sendTo(conversation, [laptop], { scope: 'SUBSET' }))
    await ackSome(phone, ...range(1, 10))
    expect((await send(others)).skipped).toMatchObject([{ userId: from.userId, deviceId: 2 }])
  })

  it('other devices are not affected by a full one, in the same batch', async () => {
    const [alice, bob, carol] = await populate(sql(), 3)
    const [one, two] = [await converse(sql(), [alice!, bob!]), await converse(sql(), [alice!, carol!])]
    const from = alice!.devices[0]!
    for (let i = 0; i < 10; i++) await node.send(from, sendTo(one, bob!.devices))
    const settled = await Promise.allSettled([
      node.send(from, sendTo(two, carol!.devices)),
      node.send(from, sendTo(one, bob!.devices)),
      node.send(from, sendTo(two, carol!.devices)),
    ])
    expect(settled.map((each) => each.status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(await lengthOf(carol!.devices[0]!)).toBe(2)
  })

  it('a repeat names the devices that were skipped the first time, though they have room now', async () => {
    const { people, conversation, from, others } = await world(3)
    const [full] = others
    for (let i = 0; i < 10; i++) await node.send(from, sendTo(conversation, [full!], { scope: 'SUBSET' }))
    const send = sendTo(conversation, others)
    const first = await node.send(from, send)
    expect(first.skipped).toMatchObject([{ userId: people[1]!.userId, deviceId: 1 }])
    await ackSome(full!, ...range(1, 10))
    const again = await node.send(from, send)
    expect(again).toMatchObject({ messageId: first.messageId, duplicate: true })
    expect(again.skipped).toMatchObject([{ userId: people[1]!.userId, deviceId: 1 }])
    expect(await lengthOf(full!)).toBe(0)
  })
})
