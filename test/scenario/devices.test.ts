// The end of a device: its socket, its token, its queue, its number in other hands. I9 [I-3] [C-6.3] [T-2]
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { holdLocks } from '../server/barrier.ts'
import { deviceKeyOf } from '../support/backlog.ts'
import { Client, idOf, Socket } from '../support/client.ts'
import { queueFaults } from '../support/node.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ErrorCode } = sealpost.v1

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay({ lockMs: 60_000 })
})
afterAll(() => relay?.close())

/** Rows anywhere that belong to a device key. */
async function traces(deviceKey: number): Promise<Record<string, number>> {
  const { sql } = relay.db.database
  const tables = [
    'devices',
    'device_locks',
    'device_sequences',
    'message_deliveries_waiting',
    'dead_letters',
    'gaps',
    'keys.devices',
    'keys.signed_prekeys',
    'keys.one_time_prekeys',
    'keys.kyber_prekeys',
    'keys.tombstones',
    'keys.highest_ids',
  ]
  const found: Record<string, number> = {}
  for (const table of tables) {
    const [row] = await sql.unsafe(`select count(*)::int as n from ${table} where device_key = ${deviceKey}`)
    if (row!.n > 0) found[table] = row!.n
  }
  return found
}

/** Bob's next device gets the number of the device that was unlinked last: all others were held once. */
const exhaust = (client: Client) => relay.db.database.sql`
  insert into retired_devices (user_id, device_id, registration_id, retired_at)
  select ${client.userId}, n, 1, now() + interval '1 day' from generate_series(2, 127) n on conflict do nothing`

async function world() {
  const [alice, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
  const phone = await bob.link()
  const conversation = await alice.direct(bob)
  return { alice, bob, phone, conversation, from: await alice.live() }
}

describe('unlinking', () => {
  it('closes the device’s socket with 4401 and leaves nothing of its keys and queue', async () => {
    const { bob, phone, conversation, from } = await world()
    const socket = await phone.live()
    const key = await deviceKeyOf(relay.db.database.sql, phone)
    for (let i = 0; i < 3; i++) await from.send(conversation, [bob.to(), phone.to()])
    expect(await traces(key)).toMatchObject({ devices: 1, message_deliveries_waiting: 3, 'keys.one_time_prekeys': 2 })
    expect((await bob.delete(`/v1/devices/${phone.deviceId}`)).status).toBeLessThan(300)
    expect(await socket.end()).toBe(4401)
    expect(await traces(key)).toEqual({})
    expect(await queueFaults(relay.db.database.sql)).toEqual([])
    await from.close()
  })

  it('is one transaction: cut off in its last step, the device has its queue, its keys and its socket', async () => {
    const { sql } = relay.db.database
    const { bob, phone, conversation, from } = await world()
    const socket = await phone.live()
    const key = await deviceKeyOf(sql, phone)
    await from.send(conversation, [bob.to(), phone.to()])
    await socket.next('envelope')
    const before = await traces(key)
    const held = await holdLocks(sql, (tx) => tx`select 1 from devices where device_key = ${key} for key share`)
    const unlinking = bob.delete(`/v1/devices/${phone.deviceId}`)
    const [pid] = await held.waiting(1)
    // Its queue is deleted in the transaction that waits; nobody else sees that.
    expect(await traces(key)).toEqual(before)
    await sql`select pg_terminate_backend(${pid!})`
    expect((await unlinking).status).toBe(503)
    await held.release()
    expect(await traces(key)).toEqual(before)
    await from.send(conversation, [bob.to(), phone.to()])
    await socket.next('envelope')
    await Promise.all([socket.close(), from.close()])
  })

  it('tells the user’s other devices', async () => {
    const { bob, phone, from } = await world()
    const socket = await bob.live()
    await bob.delete(`/v1/devices/${phone.deviceId}`)
    expect((await socket.next('envelope')).systemEvent?.devicesChanged).toMatchObject({
      change: sealpost.v1.DeviceChange.DEVICE_CHANGE_UNLINKED,
      deviceId: phone.deviceId,
    })
    await Promise.all([socket.close(), from.close()])
  })
})

describe('a device number in other hands', () => {
  it('never reads the mail of its predecessor', async () => {
    const { bob, phone, conversation, from } = await world()
    await exhaust(bob)
    for (let i = 0; i < 3; i++) await from.send(conversation, [bob.to(), phone.to()])
    await bob.delete(`/v1/devices/${phone.deviceId}`)
    const successor = await bob.link()
    expect(successor.deviceId).toBe(phone.deviceId)
    const socket = await successor.connect()
    expect((await socket.drain()).filter((each) => each.ciphertext)).toEqual([])
    // A sender who still knows the predecessor is told; to the relay both numbers look the same, to the queue they do not.
    const stale = await from.send(conversation, [bob.to(), phone.to()])
    expect(stale.error?.deviceMismatch?.stale).toMatchObject([{ registrationId: successor.device.registrationId }])
    await from.send(conversation, [bob.to(), successor.to(Buffer.from('for the successor'))])
    const envelope = await socket.next('envelope')
    expect(envelope.ciphertext!.content!.toString()).toBe('for the successor')
    expect(envelope.sequence).toBe(1)
    await Promise.all([socket.close(), from.close()])
  })

  it('an old token opens nothing: 401 at the upgrade and over HTTP, its secret gets no new one', async () => {
    const { bob, phone, from } = await world()
    await exhaust(bob)
    // Seen before, so a cache would know it.
    await (await phone.connect()).close()
    await bob.delete(`/v1/devices/${phone.deviceId}`)
    const successor = await bob.link()
    expect(successor.deviceId).toBe(phone.deviceId)
    await expect(Socket.open(relay.url, phone.token)).rejects.toThrow('401')
    expect((await phone.get('/v1/keys')).status).toBe(401)
    expect((await phone.get('/v1/conversations')).status).toBe(401)
    await expect(phone.refresh()).rejects.toThrow(/HTTP 40[01]/)
    await (await successor.connect()).close()
    await from.close()
  })
})

describe('a socket that is open elsewhere when its device is unlinked', () => {
  it('sends nothing more: UNAUTHENTICATED, reads nothing, and is closed with 4401 by the node’s own look', async () => {
    const other = await testRelay({ db: relay.db })
    try {
      const { alice, bob, phone, conversation, from } = await world()
      await exhaust(bob)
      const socket = await Socket.open(other.url, phone.token)
      await socket.next('hello')
      await socket.drain()
      expect((await socket.send(conversation, [alice.to(), bob.to()])).messageAccepted).toBeTruthy()
      await bob.delete(`/v1/devices/${phone.deviceId}`)
      const successor = await bob.link()
      expect(successor.deviceId).toBe(phone.deviceId)
      // The node looks for itself a few times a second, so any of these may find the socket closed already.
      const gone = () => null
      const refused = await socket.send(conversation, [alice.to(), bob.to()]).catch(gone)
      if (refused) expect(refused.error?.code).toBe(ErrorCode.ERROR_CODE_UNAUTHENTICATED)
      // Mail for the successor is not shown to it, and its acks end nothing.
      const sent = await from.send(conversation, [bob.to(), successor.to()])
      const id = sent.messageAccepted!.messageId!
      expect((await socket.sync().catch(gone))?.messages ?? []).toEqual([])
      await socket.ack(id).catch(gone)
      expect(await socket.end()).toBe(4401)
      const reader = await successor.connect()
      expect((await reader.drain()).map((each) => idOf(each.messageId))).toContain(idOf(id))
      await Promise.all([reader.close(), from.close()])
    } finally {
      await other.close()
    }
  })
})
