// A relay restored from a backup that is older than a conversation: what its members see, and how they go on. [K-9.2]
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { type Device, MemoryStorage } from '../../client/index.ts'
import { sealpost } from '../../proto/generated/relay.js'
import { voidAfterRestore } from '../../server/operator.ts'
import { backup } from '../support/backup.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, live, quiet, say, shown, texts, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let db: TestDatabase
let stores: MemoryStorage[]
let [alice, bob, carol]: Device[] = []
/** Made before the backup. */
let old: string
let kept: TestDatabase

beforeAll(async () => {
  db = await testDatabase()
})
afterAll(() => db.close())

const closeAll = (...devices: (Device | undefined)[]) => Promise.all(devices.map((each) => each!.close()))
const again = (at: TestRelay, of: number, wire?: Tamper): Device =>
  device(at, { storage: stores[of]!, ...(wire && { transport: wire }) })

/** Three users and a conversation of two of them, all of it in the backup; then the relay goes on. */
let relay: TestRelay
beforeEach(async () => {
  stores = [1, 2, 3].map(() => new MemoryStorage())
  const before = await testRelay({ db })
  ;[alice, bob, carol] = await Promise.all(stores.map((storage) => joined(before, { storage })))
  old = await alice!.conversations.direct(carol!.userId)
  await shown(carol!, old, (await say(alice!, old, 'before the backup')).body.text!)
  await Promise.all([alice, bob, carol].map((each) => quiet(each!)))
  await closeAll(alice, bob, carol)
  await before.close()
  kept = await backup(db)
  relay = await testRelay({ db })
  ;[alice, bob, carol] = await Promise.all(stores.map((_, of) => live(again(relay, of))))
  return () => kept.close()
})

/** The relay that has the backup, after its operator did what is to be done. */
async function restored(): Promise<TestRelay> {
  await closeAll(alice, bob, carol)
  await relay.close()
  await voidAfterRestore(kept.database.sql)
  return testRelay({ db: kept })
}

const states = (of: Device, conversation: string) =>
  of.messages(conversation).map(({ message: { body, state, failure } }) => [body.text, state, failure])

const isFailed = (id: string) => (each: { id: string; state: string }) => each.id === id && each.state === 'failed'

it('what not everybody had is failed, and its members make another', async () => {
  const make = (by: Device) => ({
    direct: () => by.conversations.direct(bob!.userId),
    group: () => by.conversations.group([bob!.userId, carol!.userId]),
  })
  const [direct, group] = [await make(alice!).direct(), await make(alice!).group()]
  const arrived = until(
    alice!,
    'message_changed',
    ({ body, state }) => body.text === 'arrived' && state === 'delivered',
  )
  await say(alice!, direct, 'arrived')
  await say(alice!, group, 'hello both')
  await shown(bob!, direct, 'arrived')
  for (const each of [bob!, carol!]) await shown(each, group, 'hello both')
  await arrived
  await quiet(bob!)
  bob!.disconnect()
  const lost = [await say(alice!, direct, 'lost'), await say(alice!, group, 'lost, too')]
  await quiet(alice!)
  alice!.disconnect()
  const waiting = alice!.send(direct, { text: 'waiting' })

  const after = await restored()
  const she = again(after, 0)
  const failed = [...lost, waiting].map(({ id }) => until(she, 'message_changed', isFailed(id)))
  const told = [direct, group].map((id) => until(she, 'conversation', ({ conversationId }) => conversationId === id))
  await live(she)
  await Promise.all([...failed, ...told])
  await quiet(she)
  expect(states(she, direct)).toEqual([
    ['arrived', 'delivered', ''],
    ['lost', 'failed', 'conversation_forgotten'],
    ['waiting', 'failed', 'conversation_forgotten'],
  ])
  expect(states(she, group).at(-1)).toEqual(['lost, too', 'failed', 'conversation_forgotten'])
  const isForgotten = (of: Device) => [direct, group, old].map((id) => of.conversations.get(id)?.forgotten)
  expect(isForgotten(she)).toEqual([true, true, false])
  // Not in that one, also when it is tried again.
  const refused = until(she, 'message_changed', isFailed(lost[0]!.id))
  she.retry(lost[0]!.id)
  expect(await refused).toMatchObject({ failure: 'conversation_forgotten' })
  // Bob is told as well, where he wrote nothing.
  const he = await live(again(after, 1))
  await quiet(he)
  expect(isForgotten(he)).toEqual([true, true, undefined])

  const third = await live(again(after, 2))
  for (const kind of ['direct', 'group'] as const) {
    const anew = await make(she)[kind]()
    expect([direct, group]).not.toContain(anew)
    await say(she, anew, 'again')
    for (const each of kind === 'direct' ? [he] : [he, third]) await shown(each, anew, 'again')
    expect(she.conversations.get(anew)!.forgotten).toBe(false)
    if (kind === 'direct') expect(await he.conversations.direct(she.userId)).toBe(anew)
  }
  await say(she, old, 'and what was there goes on')
  await shown(third, old, 'and what was there goes on')
  expect(texts(third, old)).toEqual(['before the backup', 'and what was there goes on'])
  await closeAll(she, he, third)
  await after.close()
})

it('is known again when a newer backup is restored; what failed for another reason says so', async () => {
  const id = await alice!.conversations.direct(bob!.userId)
  await shown(bob!, id, (await say(alice!, id, 'arrived')).body.text!)
  await quiet(bob!)
  bob!.disconnect()
  const lost = await say(alice!, id, 'lost')
  await quiet(alice!)
  const after = await restored()
  const she = again(after, 0)
  const failed = until(she, 'message_changed', isFailed(lost.id))
  await live(she)
  await failed
  await quiet(she)
  await closeAll(she)
  await after.close()
  // What served before, as the newer one.
  await voidAfterRestore(db.database.sql)
  relay = await testRelay({ db })
  const wire = new Tamper()
  const back = again(relay, 0, wire)
  let isTold = false
  back.on('conversation', ({ conversationId }) => {
    isTold ||= conversationId === id && !back.conversations.get(id)!.forgotten
  })
  await live(back)
  await quiet(back)
  expect(isTold).toBe(true)
  expect(back.conversations.get(id)!.forgotten).toBe(false)
  back.retry(lost.id)
  const he = await live(again(relay, 1))
  await shown(he, id, 'lost')
  expect(texts(he, id)).toEqual(['arrived', 'lost'])

  wire.passes = ({ requestId, signalMessage }) => {
    if (!signalMessage) return true
    const error = { code: sealpost.v1.ErrorCode.ERROR_CODE_INVALID_REQUEST, message: 'wrong' }
    queueMicrotask(() => wire.say({ requestId, error }))
    return false
  }
  expect(await say(back, id, 'wrong', 'failed')).toMatchObject({ failure: 'INVALID_REQUEST' })
  expect(back.conversations.get(id)!.forgotten).toBe(false)
  await closeAll(back, he)
  await relay.close()
})
