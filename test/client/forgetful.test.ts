// A relay whose database went back: read marks are told it again, and messages go on being followed under the ids they have now. [K-9]
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Device, MemoryStorage } from '../../client/index.ts'
import { sealpost } from '../../proto/generated/relay.js'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, linked, live, quiet, say, shown, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

/** The relay as after a restore: without what it had in these tables since, and with another epoch. */
async function restored(forgotten: string[]): Promise<TestRelay> {
  const { sql } = relay.db.database
  for (const table of forgotten) await sql.unsafe(`delete from ${table}`)
  const [{ name }] = await sql<
    [{ name: string }]
  >`select table_name as name from information_schema.columns where column_name = 'epoch' limit 1`
  await sql.unsafe(`update ${name} set epoch = gen_random_uuid()`)
  return testRelay({ db: relay.db })
}

const markOf = async (it: Device): Promise<unknown> =>
  (await relay.db.database.sql`select read_up_to from read_marks where user_id = ${it.userId}`)[0]?.read_up_to

it('what was read is told again', async () => {
  const [alice, storage] = [await joined(relay), new MemoryStorage()]
  const bob = await joined(relay, { storage })
  const conversation = await alice.conversations.direct(bob.userId)
  const { messageId } = await say(alice, conversation, 'hello')
  await shown(bob, conversation, 'hello')
  bob.markRead(conversation)
  await quiet(bob)
  expect(await markOf(bob)).toBe(messageId)
  await Promise.all([alice.close(), bob.close()])
  const after = await restored(['read_marks'])
  expect(await markOf(bob)).toBeUndefined()
  const again = await live(device(after, { storage }))
  await quiet(again)
  expect(await markOf(bob)).toBe(messageId)
  await again.close()
  await after.close()
})

it('a message that was forgotten and sent again is delivered under its new id', async () => {
  const [storage, bobs] = [new MemoryStorage(), new MemoryStorage()]
  const [alice, bob] = [await joined(relay, { storage }), await joined(relay, { storage: bobs })]
  const conversation = await alice.conversations.direct(bob.userId)
  await shown(bob, conversation, (await say(alice, conversation, 'hello')).body.text!)
  await quiet(bob)
  await bob.close()
  const before = await say(alice, conversation, 'forgotten')
  await alice.close()
  const after = await restored(['message_deliveries_waiting', 'messages'])
  const again = device(after, { storage })
  const isIt = ({ id }: { id: string }) => id === before.id
  const mended = until(again, 'problem', ({ what }) => what === 'restored')
  await live(again)
  await mended
  await quiet(again)
  const now = again.messages(conversation).find(({ message }) => isIt(message))!.message
  expect(now).toMatchObject({ state: 'sent', audience: 1 })
  expect(now.messageId).not.toBe(before.messageId)
  const delivered = until(again, 'message_changed', (each) => isIt(each) && each.state === 'delivered')
  const read = until(again, 'message_changed', (each) => isIt(each) && each.state === 'read')
  read.catch(() => {})
  const reader = await live(device(after, { storage: bobs }))
  await shown(reader, conversation, 'forgotten')
  await delivered
  reader.markRead(conversation)
  await read
  await Promise.all([again.close(), reader.close()])
  await after.close()
})

it.each(['OVERLOADED', 'RATE_LIMITED', 'UNAVAILABLE'] as const)(
  'a message that was forgotten comes, whoever is gone since, and though the relay is %s at first',
  async (code) => {
    const [storage, bobs, wire] = [new MemoryStorage(), new MemoryStorage(), new Tamper()]
    const [alice, bob] = [await joined(relay, { storage }), await joined(relay, { storage: bobs })]
    const laptop = await linked(bob, relay)
    const conversation = await alice.conversations.direct(bob.userId)
    await shown(bob, conversation, (await say(alice, conversation, 'hello')).body.text!)
    await quiet(bob)
    await bob.close()
    await say(alice, conversation, 'forgotten')
    await shown(laptop, conversation, 'forgotten')
    await alice.close()
    await laptop.unlink(laptop.deviceId)
    await laptop.close()
    const after = await restored(['message_deliveries_waiting', 'messages'])
    let refused = 0
    wire.passes = ({ requestId, signalMessage }) => {
      if (!signalMessage || refused++ > 1) return true
      const error = { code: sealpost.v1.ErrorCode[`ERROR_CODE_${code}`], message: 'later', retryAfterMs: 1 }
      queueMicrotask(() => wire.say({ requestId, error }))
      return false
    }
    const again = device(after, { storage, transport: wire })
    await live(again)
    await quiet(again)
    const reader = await live(device(after, { storage: bobs }))
    await shown(reader, conversation, 'forgotten')
    const scopes = wire.sent.flatMap(({ signalMessage }) => (signalMessage ? [signalMessage.scope] : []))
    expect(scopes.slice(0, 3)).toEqual([1, 1, 1])
    expect(scopes).toContain(sealpost.v1.Scope.SCOPE_SUBSET)
    await Promise.all([again.close(), reader.close()])
    await after.close()
  },
)
