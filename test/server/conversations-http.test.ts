// Conversations as requests and answers: schemas, encodings, statuses. The rules behind them are in conversations.test.ts. [H-8]
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { invalid } from '../../proto/errors.ts'
import type { Uuid } from '../../proto/ids.ts'
import type { Route } from '../../proto/route.ts'
import { conversationRoutes } from '../../server/http/conversations.ts'
import { makeUsers, NOW, recording, refusal, refusalCode } from '../support/conversations.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'

let db: TestDatabase
let routes: Route[]
let ann: Uuid
let bob: Uuid
let cy: Uuid
let dee: Uuid

beforeAll(async () => {
  db = await testDatabase()
  routes = conversationRoutes(recording(db.database.sql).conversations)
  ;[ann, bob, cy, dee] = (await makeUsers(db.database.sql, 4)) as [Uuid, Uuid, Uuid, Uuid]
})
afterAll(() => db.close())

// biome-ignore lint/suspicious/noExplicitAny: answers are JSON, read by the assertions
type Answer = { status: number; body: any }

/** What the socket layer does with a request, without the socket. */
async function call(as: Uuid, method: string, target: string, json?: unknown): Promise<Answer> {
  const url = new URL(target, 'http://relay')
  for (const each of routes) {
    const names: string[] = []
    const pattern = each.path.replace(/:(\w+)/g, (_, name) => {
      names.push(name)
      return '([^/]+)'
    })
    const match = new RegExp(`^${pattern}$`).exec(url.pathname)
    if (!match || each.method !== method) continue
    const parsed = each.body?.safeParse(json)
    if (parsed && !parsed.success)
      throw invalid(parsed.error.issues.map((i) => `${i.path.join('.')} ${i.message}`).join('; '))
    const answer = await each.handle({
      params: Object.fromEntries(names.map((name, i) => [name, match[i + 1]!])),
      query: url.searchParams,
      body: parsed?.data,
      caller: { userId: as, deviceId: 1, deviceKey: 1, deviceUuid: randomUUID() },
      bearer: null,
      authorization: null,
      address: '127.0.0.1',
      nowMs: NOW,
      ...{ expiresAtMs: 0, onGone: () => {} },
    })
    return JSON.parse(JSON.stringify({ status: answer.status, body: answer.body }))
  }
  throw new Error(`no route for ${method} ${target}`)
}

const signed = (byte: number, length = 7) => Buffer.alloc(length, byte)
const makeGroup = async (): Promise<string> =>
  `/v1/conversations/${(await call(ann, 'POST', '/v1/conversations', { kind: 'group', user_ids: [bob, cy] })).body.conversation_id}`

test('a group from first to last', async () => {
  const made = await call(ann, 'POST', '/v1/conversations', {
    kind: 'group',
    user_ids: [bob, cy],
    name: 'hill',
    description: 'walks',
    privacy_mode: 'strict_e2e',
    signed_change: signed(1).toString('base64'),
  })
  expect(made).toEqual({ status: 201, body: { conversation_id: expect.any(String), revision: 1 } })
  const id = made.body.conversation_id
  const at = `/v1/conversations/${id}`
  const answer = (revision: number) => ({ status: 200, body: { conversation_id: id, revision } })
  const more = (byte: number) => ({ signed_change: signed(byte).toString('base64'), expected_revision: byte - 1 })
  expect(await call(ann, 'POST', `${at}/members`, { user_ids: [dee], ...more(2) })).toEqual(answer(2))
  expect(await call(ann, 'PATCH', `${at}/members/${bob}`, { role: 'admin', ...more(3) })).toEqual(answer(3))
  expect(await call(bob, 'PATCH', at, { name: 'sea', ...more(4) })).toEqual(answer(4))
  const query = `signed_change=${signed(251).toString('base64url')}&expected_revision=4`
  expect(await call(bob, 'DELETE', `${at}/members/${cy}?${query}`)).toEqual(answer(5))
  expect(await call(dee, 'DELETE', `${at}/members/${dee}`)).toEqual(answer(6))
  expect(await call(bob, 'PATCH', at, { muted_until_ms: NOW + 5 })).toEqual(answer(6))
  expect(await call(bob, 'POST', `${at}/archive`, more(7))).toEqual(answer(7))

  const link = (
    revision: number,
    change: string,
    actor: Uuid,
    subjects: Uuid[],
    role: string | null,
    bytes: Buffer,
  ) => ({
    revision,
    change,
    actor_user_id: actor,
    subject_user_ids: subjects,
    role,
    signed_change: bytes.toString('base64'),
    changed_at_ms: NOW,
  })
  const summary = {
    conversation_id: id,
    kind: 'group',
    privacy_mode: 'strict_e2e',
    name: 'sea',
    description: 'walks',
    created_at_ms: NOW,
    archived_at_ms: NOW,
    revision: 7,
    role: 'admin',
    state: 'active',
    muted_until_ms: NOW + 5,
    peer_user_id: null,
  }
  const members = [ann, bob]
    .sort()
    .map((each) => ({ user_id: each, role: 'admin', state: 'active', joined_at_ms: NOW }))
  expect(await call(bob, 'GET', at)).toEqual({
    status: 200,
    body: {
      ...summary,
      read_up_to: null,
      members,
      changes: [
        link(1, 'created', ann, [ann, bob, cy], null, signed(1)),
        link(2, 'members_added', ann, [dee], 'member', signed(2)),
        link(3, 'role_changed', ann, [bob], 'admin', signed(3)),
        link(4, 'updated', bob, [], null, signed(4)),
        link(5, 'member_removed', bob, [cy], null, signed(251)),
        link(6, 'member_left', dee, [dee], null, Buffer.alloc(0)),
        link(7, 'archived', bob, [], null, signed(7)),
      ],
      has_more_changes: false,
    },
  })
  const paged = await call(bob, 'GET', `${at}?after_revision=2&limit=3`)
  expect(paged.body.changes.map((each: { revision: number }) => each.revision)).toEqual([3, 4, 5])
  expect(paged.body.has_more_changes).toBe(true)
  const listed = await call(bob, 'GET', '/v1/conversations?limit=200')
  expect(listed.body.conversations.find((each: { conversation_id: Uuid }) => each.conversation_id === id)).toEqual(
    summary,
  )
})

test('a direct conversation is 201 when made and 200 when found', async () => {
  const made = await call(cy, 'POST', '/v1/conversations', { kind: 'direct', user_id: dee })
  expect(made).toMatchObject({ status: 201, body: { revision: 1 } })
  expect(await call(dee, 'POST', '/v1/conversations', { kind: 'direct', user_id: cy })).toEqual({
    ...made,
    status: 200,
  })
})

test('the list goes on where next_cursor says', async () => {
  const [me] = (await makeUsers(db.database.sql, 1)) as [Uuid]
  for (const other of [ann, bob, cy]) await call(me, 'POST', '/v1/conversations', { kind: 'direct', user_id: other })
  const first = await call(me, 'GET', '/v1/conversations?limit=2')
  expect(first.body.conversations).toHaveLength(2)
  const rest = await call(me, 'GET', `/v1/conversations?limit=2&cursor=${first.body.next_cursor}`)
  expect(rest.body).toMatchObject({ conversations: [{ role: 'member' }], next_cursor: null })
})

describe('refused as INVALID_REQUEST, with nothing changed', () => {
  const group = { kind: 'group', user_ids: [randomUUID(), randomUUID()] }
  test.each<[string, unknown]>([
    ['no kind', { user_ids: [] }],
    ['a kind there is not', { kind: 'channel', user_ids: [] }],
    ['an empty group', { kind: 'group', user_ids: [] }],
    ['no user_ids', { kind: 'group' }],
    ['an id in capitals', { kind: 'direct', user_id: randomUUID().toUpperCase() }],
    ['an id that is none', { kind: 'direct', user_id: '12' }],
    ['an unknown user', { kind: 'direct', user_id: randomUUID() }],
    ['unknown users', group],
    ['search_enabled', { ...group, privacy_mode: 'search_enabled' }],
    ['a field there is not', { ...group, search_enabled: true }],
    ['a name of 129 characters', { ...group, name: 'n'.repeat(129) }],
    ['a description of 1,025 characters', { ...group, description: 'n'.repeat(1025) }],
    ['a name with NUL', { ...group, name: 'a\0b' }],
    ['a name with half a surrogate pair', { ...group, name: 'a\ud83d' }],
    ['signed_change of 1,025 bytes', { ...group, signed_change: signed(1, 1025).toString('base64') }],
    ['signed_change without padding', { ...group, signed_change: 'AQ' }],
    ['signed_change with stray bits', { ...group, signed_change: 'AR==' }],
    ['signed_change in base64url', { ...group, signed_change: '_w==' }],
    ['no object', 'group'],
  ])('creation: %s', async (_, body) => {
    const count = () => db.database.sql`select from conversations`
    const before = (await count()).length
    expect(await refusalCode(call(ann, 'POST', '/v1/conversations', body))).toBe('INVALID_REQUEST')
    expect(await count()).toHaveLength(before)
  })

  test.each<[string, string, string, unknown?]>([
    ['a conversation id that is none', 'GET', '/v1/conversations/12'],
    ['a cursor that is none', 'GET', '/v1/conversations?cursor=12'],
    ['a page of none', 'GET', '/v1/conversations?limit=0'],
    ['a page of 201', 'GET', '/v1/conversations?limit=201'],
    ['a page that is no number', 'GET', '/v1/conversations?limit=1e2'],
    ['a chain from below', 'GET', '@?after_revision=-1'],
    ['a chain in pages of 201', 'GET', '@?limit=201'],
    ['nothing to change', 'PATCH', '@', {}],
    ['a signature over nothing', 'PATCH', '@', { signed_change: 'AQ==' }],
    ['muting for all', 'PATCH', '@', { name: 'a', muted_until_ms: 5 }],
    ['a signed mute', 'PATCH', '@', { muted_until_ms: 5, signed_change: 'AQ==' }],
    ['mute beyond the calendar', 'PATCH', '@', { muted_until_ms: 2 ** 53 }],
    ['a role there is not', 'PATCH', `@/members/${randomUUID()}`, { role: 'owner' }],
    ['a role for an id that is none', 'PATCH', '@/members/12', { role: 'admin' }],
    ['a fraction of a revision', 'POST', '@/archive', { expected_revision: 1.5 }],
    ['removal of an id that is none', 'DELETE', '@/members/12'],
    ['removal with padding', 'DELETE', `@/members/${randomUUID()}?signed_change=AQ==`],
    [
      'removal with 1,025 bytes',
      'DELETE',
      `@/members/${randomUUID()}?signed_change=${signed(1, 1025).toString('base64url')}`,
    ],
    ['removal at no revision', 'DELETE', `@/members/${randomUUID()}?expected_revision=`],
  ])('%s', async (_, method, target, body) => {
    const at = await makeGroup()
    expect(await refusalCode(call(ann, method, target.replace('@', at), body))).toBe('INVALID_REQUEST')
    expect((await call(ann, 'GET', at)).body).toMatchObject({ revision: 1, muted_until_ms: null })
  })
})

test('what is at the limit is taken', async () => {
  const made = await call(ann, 'POST', '/v1/conversations', {
    kind: 'group',
    user_ids: [ann, bob, cy],
    name: 'n'.repeat(128),
    description: '😀'.repeat(512),
    signed_change: signed(9, 1024).toString('base64'),
  })
  expect(made.status).toBe(201)
  const at = `/v1/conversations/${made.body.conversation_id}`
  const query = `signed_change=${signed(255, 1024).toString('base64url')}`
  expect(await call(cy, 'DELETE', `${at}/members/${cy}?${query}`)).toMatchObject({ status: 200 })
  expect(await call(ann, 'PATCH', at, { muted_until_ms: Date.UTC(9999, 11, 31) })).toMatchObject({ status: 200 })
  expect((await call(ann, 'GET', at)).body).toMatchObject({
    description: '😀'.repeat(512),
    muted_until_ms: Date.UTC(9999, 11, 31),
    changes: [
      { signed_change: signed(9, 1024).toString('base64') },
      { signed_change: signed(255, 1024).toString('base64') },
    ],
  })
})

test('an archive takes no body, too', async () => {
  expect(await call(ann, 'POST', `${await makeGroup()}/archive`)).toMatchObject({ status: 200, body: { revision: 2 } })
})

test('a stranger, a former member and an unknown id', async () => {
  const at = await makeGroup()
  await call(cy, 'DELETE', `${at}/members/${cy}`)
  const stranger = await refusal(call(dee, 'GET', at))
  expect(stranger).toBe('NOT_FOUND: no such conversation')
  expect(await refusal(call(dee, 'GET', `/v1/conversations/${randomUUID()}`))).toBe(stranger)
  expect(await refusalCode(call(cy, 'GET', at))).toBe('FORBIDDEN')
})
