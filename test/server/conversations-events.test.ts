// What the devices find in their queues after each change. [V-1] [V-2]
import { afterAll, beforeAll, expect, test } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { type Uuid, uuidFromBytes } from '../../proto/ids.ts'
import type { ChangeRequest } from '../../server/conversation-change.ts'
import type { Conversations } from '../../server/conversations.ts'
import type { Sql } from '../../server/database.ts'
import type { Committed } from '../../server/frames.ts'
import { by, makeUsers, NOW, recording } from '../support/conversations.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'

let db: TestDatabase
let sql: Sql
let conversations: Conversations
let fannedOut: Committed[][]
let changed: Uuid[]

beforeAll(async () => {
  db = await testDatabase()
  sql = db.database.sql
  ;({ conversations, fannedOut, changed } = recording(sql))
})
afterAll(() => db.close())

const keysOf = async (users: Uuid[]): Promise<number[]> =>
  (await sql`select device_key from devices where user_id = any(${users}::uuid[]) order by device_key`).map(
    (each) => each.device_key,
  )

function decoded(content: Uint8Array) {
  const event = sealpost.v1.SystemEvent.decode(content).conversationChanged!
  return {
    change: event.change,
    actor: uuidFromBytes(event.actorUserId!),
    subjects: event.subjectUserIds!.map(uuidFromBytes),
    role: event.role,
    revision: Number(event.revision),
    signed: [...event.signedChange!],
  }
}

/** Runs a change; returns its one event and the device keys that got it. */
async function eventOf(run: () => Promise<{ conversationId: Uuid }>) {
  const before = await sql`select message_id from messages`
  const conversationId = (await run()).conversationId
  const rows = await sql`
    select w.device_key, w.sequence, w.content, w.ciphertext_type, w.withheld, w.message_id, m.conversation_id,
      m.sender_type, m.sender_user_id, m.sent_at
    from message_deliveries_waiting w join messages m using (message_id)
    where not message_id = any(${before.map((each) => each.message_id)}::uuid[]) order by w.device_key`
  for (const row of rows)
    expect(row).toMatchObject({
      conversation_id: conversationId,
      message_id: rows[0]!.message_id,
      content: rows[0]!.content,
      sender_type: 2,
      sender_user_id: null,
      ciphertext_type: 0,
      withheld: 0,
      sent_at: new Date(NOW),
    })
  expect(fannedOut.at(-1)!.map((each) => [each.deviceKey, each.delivery.sequence])).toEqual(
    rows.map((each) => [each.device_key, each.sequence]),
  )
  expect(changed.at(-1)).toBe(conversationId)
  return { deviceKeys: rows.map((each) => each.device_key), ...decoded(rows[0]!.content) }
}

test('each change reaches every device of every member after it and of whoever it removed, once, signed', async () => {
  const [ann, bob, cy, dee] = (await makeUsers(sql, 4, 2)) as [Uuid, Uuid, Uuid, Uuid]
  await makeUsers(sql, 2)
  const { ConversationChange: Kind, Role } = sealpost.v1
  let id = ''
  const step = async (
    change: sealpost.v1.ConversationChange,
    run: (request: ChangeRequest) => Promise<{ conversationId: Uuid }>,
    expected: { actor: Uuid; subjects: Uuid[]; role: sealpost.v1.Role; audience: Uuid[]; revision: number },
  ) => {
    const signed = [expected.revision, 0, 254]
    const event = await eventOf(() => run(by(expected.actor, { signedChange: new Uint8Array(signed) })))
    const { audience, ...rest } = expected
    expect(event).toEqual({ change, ...rest, signed, deviceKeys: await keysOf(audience) })
  }

  await step(
    Kind.CONVERSATION_CHANGE_CREATED,
    async (request) => {
      const made = await conversations.createGroup(request, { userIds: [bob, cy], name: '', description: '' })
      id = made.conversationId
      return made
    },
    { actor: ann, subjects: [ann, bob, cy], role: Role.ROLE_UNSPECIFIED, audience: [ann, bob, cy], revision: 1 },
  )
  await step(Kind.CONVERSATION_CHANGE_MEMBERS_ADDED, (request) => conversations.addMembers(id, request, [dee]), {
    actor: ann,
    subjects: [dee],
    role: Role.ROLE_MEMBER,
    audience: [ann, bob, cy, dee],
    revision: 2,
  })
  await step(Kind.CONVERSATION_CHANGE_ROLE_CHANGED, (request) => conversations.setRole(id, request, dee, 'admin'), {
    actor: ann,
    subjects: [dee],
    role: Role.ROLE_ADMIN,
    audience: [ann, bob, cy, dee],
    revision: 3,
  })
  await step(Kind.CONVERSATION_CHANGE_MEMBER_REMOVED, (request) => conversations.removeMember(id, request, cy), {
    actor: dee,
    subjects: [cy],
    role: Role.ROLE_UNSPECIFIED,
    audience: [ann, bob, cy, dee],
    revision: 4,
  })
  await step(Kind.CONVERSATION_CHANGE_MEMBER_LEFT, (request) => conversations.removeMember(id, request, bob), {
    actor: bob,
    subjects: [bob],
    role: Role.ROLE_UNSPECIFIED,
    audience: [ann, bob, dee],
    revision: 5,
  })
  await step(Kind.CONVERSATION_CHANGE_UPDATED, (request) => conversations.describe(id, request, { name: 'n' }), {
    actor: ann,
    subjects: [],
    role: Role.ROLE_UNSPECIFIED,
    audience: [ann, dee],
    revision: 6,
  })
  await step(Kind.CONVERSATION_CHANGE_ARCHIVED, (request) => conversations.archive(id, request), {
    actor: dee,
    subjects: [],
    role: Role.ROLE_UNSPECIFIED,
    audience: [ann, dee],
    revision: 7,
  })
})

test('finding a direct conversation that is there says nothing to anyone', async () => {
  const [one, two] = (await makeUsers(sql, 2)) as [Uuid, Uuid]
  const made = await eventOf(() => conversations.createDirect(by(one), two))
  expect(made).toMatchObject({ subjects: [one, two], revision: 1, deviceKeys: await keysOf([one, two]) })
  const before = [fannedOut.length, changed.length, (await sql`select from messages`).length]
  await conversations.createDirect(by(two), one)
  expect([fannedOut.length, changed.length, (await sql`select from messages`).length]).toEqual(before)
})

test('a change whose events cannot be queued did not happen', async () => {
  const [ann, bob, cy] = (await makeUsers(sql, 3)) as [Uuid, Uuid, Uuid]
  const { conversationId: id } = await conversations.createGroup(by(ann), {
    userIds: [bob, cy],
    name: '',
    description: '',
  })
  const told = [fannedOut.length, changed.length]
  // The commit's own failure: whatever is wrong with the queue shows only at its end.
  await sql.unsafe(`
    create function refuse() returns trigger language plpgsql as $$ begin raise exception 'the queue is broken'; end $$;
    create constraint trigger refuse after insert on message_deliveries_waiting deferrable initially deferred
      for each row execute function refuse()`)
  try {
    await expect(conversations.removeMember(id, by(ann), bob)).rejects.toThrow('the queue is broken')
  } finally {
    await sql.unsafe('drop trigger refuse on message_deliveries_waiting; drop function refuse()')
  }
  expect([fannedOut.length, changed.length]).toEqual(told)
  expect(await conversations.membershipOf(id, bob)).toBe('active')
  expect(await conversations.read(id, ann, { afterRevision: 0, limit: 9 })).toMatchObject({
    revision: 1,
    changes: [{ revision: 1 }],
  })
})
