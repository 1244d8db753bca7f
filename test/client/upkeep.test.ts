// Keys and sessions over time: refills, rotation, a restored relay, heartbeats, the outbox's bounds.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Device, MemoryStorage, OutboxFull } from '../../client/index.ts'
import { SqliteStorage, StorageInUse } from '../../client/node.ts'
import { uuidFromBytes } from '../../proto/ids.ts'
import { FakeTime } from '../support/faketime.ts'
import { pass } from '../support/passing.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, directory, joined, live, quiet, say, shown, texts, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
const files = directory()
let laterMs = 0
beforeAll(async () => {
  relay = await testRelay({ clock: () => Date.now() + laterMs })
})
afterAll(async () => {
  await relay.close()
  files.end()
})

const DAY_MS = 24 * 3_600_000

async function stock(it: Device): Promise<{ n: number; highest: number; signed: number }> {
  const { sql } = relay.db.database
  const [row] = await sql<[{ n: number; highest: number; signed: number }]>`
    select count(*) as n, max(k.key_id) as highest, max(s.key_id) as signed
    from devices d left join keys.one_time_prekeys k using (device_key) left join keys.signed_prekeys s using (device_key)
    where d.user_id = ${it.userId}`
  return row
}

it('one-time keys are filled up with ids that were never used', async () => {
  const storage = new MemoryStorage()
  const it = await joined(relay, { storage })
  await quiet(it)
  expect(await stock(it)).toMatchObject({ n: 100, highest: 100, signed: 1 })
  it.disconnect()
  await relay.db.database.sql`delete from keys.one_time_prekeys where key_id > 10 and device_key in
    (select device_key from devices where user_id = ${it.userId})`
  const again = await live(device(relay, { storage }))
  await quiet(again)
  expect(await stock(again)).toMatchObject({ n: 110, highest: 200, signed: 1 })
  await again.close()
})

it('a restored relay gets fresh one-time keys, and what it accepted once more', async () => {
  const storage = new MemoryStorage()
  const [alice, bob] = [await joined(relay, { storage }), await joined(relay)]
  const conversation = await alice.conversations.direct(bob.userId)
  await say(alice, conversation, 'accepted')
  await shown(bob, conversation, 'accepted')
  await quiet(alice)
  alice.disconnect()
  // The relay forgot the message and its epoch is new, as after a restore.
  const { sql } = relay.db.database
  const [{ name }] = await sql<
    [{ name: string }]
  >`select table_name as name from information_schema.columns where column_name = 'epoch' limit 1`
  await sql.unsafe(`update ${name} set epoch = gen_random_uuid()`)
  const restored = await testRelay({ db: relay.db })
  const again = device(restored, { storage })
  const told = until(again, 'problem', ({ what }) => what === 'restored')
  await live(again)
  await told
  await quiet(again)
  expect((await stock(again)).highest).toBeGreaterThanOrEqual(200)
  expect(texts(bob, conversation)).toEqual(['accepted'])
  await again.close()
  await bob.close()
  await restored.close()
})

it('no answer within 5 s: the same bytes again after 1, 2 and 4 s, then failed, and a retry delivers once', async () => {
  const [time, wire, bob] = [new FakeTime(), new Tamper(), await joined(relay)]
  const alice = await joined(relay, { time, transport: wire })
  const conversation = await alice.conversations.direct(bob.userId)
  await say(alice, conversation, 'hello')
  await quiet(alice)
  // Accepted, but nobody says so.
  let swallowed = 0
  wire.frames = (frame) => {
    if (frame.messageAccepted) swallowed++
    return frame.messageAccepted ? [] : [frame]
  }
  const message = alice.send(conversation, { text: 'did you get this?' })
  const failed = until(alice, 'message_changed', ({ id, state }) => id === message.id && state === 'failed')
  const tries = () =>
    wire.sent.flatMap(({ signalMessage }) =>
      signalMessage && uuidFromBytes(signalMessage.clientMessageId!) === message.id ? [signalMessage] : [],
    )
  /** A word of the relay every second, as always; whoever waited for a time plans the next in a later turn. */
  const passed = async (ms: number) => {
    for (let left = ms; left > 0; left -= 1000) {
      pass(time, wire, Math.min(left, 1000))
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  for (const [n, waitMs] of [1000, 2000, 4000, 0].entries()) {
    while (swallowed <= n) await wire.heard()
    await passed(5000 + Math.max(waitMs - 1, 0))
    expect(tries()).toHaveLength(n + 1)
    if (waitMs > 0) await passed(1)
  }
  expect((await failed).failure).toBe('unanswered')
  const [first, ...again] = tries()
  for (const each of again) expect(each).toEqual(first)
  wire.frames = null
  const sent = until(alice, 'message_changed', ({ id, state }) => id === message.id && state === 'sent')
  alice.retry(message.id)
  await sent
  await shown(bob, conversation, 'did you get this?')
  // Whatever else was made of the tries came before this.
  await say(alice, conversation, 'and now?')
  await shown(bob, conversation, 'and now?')
  expect(texts(bob, conversation)).toEqual(['hello', 'did you get this?', 'and now?'])
  await Promise.all([alice.close(), bob.close()])
})

it('a store that is open is refused to the next', () => {
  const first = new SqliteStorage(files.path('once.db'))
  expect(() => new SqliteStorage(files.path('once.db'))).toThrow(StorageInUse)
  first.close()
  new SqliteStorage(files.path('once.db')).close()
})

it('an encrypted store needs its passphrase', () => {
  new SqliteStorage(files.path('secret.db'), { passphrase: "it's a secret" }).close()
  expect(() => new SqliteStorage(files.path('secret.db'))).toThrow()
  new SqliteStorage(files.path('secret.db'), { passphrase: "it's a secret" }).close()
})

it('a transaction is all or nothing, and synchronous', () => {
  for (const storage of [new MemoryStorage(), new SqliteStorage(files.path('tx.db'))]) {
    storage.transaction((tx) => tx.put('t', 'a', Uint8Array.of(1)))
    expect(() =>
      storage.transaction((tx) => {
        tx.put('t', 'a', Uint8Array.of(2))
        tx.delete('t', 'a')
        tx.put('t', 'b', Uint8Array.of(3))
        throw new Error('no')
      }),
    ).toThrow('no')
    expect(() => storage.transaction(async (tx) => tx.put('t', 'c', Uint8Array.of(4)))).toThrow('synchronous')
    expect(() => storage.transaction(() => storage.transaction(() => {}))).toThrow('inside another')
    expect(storage.transaction((tx) => tx.scan('t'))).toEqual([{ key: 'a', value: Uint8Array.of(1) }])
    storage.close()
  }
})

// From here on days pass.

it('signed and last-resort keys are replaced weekly, and what was made with the old ones can still be read', async () => {
  const [storage, alice] = [new MemoryStorage(), await joined(relay)]
  const time = new FakeTime()
  const bob = await joined(relay, { storage, time })
  await quiet(bob)
  const conversation = await alice.conversations.direct(bob.userId)
  await quiet(bob)
  bob.disconnect()
  await say(alice, conversation, 'with the old keys')
  time.nowMs += 8 * DAY_MS
  laterMs = 8 * DAY_MS
  const later = await live(device(relay, { storage, time: new FakeTime(time.nowMs) }))
  await shown(later, conversation, 'with the old keys')
  await quiet(later)
  expect(await stock(later)).toMatchObject({ signed: 2 })
  await Promise.all([alice.close(), later.close()])
})

it('the outbox is bounded, and what is older than six days fails instead of being sent twice', async () => {
  const [time, storage, bob] = [
    new FakeTime(Date.now() + laterMs),
    new MemoryStorage(),
    await joined(relay, { time: new FakeTime(Date.now() + laterMs) }),
  ]
  const alice = await joined(relay, { time, storage })
  const conversation = await alice.conversations.direct(bob.userId)
  await quiet(alice)
  alice.disconnect()
  const message = alice.send(conversation, { text: 'too late' })
  for (let i = 1; i < 1000; i++) alice.send(conversation, { text: 'x' })
  expect(() => alice.send(conversation, { text: 'one too many' })).toThrow(OutboxFull)
  time.nowMs += 6 * DAY_MS + 1
  laterMs += 6 * DAY_MS + 1
  const failed = until(alice, 'message_changed', ({ id, state }) => id === message.id && state === 'failed')
  await live(alice)
  expect(await failed).toMatchObject({ failure: 'expired' })
  expect(() => alice.retry(message.id)).toThrow('too old')
  await Promise.all([alice.close(), bob.close()])
})
