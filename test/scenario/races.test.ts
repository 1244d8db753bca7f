// A send and a change of its device set at once (I8): whichever gets the locks first, no device is silently left out and no row
// is left over. The barrier is a queue's lock held by somebody else: what runs into it gets it in its order.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { holdLocks } from '../server/barrier.ts'
import { deviceKeyOf } from '../support/backlog.ts'
import { Client, idOf, type ServerFrame, type Socket } from '../support/client.ts'
import { prekeyJson } from '../support/enrolment.ts'
import { queueFaults } from '../support/node.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ErrorCode } = sealpost.v1

let relay: TestRelay
let alice: Client
let bob: Client
let phone: Client
let carol: Client
let from: Socket
let direct: string
let group: string
beforeAll(async () => {
  relay = await testRelay({ lockMs: 60_000 })
})
beforeEach(async () => {
  ;[alice, bob, carol] = await Promise.all([Client.register(relay), Client.register(relay), Client.register(relay)])
  phone = await bob.link()
  ;[direct, group] = [await alice.direct(bob), await alice.group([bob, carol])]
  from = await alice.live()
  // The roster is cached from here on: what is decided on it is stale in every race below.
  expect((await from.send(direct, [bob.to(), phone.to()])).messageAccepted).toBeTruthy()
  expect((await from.send(group, [bob.to(), phone.to(), carol.to()])).messageAccepted).toBeTruthy()
})
afterEach(async () => {
  await from.close()
  expect(await queueFaults(relay.db.database.sql)).toEqual([])
})
afterAll(() => relay?.close())

/** Both run into the lock of the device's queue, in this order. */
async function inOrder<A, B>(client: Client, first: () => Promise<A>, second: () => Promise<B>): Promise<[A, B]> {
  const { sql } = relay.db.database
  const key = await deviceKeyOf(sql, client)
  const held = await holdLocks(sql, (tx) => tx`select 1 from device_locks where device_key = ${key} for no key update`)
  const one = first()
  await held.waiting(1)
  const two = second()
  await held.waiting(2)
  await held.release()
  return Promise.all([one, two])
}
const rowsOf = async (answer: ServerFrame) => {
  const id = idOf(answer.messageAccepted!.messageId)
  const rows = await relay.db.database.sql<{ user_id: string; device_id: number }[]>`
    select d.user_id, d.device_id from message_deliveries w join devices d using (device_key) where w.message_id = ${id}`
  return rows.map((row) => `${row.user_id}.${row.device_id}`).sort()
}
const names = (...clients: Client[]) => clients.map((each) => `${each.userId}.${each.deviceId}`).sort()
const ids = (list: sealpost.v1.DeviceAddress.$Properties[] | null | undefined) =>
  (list ?? []).map((each) => `${idOf(each.userId)}.${each.deviceId}`)
const nothingStored = async (act: () => Promise<ServerFrame>) => {
  const count = async () =>
    (await relay.db.database.sql`select count(*) as n from messages where sender_type = 1`)[0]!.n
  const before = await count()
  const answer = await act()
  expect(await count()).toBe(before)
  return answer
}

describe('a device linked during a send', () => {
  it('linked first: the send that did not know it is told that it is missing', async () => {
    const answer = await nothingStored(async () => {
      const [, refused] = await inOrder(
        bob,
        () => bob.link(),
        () => from.send(direct, [bob.to(), phone.to()]),
      )
      return refused
    })
    expect(answer.error?.code).toBe(ErrorCode.ERROR_CODE_DEVICE_MISMATCH)
    const { missing, extra, stale } = answer.error!.deviceMismatch!
    expect(ids(missing)).toEqual([`${bob.userId}.3`])
    expect([extra, stale]).toEqual([[], []])
  })

  it('sent first: accepted for the devices of then, the new device reads nothing of it, the next send must name it', async () => {
    const [answer, tablet] = await inOrder(
      bob,
      () => from.send(direct, [bob.to(), phone.to()]),
      () => bob.link(),
    )
    expect(await rowsOf(answer)).toEqual(names(bob, phone))
    const socket = await tablet.connect()
    expect((await socket.drain()).filter((each) => each.ciphertext)).toEqual([])
    await socket.close()
    const next = await from.send(direct, [bob.to(), phone.to()])
    expect(ids(next.error?.deviceMismatch?.missing)).toEqual(names(tablet))
    expect(await rowsOf(await from.send(direct, [bob.to(), phone.to(), tablet.to()]))).toEqual(
      names(bob, phone, tablet),
    )
  })
})

describe('a device unlinked during a send', () => {
  it('unlinked first: it is extra, and nothing is stored for anybody', async () => {
    const answer = await nothingStored(async () => {
      const [, refused] = await inOrder(
        bob,
        () => bob.delete(`/v1/devices/${phone.deviceId}`),
        () => from.send(group, [bob.to(), phone.to(), carol.to()]),
      )
      return refused
    })
    expect(ids(answer.error?.deviceMismatch?.extra)).toEqual(names(phone))
    expect(answer.error?.deviceMismatch).toMatchObject({ missing: [], stale: [] })
  })

  it('sent first: accepted, and its row goes with its queue', async () => {
    const [answer] = await inOrder(
      bob,
      () => from.send(group, [bob.to(), phone.to(), carol.to()]),
      () => bob.delete(`/v1/devices/${phone.deviceId}`),
    )
    expect(await rowsOf(answer)).toEqual(names(bob, carol))
  })

  it('the sending device unlinked first: UNAUTHENTICATED, nothing stored, its socket closes with 4401', async () => {
    const laptop = await alice.link()
    const socket = await laptop.live()
    const recipients = [alice.to(), bob.to(), phone.to()]
    expect((await socket.send(direct, recipients)).messageAccepted).toBeTruthy()
    await nothingStored(async () => {
      const [, answer] = await inOrder(
        laptop,
        () => alice.delete(`/v1/devices/${laptop.deviceId}`),
        // The socket may be closed before the refusal is written: either way the client has no MessageAccepted.
        () => socket.send(direct, recipients).catch(() => null),
      )
      if (answer) expect(answer.error?.code).toBe(ErrorCode.ERROR_CODE_UNAUTHENTICATED)
      return answer as ServerFrame
    })
    expect(await socket.end()).toBe(4401)
  })
})

describe('a member who comes or goes during a send', () => {
  it('removed first: his devices are extra', async () => {
    const [, answer] = await inOrder(
      carol,
      () => alice.delete(`/v1/conversations/${group}/members/${carol.userId}`),
      () => from.send(group, [bob.to(), phone.to(), carol.to()]),
    )
    expect(ids(answer.error?.deviceMismatch?.extra)).toEqual(names(carol))
  })

  it('removed after the send: he has it', async () => {
    const [answer] = await inOrder(
      carol,
      () => from.send(group, [bob.to(), phone.to(), carol.to()]),
      () => alice.delete(`/v1/conversations/${group}/members/${carol.userId}`),
    )
    expect(await rowsOf(answer)).toEqual(names(bob, phone, carol))
  })

  it('the sender removed first: FORBIDDEN', async () => {
    const sender = await carol.live()
    const recipients = [alice.to(), bob.to(), phone.to()]
    expect((await sender.send(group, recipients)).messageAccepted).toBeTruthy()
    const [, answer] = await inOrder(
      carol,
      () => alice.delete(`/v1/conversations/${group}/members/${carol.userId}`),
      () => sender.send(group, recipients),
    )
    expect(answer.error?.code).toBe(ErrorCode.ERROR_CODE_FORBIDDEN)
    await sender.close()
  })

  it('added first: his devices are missing', async () => {
    const dave = await Client.register(relay)
    const [, answer] = await inOrder(
      carol,
      () => alice.post(`/v1/conversations/${group}/members`, { user_ids: [dave.userId] }),
      () => from.send(group, [bob.to(), phone.to(), carol.to()]),
    )
    expect(ids(answer.error?.deviceMismatch?.missing)).toEqual(names(dave))
  })

  it('archived first: FORBIDDEN', async () => {
    const [, answer] = await inOrder(
      bob,
      () => bob.post(`/v1/conversations/${direct}/archive`),
      () => from.send(direct, [bob.to(), phone.to()]),
    )
    expect(answer.error?.code).toBe(ErrorCode.ERROR_CODE_FORBIDDEN)
  })
})

it('a registration id that changes while the send waits makes the device stale', async () => {
  const { sql } = relay.db.database
  const key = await deviceKeyOf(sql, bob)
  const held = await holdLocks(sql, (tx) => tx`select 1 from device_locks where device_key = ${key} for no key update`)
  const sending = from.send(direct, [bob.to(), phone.to()])
  await held.waiting(1)
  const registrationId = (bob.device.registrationId % 16383) + 1
  const signed = bob.device.makeSignedPrekey(2)
  const replaced = await bob.put('/v1/keys', {
    replace: true,
    registration_id: registrationId,
    signed_prekey: prekeyJson(signed),
  })
  expect(replaced.status).toBeLessThan(300)
  await held.release()
  const answer = await sending
  expect(answer.error?.deviceMismatch).toMatchObject({ missing: [], extra: [] })
  expect(answer.error?.deviceMismatch?.stale).toMatchObject([{ deviceId: 1, registrationId }])
})
