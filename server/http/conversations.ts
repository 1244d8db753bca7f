// Conversations over HTTP: what a request and an answer look like. [H-8] What they do is in server/conversations.ts.
import { z } from 'zod'
import { invalid } from '../../proto/errors.ts'
import { isUuid, type Uuid } from '../../proto/ids.ts'
import { DESCRIPTION_MAX_CHARS, NAME_MAX_CHARS, SIGNED_CHANGE_MAX_BYTES } from '../../proto/limits.ts'
import { type Route, type RouteRequest, type RouteResponse, route } from '../../proto/route.ts'
import type { ChangeRequest, Revised } from '../conversation-change.ts'
import type { ChainLink, ConversationSummary, ConversationView, Member } from '../conversation-reads.ts'
import type { Conversations } from '../conversations.ts'

/** Conversations in one page, when limit is absent and at most. */
const LIST_DEFAULT = 50
const LIST_MAX = 200
/** Links of the chain in one page, when limit is absent and at most: each may carry 1 KiB and 500 ids. */
const CHAIN_DEFAULT = 100
const CHAIN_MAX = 200
/** Latest muted_until_ms, 9999-12-31: what both JavaScript and PostgreSQL write with four digits. */
const MUTED_UNTIL_MAX_MS = Date.UTC(9999, 11, 31)

const decode = (text: string, encoding: 'base64' | 'base64url'): Uint8Array | null => {
  const bytes = Buffer.from(text, encoding)
  // Node skips what it cannot read; only the canonical encoding comes back as it was.
  return bytes.toString(encoding) === text && bytes.length <= SIGNED_CHANGE_MAX_BYTES ? bytes : null
}

const userId = z.string().refine(isUuid, 'is not a UUID in canonical lowercase form')
// Neither can be stored: PostgreSQL refuses NUL, and half a surrogate pair is no character.
const text = (max: number) =>
  z
    .string()
    .max(max)
    .refine((value) => !/[\0\p{Surrogate}]/u.test(value), 'holds a NUL or half a surrogate pair')

const signed = {
  signed_change: z
    .string()
    .refine(
      (value) => decode(value, 'base64') !== null,
      `is not canonical base64 of at most ${SIGNED_CHANGE_MAX_BYTES} bytes`,
    )
    .optional(),
  expected_revision: z.int().min(0).optional(),
}

const createBody = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('direct'),
    user_id: userId,
    privacy_mode: z.string().optional(),
    signed_change: signed.signed_change,
  }),
  z.strictObject({
    kind: z.literal('group'),
    user_ids: z.array(userId),
    name: text(NAME_MAX_CHARS).default(''),
    description: text(DESCRIPTION_MAX_CHARS).default(''),
    privacy_mode: z.string().optional(),
    signed_change: signed.signed_change,
  }),
])
const updateBody = z.strictObject({
  name: text(NAME_MAX_CHARS).optional(),
  description: text(DESCRIPTION_MAX_CHARS).optional(),
  muted_until_ms: z.int().min(0).max(MUTED_UNTIL_MAX_MS).nullable().optional(),
  ...signed,
})
const membersBody = z.strictObject({ user_ids: z.array(userId), ...signed })
const roleBody = z.strictObject({ role: z.enum(['member', 'admin']), ...signed })
const archiveBody = z.strictObject(signed).optional()

/** Each change puts an event with up to 1 KiB of the caller's choice into queues of people who never agreed to it. */
const CHANGES_RATE = { burst: 100, everyMs: 30_000 }

/** The routes of conversations; every change answers {conversation_id, revision}. [H-8.2] */
export function conversationRoutes(conversations: Conversations): Route[] {
  return declare(conversations).map((each) => (each.method === 'GET' ? each : { ...each, rate: CHANGES_RATE }))
}

function declare(conversations: Conversations): Route[] {
  return [
    route({
      method: 'POST',
      path: '/v1/conversations',
      summary: 'Make a group, or find or make the direct conversation with a user (200 when it was there, else 201).',
      auth: 'device',
      body: createBody,
      handle: async (request) => {
        const { body } = request
        // search_enabled is the other mode of F5; a relay that cannot keep its promises must not pretend to.
        if (body.privacy_mode !== undefined && body.privacy_mode !== 'strict_e2e')
          throw invalid('privacy_mode is not offered: this relay has strict_e2e only')
        const change = changeOf(request, body)
        if (body.kind === 'direct') {
          const made = await conversations.createDirect(change, body.user_id)
          return revised(made, made.created ? 201 : 200)
        }
        const { user_ids: userIds, name, description } = body
        return revised(await conversations.createGroup(change, { userIds, name, description }), 201)
      },
    }),
    route({
      method: 'GET',
      path: '/v1/conversations',
      summary:
        "List your conversations, newest creation first; ?cursor= is the previous answer's next_cursor, ?limit= at most 200.",
      auth: 'device',
      handle: async ({ caller, query }) => {
        const cursor = query.get('cursor')
        if (cursor !== null && !isUuid(cursor)) throw invalid('cursor is not one that was handed out to you')
        const limit = numberOf(query, 'limit', LIST_DEFAULT, { min: 1, max: LIST_MAX })
        const page = await conversations.list(caller.userId, { cursor, limit })
        return {
          status: 200,
          body: { conversations: page.conversations.map(summaryBody), next_cursor: page.nextCursor },
        }
      },
    }),
    route({
      method: 'GET',
      path: '/v1/conversations/:conversationId',
      summary: 'One conversation: its members, and its chain of changes after ?after_revision=, ?limit= at most 200.',
      auth: 'device',
      handle: async ({ caller, params, query }) => {
        const afterRevision = numberOf(query, 'after_revision', 0, { min: 0, max: Number.MAX_SAFE_INTEGER })
        const limit = numberOf(query, 'limit', CHAIN_DEFAULT, { min: 1, max: CHAIN_MAX })
        const view = await conversations.read(idOf(params, 'conversationId'), caller.userId, { afterRevision, limit })
        return { status: 200, body: viewBody(view) }
      },
    }),
    route({
      method: 'PATCH',
      path: '/v1/conversations/:conversationId',
      summary: 'Change name or description (admins of a group), or your own muted_until_ms, which nobody else sees.',
      auth: 'device',
      body: updateBody,
      handle: async (request) => {
        const { body, caller, params } = request
        const id = idOf(params, 'conversationId')
        const described = body.name !== undefined || body.description !== undefined
        if (described && body.muted_until_ms !== undefined)
          throw invalid('muted_until_ms is your own: it does not go with name or description')
        if (described) return revised(await conversations.describe(id, changeOf(request, body), body), 200)
        if (body.muted_until_ms === undefined) throw invalid('name, description or muted_until_ms is needed')
        if (body.signed_change !== undefined || body.expected_revision !== undefined)
          throw invalid('muted_until_ms is no link of the chain: it takes no signed_change and no expected_revision')
        return revised(await conversations.mute(id, caller.userId, body.muted_until_ms), 200)
      },
    }),
    route({
      method: 'POST',
      path: '/v1/conversations/:conversationId/members',
      summary: 'Add members to a group (admins).',
      auth: 'device',
      body: membersBody,
      handle: async (request) => {
        const id = idOf(request.params, 'conversationId')
        return revised(await conversations.addMembers(id, changeOf(request, request.body), request.body.user_ids), 200)
      },
    }),
    route({
      method: 'PATCH',
      path: '/v1/conversations/:conversationId/members/:userId',
      summary: "Change a member's role (admins).",
      auth: 'device',
      body: roleBody,
      handle: async (request) => {
        const { body, params } = request
        const change = changeOf(request, body)
        return revised(
          await conversations.setRole(idOf(params, 'conversationId'), change, idOf(params, 'userId'), body.role),
          200,
        )
      },
    }),
    route({
      method: 'DELETE',
      path: '/v1/conversations/:conversationId/members/:userId',
      summary: 'Remove a member (admins), or leave; ?signed_change= in base64url without padding, ?expected_revision=.',
      auth: 'device',
      // In the query, because proxies and client libraries drop the body of a DELETE; 1 KiB is 1,366 characters there.
      handle: async (request) => {
        const { params, query } = request
        const change = { ...changeOf(request, {}), ...changeOfQuery(query) }
        return revised(
          await conversations.removeMember(idOf(params, 'conversationId'), change, idOf(params, 'userId')),
          200,
        )
      },
    }),
    route({
      method: 'POST',
      path: '/v1/conversations/:conversationId/archive',
      summary: 'End a conversation for good: a group by an admin, a direct one by either member.',
      auth: 'device',
      body: archiveBody,
      handle: async (request) =>
        revised(
          await conversations.archive(idOf(request.params, 'conversationId'), changeOf(request, request.body ?? {})),
          200,
        ),
    }),
    route({
      method: 'POST',
      path: '/v1/conversations/:conversationId/accept',
      summary: 'Accept a conversation or an invitation of somebody you did not know; again changes nothing.',
      auth: 'device',
      body: z.strictObject({}).optional(),
      handle: async ({ caller, params, nowMs }) =>
        revised(await conversations.accept(idOf(params, 'conversationId'), caller.userId, nowMs), 200),
    }),
  ]
}

function changeOf(
  { caller, nowMs }: RouteRequest<unknown>,
  body: { signed_change?: string | undefined; expected_revision?: number | undefined },
): ChangeRequest {
  return {
    caller: caller.userId,
    signedChange: decode(body.signed_change ?? '', 'base64')!,
    expectedRevision: body.expected_revision ?? null,
    nowMs,
  }
}

function changeOfQuery(query: URLSearchParams): Pick<ChangeRequest, 'signedChange' | 'expectedRevision'> {
  const signedChange = decode(query.get('signed_change') ?? '', 'base64url')
  if (!signedChange)
    throw invalid(`signed_change is not base64url without padding of at most ${SIGNED_CHANGE_MAX_BYTES} bytes`)
  const expectedRevision = query.has('expected_revision')
    ? numberOf(query, 'expected_revision', 0, { min: 0, max: Number.MAX_SAFE_INTEGER })
    : null
  return { signedChange, expectedRevision }
}

/** Takes both parameters' wire names from the one they have in the path. */
function idOf(params: Record<string, string>, name: 'conversationId' | 'userId'): Uuid {
  const id = params[name] ?? ''
  if (!isUuid(id))
    throw invalid(`${name === 'userId' ? 'user_id' : 'conversation_id'} is not a UUID in canonical lowercase form`)
  return id
}

function numberOf(
  query: URLSearchParams,
  name: string,
  absent: number,
  { min, max }: { min: number; max: number },
): number {
  const given = query.get(name)
  if (given === null) return absent
  const value = /^\d{1,16}$/.test(given) ? Number(given) : Number.NaN
  if (!(value >= min && value <= max)) throw invalid(`${name} is not an integer from ${min} to ${max}`)
  return value
}

const revised = ({ conversationId, revision }: Revised, status: number): RouteResponse => ({
  status,
  body: { conversation_id: conversationId, revision },
})

const summaryBody = (each: ConversationSummary) => ({
  conversation_id: each.conversationId,
  kind: each.kind,
  privacy_mode: each.privacyMode,
  name: each.name,
  description: each.description,
  created_at_ms: each.createdAtMs,
  archived_at_ms: each.archivedAtMs,
  revision: each.revision,
  role: each.role,
  state: each.state,
  muted_until_ms: each.mutedUntilMs,
  peer_user_id: each.peerUserId,
})

const memberBody = (each: Member) => ({
  user_id: each.userId,
  role: each.role,
  state: each.state,
  joined_at_ms: each.joinedAtMs,
})

const linkBody = (each: ChainLink) => ({
  revision: each.revision,
  change: each.change.toLowerCase(),
  actor_user_id: each.actorUserId,
  subject_user_ids: each.subjectUserIds,
  role: each.role,
  signed_change: Buffer.from(each.signedChange).toString('base64'),
  changed_at_ms: each.changedAtMs,
})

const viewBody = (view: ConversationView) => ({
  ...summaryBody(view),
  read_up_to: view.readUpTo,
  members: view.members.map(memberBody),
  changes: view.changes.map(linkBody),
  has_more_changes: view.hasMoreChanges,
})
