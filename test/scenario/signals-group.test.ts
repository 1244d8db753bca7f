// A group of 500: one message, read by everybody, and what its sender hears of it. [G-3.1] [G-1] [G-2]
import { afterAll, beforeAll, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { openTokens } from '../../server/tokens.ts'
import { idOf, Socket } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import { converse, type Person, populate } from '../support/population.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { pass, progress, progressOf, read, typing, unasked } from '../support/signals.ts'

const MEMBERS = 500
const time = new FakeTime()
let relay: TestRelay
let people: Person[]
let group = ''
let sockets: Socket[] = []

beforeAll(async () => {
  relay = await testRelay({ time })
  const { sql } = relay.db.database
  people = await populate(sql, MEMBERS)
  group = await converse(sql, people)
  const tokens = await openTokens({ sql, realm: relay.realm, outside: null, nowMs: time.now() })
  const uuids = await sql<{ user_id: string; device_uuid: string }[]>`select user_id, device_uuid from devices`
  const uuidOf = new Map(uuids.map((row) => [row.user_id, row.device_uuid]))
  sockets = await Promise.all(
    people.map(async ({ userId }) => {
      const device = { userId, deviceId: 1, deviceUuid: uuidOf.get(userId)! }
      const { token } = await tokens.issue(device, time.now())
      const socket = await Socket.open(relay.url, token)
      await socket.next('hello')
      return socket
    }),
  )
})
afterAll(async () => {
  await Promise.all(sockets.map((each) => each.close()))
  await relay.close()
})

it('499 deliveries and 499 read marks reach the sender as a few updates that end at all of them', async () => {
  const [sender, ...others] = sockets as [Socket, ...Socket[]]
  const recipients = people.slice(1).map(({ devices: [device] }) => ({
    userId: uuidToBytes(device!.userId),
    deviceId: 1,
    registrationId: device!.registrationId,
    ciphertextType: sealpost.v1.CiphertextType.CIPHERTEXT_TYPE_WHISPER,
    content: Buffer.from('to everybody'),
  }))
  const { messageAccepted, error } = await sender.send(group, recipients, {
    clientMessageId: uuidToBytes(uuidV7(time.now())),
  })
  expect(error ?? null).toBe(null)
  const messageId = messageAccepted!.messageId!

  const updates: string[] = []
  let seconds = 0
  const second = async (): Promise<void> => {
    seconds++
    await pass(time, 1_000)
    for (const frame of await unasked(sender, 'statusUpdate'))
      updates.push(progressOf(frame.statusUpdate!)[idOf(messageId)]!)
    sender.frames.length = 0
  }
  // In ten groups, so that there is something to gather and something to come later.
  for (let first = 0; first < others.length; first += 50) {
    await Promise.all(
      others.slice(first, first + 50).map(async (each) => {
        await each.next('envelope')
        await each.ack(messageId)
        await read(each, group, messageId)
      }),
    )
    await second()
  }
  while (updates.at(-1) !== '499/499') await second()
  expect(updates.length).toBeLessThanOrEqual(seconds)
  expect(await progress(sender, messageId)).toEqual({ [idOf(messageId)]: '499/499' })
  // Whoever did not send it hears nothing of it.
  for (const each of others.slice(0, 20)) expect(await unasked(each, 'statusUpdate')).toEqual([])
})

it('presence of all 500 is one answer, and typing reaches each once', async () => {
  const [one, ...others] = sockets as [Socket, ...Socket[]]
  const { presence } = await one.ask({
    presenceSubscription: { userIds: people.map((each) => uuidToBytes(each.userId)) },
  })
  expect(presence!.users!.filter((each) => each.isOnline)).toHaveLength(MEMBERS)
  one.write(typing(group))
  await Promise.all(others.map((each) => each.next('typing')))
  await one.fence()
  for (const each of others) expect(await unasked(each, 'typing')).toEqual([])
})
