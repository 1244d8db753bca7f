// Many at once on real sockets: a group of 500, many senders to one device, sends and their order. C12 I4 [S-8]
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { Client, idOf } from '../support/client.ts'
import { queueFaults } from '../support/node.ts'
import { pair } from '../support/pair.ts'
import { populate } from '../support/population.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay?.close())
afterEach(async () => {
  expect(await queueFaults(relay.db.database.sql)).toEqual([])
})

it('one send to a group of 500 members with two devices each: every device gets its own copy at the next number', async () => {
  const { sql } = relay.db.database
  const [alice, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
  const people = await populate(sql, 498, 2)
  const group = await alice.group([bob, ...people])
  const [from, to] = [await alice.live(), await bob.live()]
  const devices = people.flatMap((each) => each.devices)
  const recipients = [
    bob.to(Buffer.from('for bob')),
    ...devices.map((device) => ({
      userId: uuidToBytes(device.userId),
      deviceId: device.deviceId,
      registrationId: device.registrationId,
      ciphertextType: 2,
      content: Buffer.from(`for ${device.deviceKey}`),
    })),
  ]
  const before = await sql<{ device_key: number; last: number }[]>`select device_key, last from device_sequences`
  for (let i = 0; i < 2; i++) {
    const answer = await from.send(group, recipients)
    expect(answer.messageAccepted?.skipped).toEqual([])
    expect((await to.next('envelope')).ciphertext!.content!.toString()).toBe('for bob')
    const rows = await sql<{ device_key: number; sequence: number; content: Buffer }[]>`
      select device_key, sequence, content from message_deliveries_waiting
      where message_id = ${idOf(answer.messageAccepted!.messageId)} order by device_key`
    expect(rows).toHaveLength(997)
    const last = new Map(before.map((row) => [row.device_key, row.last]))
    const named = new Map(devices.map((device) => [device.deviceKey, `for ${device.deviceKey}`]))
    for (const row of rows) {
      expect(row.sequence).toBe(last.get(row.device_key)! + 1 + i)
      expect(row.content.toString()).toBe(named.get(row.device_key) ?? 'for bob')
    }
  }
  // One device short of 997 is a mismatch that names it, and stores nothing.
  const short = await from.send(group, recipients.slice(0, -1))
  expect(short.error?.deviceMismatch?.missing).toMatchObject([{ deviceId: 2 }])
  await Promise.all([from.close(), to.close()])
})

it('8 senders x 200 messages to one live device: all of it, once, in the order of its queue', async () => {
  const bob = await Client.register(relay)
  const senders = await Promise.all(Array.from({ length: 8 }, () => Client.register(relay)))
  const conversations = await Promise.all(senders.map((each) => each.direct(bob)))
  const to = await bob.live()
  const sockets = await Promise.all(senders.map((each) => each.live()))
  const sent = sockets.map(async (socket, i) => {
    const answers = Array.from({ length: 200 }, () => socket.send(conversations[i]!, [bob.to()]))
    return (await Promise.all(answers)).map((each) => idOf(each.messageAccepted!.messageId))
  })
  const got: { id: string; sequence: number }[] = []
  while (got.length < 1600) {
    const { messageId, sequence } = await to.next('envelope')
    got.push({ id: idOf(messageId), sequence: sequence as number })
    if (got.length % 50 === 0) await to.ack(...got.slice(-50).map((each) => uuidToBytes(each.id)))
  }
  const base = got[0]!.sequence
  expect(got.map((each) => each.sequence)).toEqual(got.map((_, i) => base + i))
  const place = new Map(got.map((each, i) => [each.id, i]))
  expect(place.size).toBe(1600)
  for (const ids of await Promise.all(sent)) {
    const places = ids.map((id) => place.get(id)!)
    expect(places).toEqual([...places].sort((a, b) => a - b))
  }
  await to.fence()
  expect(to.envelopes()).toEqual([])
  await Promise.all([to, ...sockets].map((each) => each.close()))
})

it('the same send many times at once on one connection: one message, one id', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const [from, to] = [await alice.live(), await bob.live()]
  const clientMessageId = uuidToBytes(uuidV7(Date.now()))
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, i) =>
      from.send(conversation, [bob.to(Buffer.from(`copy ${i}`))], { clientMessageId }),
    ),
  )
  expect(new Set(answers.map((each) => idOf(each.messageAccepted!.messageId))).size).toBe(1)
  expect(answers.filter((each) => !each.messageAccepted!.duplicate)).toHaveLength(1)
  expect((await to.next('envelope')).ciphertext!.content!.toString()).toBe('copy 0')
  await to.fence()
  expect(to.envelopes()).toEqual([])
  await Promise.all([from.close(), to.close()])
})

it('sends into a conversation the relay has not met yet keep their order behind the first of them [S-8.1]', async () => {
  const [alice, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
  const conversation = await alice.direct(bob)
  const [from, to] = [await alice.live(), await bob.live()]
  const answers = Array.from({ length: 50 }, (_, i) => from.send(conversation, [bob.to(Buffer.from([i]))]))
  await Promise.all(answers)
  const got: number[] = []
  while (got.length < 50) got.push((await to.next('envelope')).ciphertext!.content![0]!)
  expect(got).toEqual(Array.from({ length: 50 }, (_, i) => i))
  await Promise.all([from.close(), to.close()])
})
