// The scenarios of a chat: online, offline, twice, to nowhere, all or nothing.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { deviceKeyOf, waitingFor } from '../support/backlog.ts'
import { Client, idOf } from '../support/client.ts'
import { pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ErrorCode, Scope, Withheld } = sealpost.v1

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

const newId = () => uuidToBytes(uuidV7(Date.now()))

/** Rows of this message in every table that could hold one. */
async function rowsOf(clientMessageId: Uint8Array) {
  const { sql } = relay.db.database
  const [row] = await sql<[{ messages: number; waiting: number; letters: number }]>`
    with m as (select message_id from messages where client_message_id = ${idOf(clientMessageId)})
    select (select count(*) from m) as messages,
      (select count(*) from message_deliveries where message_id in (select message_id from m)) as waiting,
      (select count(*) from dead_letters where message_id in (select message_id from m)) as letters`
  return row
}

describe('a direct conversation', () => {
  it('delivers online, at once, in order, and nothing is left after the ack', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const [from, to] = [await alice.live(), await bob.live()]
    const contents = ['one', 'two', 'three'].map((text) => Buffer.from(text))
    const answers = await Promise.all(contents.map((content) => from.send(conversation, [bob.to(content)])))
    for (const [i, answer] of answers.entries()) {
      expect(answer.messageAccepted?.duplicate).toBe(false)
      const envelope = await to.next('envelope')
      expect(envelope.ciphertext?.content).toEqual(contents[i])
      expect(envelope.messageId).toEqual(answer.messageAccepted?.messageId)
      expect(envelope.sentAtMs).toBe(answer.messageAccepted?.sentAtMs)
      expect(idOf(envelope.conversationId)).toBe(conversation)
      expect(idOf(envelope.ciphertext?.senderUserId)).toBe(alice.userId)
      expect(envelope.ciphertext?.senderDeviceId).toBe(alice.deviceId)
      await to.ack(envelope.messageId)
    }
    expect((await to.sync()).messages).toEqual([])
    await Promise.all([from.close(), to.close()])
  })

  it('keeps what comes while the recipient is away', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const from = await alice.live()
    for (let i = 0; i < 3; i++) await from.send(conversation, [bob.to(Buffer.from(`m${i}`))])
    const to = await bob.connect()
    expect(to.hello.queueWaiting).toBe(true)
    const page = await to.sync()
    expect(page.messages?.map((each) => Buffer.from(each.ciphertext!.content!).toString())).toEqual(['m0', 'm1', 'm2'])
    await to.next('queueEmpty')
    await Promise.all([from.close(), to.close()])
  })

  it('missing ack: what was delivered live and not acked is in the next sync, on this connection and on the next', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const [from, to] = [await alice.live(), await bob.live()]
    await from.send(conversation, [bob.to()])
    await from.send(conversation, [bob.to()])
    const [first, second] = [await to.next('envelope'), await to.next('envelope')]
    await to.ack(second.messageId)
    expect((await to.sync()).messages).toEqual([first])
    await to.close()
    const again = await bob.connect()
    expect(again.hello.queueWaiting).toBe(true)
    expect((await again.sync()).messages).toEqual([first])
    await Promise.all([from.close(), again.close()])
  })

  it('answers a repeated send with the first message id and delivers it once, also on another connection', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const [from, to] = [await alice.live(), await bob.live()]
    const clientMessageId = newId()
    const first = await from.send(conversation, [bob.to()], { clientMessageId })
    const second = await from.send(conversation, [bob.to()], { clientMessageId })
    expect(second.messageAccepted).toEqual({ ...first.messageAccepted, duplicate: true })
    await from.close()
    const later = await alice.live()
    const third = await later.send(conversation, [bob.to()], { clientMessageId })
    expect(third.messageAccepted).toEqual({ ...first.messageAccepted, duplicate: true })
    expect((await to.next('envelope')).messageId).toEqual(first.messageAccepted?.messageId)
    await to.fence()
    expect(to.envelopes()).toEqual([])
    expect((await waitingFor(relay.db.database.sql, bob)).length).toBe(1)
    await Promise.all([later.close(), to.close()])
  })

  it('makes one message of twenty copies that are in flight at once', async () => {
    const { alice, bob, conversation } = await pair(relay)
    const [from, to] = [await alice.live(), await bob.live()]
    const clientMessageId = newId()
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => from.send(conversation, [bob.to()], { clientMessageId })),
    )
    const ids = new Set(answers.map((each) => idOf(each.messageAccepted?.messageId)))
    expect(ids.size).toBe(1)
    expect(answers.filter((each) => !each.messageAccepted!.duplicate).length).toBe(1)
    // One envelope, and behind it, in the queue's order, the next message.
    expect(idOf((await to.next('envelope')).messageId)).toBe([...ids][0])
    const behind = await from.send(conversation, [bob.to()])
    expect((await to.next('envelope')).messageId).toEqual(behind.messageAccepted?.messageId)
    expect(to.envelopes()).toEqual([])
    // They share one promise: the database never saw two.
    expect(relay.logged.filter((line) => JSON.parse(line).level >= 50)).toEqual([])
    await Promise.all([from.close(), to.close()])
  })

  it('answers an unknown conversation and one of others alike, on a connection that stays usable', async () => {
    const { bob, conversation } = await pair(relay)
    const mallory = await Client.register(relay)
    const from = await mallory.live()
    const nowhere = await from.send('00000000-0000-4000-8000-000000000000', [bob.to()])
    const others = await from.send(conversation, [bob.to()])
    expect(nowhere.error?.code).toBe(ErrorCode.ERROR_CODE_INVALID_REQUEST)
    expect(others.error).toEqual(nowhere.error)
    await from.fence()
    await from.close()
  })
})

describe('all or nothing', () => {
  async function trio() {
    const [alice, bob, carol] = await Promise.all(Array.from({ length: 3 }, () => Client.register(relay)))
    const conversation = await alice!.group([bob!, carol!])
    for (const each of [bob!, carol!]) await (await each.live()).close()
    return { alice: alice!, bob: bob!, carol: carol!, conversation }
  }

  it('transaction atomicity: one recipient row fails, and no table holds anything of the message', async () => {
    const { sql } = relay.db.database
    const { alice, bob, carol, conversation } = await trio()
    const from = await alice.live()
    const before = (await bob.connect().then((socket) => socket.drain())).length
    const key = await deviceKeyOf(sql, carol)
    await sql.unsafe(
      `alter table message_deliveries_waiting add constraint poison check (device_key <> ${key}) not valid`,
    )
    const clientMessageId = newId()
    const refused = await from.send(conversation, [bob.to(), carol.to()], { clientMessageId })
    await sql`alter table message_deliveries_waiting drop constraint poison`
    expect(before).toBe(0)
    expect(refused.error?.code).toBe(ErrorCode.ERROR_CODE_INVALID_REQUEST)
    expect(await rowsOf(clientMessageId)).toEqual({ messages: 0, waiting: 0, letters: 0 })
    expect(await waitingFor(sql, bob)).toEqual([])

    // The id is unused and the sequences have no hole. [S-2.2]
    const accepted = await from.send(conversation, [bob.to(), carol.to()], { clientMessageId })
    expect(accepted.messageAccepted?.duplicate).toBe(false)
    const [toBob, toCarol] = [await bob.connect(), await carol.connect()]
    for (const socket of [toBob, toCarol]) {
      const [envelope] = (await socket.sync()).messages!
      // 1 was the group's own event.
      expect(envelope?.sequence).toBe(2)
      expect(envelope?.messageId).toEqual(accepted.messageAccepted?.messageId)
    }
    await Promise.all([from.close(), toBob.close(), toCarol.close()])
  })

  it('a device left out: DEVICE_MISMATCH names it, and nobody gets anything', async () => {
    const { alice, bob, carol, conversation } = await trio()
    const from = await alice.live()
    const clientMessageId = newId()
    const { error } = await from.send(conversation, [bob.to()], { clientMessageId })
    expect(error?.code).toBe(ErrorCode.ERROR_CODE_DEVICE_MISMATCH)
    const [missing, ...others] = error!.deviceMismatch!.missing!
    expect(others).toEqual([])
    expect(idOf(missing!.userId)).toBe(carol.userId)
    expect(missing).toMatchObject({ deviceId: carol.deviceId, registrationId: carol.device.registrationId })
    expect(await rowsOf(clientMessageId)).toEqual({ messages: 0, waiting: 0, letters: 0 })
    await from.close()
  })

  it('a withheld device gets an envelope that says why, and no content', async () => {
    const { alice, bob, carol, conversation } = await trio()
    const [from, to] = [await alice.live(), await carol.live()]
    const { userId, deviceId, registrationId } = carol.to()
    const withheld = Withheld.WITHHELD_UNTRUSTED_IDENTITY
    const recipients = [bob.to(), { userId: userId!, deviceId: deviceId!, registrationId: registrationId!, withheld }]
    expect((await from.send(conversation, recipients)).messageAccepted).toBeTruthy()
    const { ciphertext } = await to.next('envelope')
    expect(ciphertext?.withheld).toBe(withheld)
    expect(ciphertext?.content).toEqual(Buffer.alloc(0))
    await Promise.all([from.close(), to.close()])
  })

  it('a subset goes to those addressed only', async () => {
    const { alice, bob, carol, conversation } = await trio()
    const [from, toBob, toCarol] = [await alice.live(), await bob.live(), await carol.live()]
    const answer = await from.send(conversation, [bob.to()], { scope: Scope.SCOPE_SUBSET })
    expect(answer.messageAccepted).toBeTruthy()
    expect((await toBob.next('envelope')).ciphertext?.urgent).toBe(false)
    await toCarol.fence()
    expect(toCarol.envelopes()).toEqual([])
    await Promise.all([from.close(), toBob.close(), toCarol.close()])
  })
})
