// A relay that forgot who had accepted whom, as after a restore. [K-9.1] [V-6]
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Device, MemoryStorage } from '../../client/index.ts'
import { STRANGER_MAX_MESSAGES } from '../../proto/limits.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, linked, live, quiet, say, shown, texts, until } from '../support/sdk.ts'

const config = { strangers: 'ask' } as const
let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay({ config })
})
afterAll(() => relay.close())

/** The relay with another epoch, without its messages, and as if that user had not accepted yet. */
async function restored(pending: Device): Promise<TestRelay> {
  const { sql } = relay.db.database
  await sql`delete from message_deliveries_waiting`
  await sql`delete from messages`
  await sql`update conversation_members set state = 'pending', stranger_messages = 0 where user_id = ${pending.userId}`
  await sql`update relay_state set epoch = gen_random_uuid()`
  return testRelay({ db: relay.db, config })
}

async function couple() {
  const [hers, his] = [new MemoryStorage(), new MemoryStorage()]
  const [alice, bob] = [await joined(relay, { storage: hers }), await joined(relay, { storage: his })]
  const conversation = await alice.conversations.direct(bob.userId)
  await say(alice, conversation, 'hello')
  await shown(bob, conversation, 'hello')
  return { alice, bob, conversation, hers, his }
}

it('who had answered has accepted again, also when the answer can go to some of the devices only', async () => {
  const { alice, bob, conversation, hers, his } = await couple()
  const laptop = await linked(alice, relay)
  await say(bob, conversation, 'hello yourself')
  for (const each of [alice, laptop]) await shown(each, conversation, 'hello yourself')
  await quiet(bob)
  await bob.close()
  const gone = until(alice, 'own_devices', ({ change }) => change === 'unlinked')
  await alice.unlink(laptop.deviceId)
  await gone
  await Promise.all([alice.close(), laptop.close()])
  const after = await restored(bob)
  const again = await live(device(after, { storage: his }))
  await quiet(again)
  expect(await again.requests.list()).toEqual([])
  // More than a stranger may send.
  const her = await live(device(after, { storage: hers }))
  for (let n = 0; n <= STRANGER_MAX_MESSAGES; n++) await say(her, conversation, `${n}`)
  await shown(again, conversation, `${STRANGER_MAX_MESSAGES}`)
  await Promise.all([again.close(), her.close()])
  await after.close()
})

it('what one may not send any more is failed, and arrives once when it is sent again after he accepted', async () => {
  const { alice, bob, conversation, hers, his } = await couple()
  await bob.requests.accept(conversation)
  const more = Array.from({ length: STRANGER_MAX_MESSAGES }, (_, n) => `${n}`)
  await quiet(bob)
  await bob.close()
  for (const text of more) await say(alice, conversation, text)
  await quiet(alice)
  await alice.close()
  const after = await restored(bob)
  const her = device(after, { storage: hers })
  const failed = until(her, 'message_changed', ({ state }) => state === 'failed')
  await live(her)
  const last = await failed
  expect(last).toMatchObject({ failure: 'FORBIDDEN', audience: 0, body: { text: more.at(-1) } })
  await quiet(her)
  const states = her.messages(conversation).map(({ message }) => message.state)
  expect(states.filter((state) => state === 'failed')).toHaveLength(1)
  const again = await live(device(after, { storage: his }))
  await shown(again, conversation, more.at(-2)!)
  await again.requests.accept(conversation)
  const sent = until(her, 'message_changed', ({ id, state }) => id === last.id && state === 'sent')
  her.retry(last.id)
  await sent
  await shown(again, conversation, more.at(-1)!)
  expect(texts(again, conversation)).toEqual(['hello', ...more])
  await Promise.all([again.close(), her.close()])
  await after.close()
})
