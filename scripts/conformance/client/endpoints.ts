// The HTTP of the scripted relay, as an honest one answers it. [H-4] to [H-10]
import { randomBytes } from 'node:crypto'
import { uuidToBytes } from '../../../proto/ids.ts'
import { fromBase64 } from '../bytes.ts'
import type { Entry } from './directory.ts'
import type { Reply, ScriptedRelay, Seen } from './relay.ts'
import { type ChangeName, eventOf, type Room } from './rooms.ts'

/** A refusal. [H-2] */
export const refuse = (status: number, code: string, retryAfterMs = 0): Reply => ({
  status,
  body: { error: { code, message: code.toLowerCase().replaceAll('_', ' '), retry_after_ms: retryAfterMs } },
  ...(retryAfterMs > 0 && { headers: { 'Retry-After': String(Math.ceil(retryAfterMs / 1000)) } }),
})

const notFound = (): Reply => refuse(404, 'NOT_FOUND')

type Handler = (relay: ScriptedRelay, request: Seen, caller: Entry, params: string[]) => Reply

const ROUTES: [string, RegExp, Handler][] = [
  ['GET', /^\/v1\/keys$/, (relay, _, caller) => ({ status: 200, body: relay.directory.counts(caller) })],
  [
    'PUT',
    /^\/v1\/keys$/,
    (relay, { json }, caller) => {
      relay.directory.upload(caller, json)
      return { status: 200, body: relay.directory.counts(caller) }
    },
  ],
  [
    'POST',
    /^\/v1\/keys\/check$/,
    (relay, { json }, caller) => ({ status: 200, body: { match: json.digest === relay.directory.digest(caller) } }),
  ],
  [
    'POST',
    /^\/v1\/keys\/bundles$/,
    (relay, { json }) => ({ status: 200, body: { bundles: listed(relay, json.targets ?? []) } }),
  ],
  [
    'GET',
    /^\/v1\/keys\/([^/]+)\/([^/]+)$/,
    (relay, _, caller, [userId, device]) => bundle(relay, caller, userId!, device!),
  ],
  [
    'GET',
    /^\/v1\/devices$/,
    (relay, _, { userId }) => ({
      status: 200,
      body: {
        devices: relay.directory.of(userId).map(({ deviceId, registrationId, createdAtMs }) => ({
          ...{ device_id: deviceId, registration_id: registrationId, name: '', created_at_ms: createdAtMs },
        })),
      },
    }),
  ],
  [
    'POST',
    /^\/v1\/devices\/link-code$/,
    (relay, _, { userId }) => {
      const link_code = randomBytes(16).toString('base64url')
      relay.linkCodes.set(link_code, userId)
      return { status: 201, body: { link_code, expires_at_ms: relay.now() + 600_000 } }
    },
  ],
  [
    'PUT',
    /^\/v1\/provisioning\/([\w-]{22})$/,
    (relay, { json }, _, [address]) => {
      const channel = relay.channels.get(address!)
      channel?.take(fromBase64(json.message))
      return channel ? { status: 204 } : notFound()
    },
  ],
  ['GET', /^\/v1\/settings$/, () => ({ status: 200, body: { read_receipts: true, presence: true } })],
  [
    'PATCH',
    /^\/v1\/settings$/,
    (_, { json }) => ({ status: 200, body: { read_receipts: true, presence: true, ...json } }),
  ],
  ['POST', /^\/v1\/conversations$/, create],
  [
    'GET',
    /^\/v1\/conversations$/,
    (relay, _, { userId }) => ({
      status: 200,
      body: { conversations: of(relay, userId).map((each) => relay.rooms.json(each, userId)), next_cursor: null },
    }),
  ],
  [
    'GET',
    /^\/v1\/conversations\/([^/]+)$/,
    (relay, { query }, { userId }, [id]) => {
      const room = relay.rooms.all.get(id!)
      return room
        ? { status: 200, body: relay.rooms.json(room, userId, Number(query.get('after_revision') ?? 0)) }
        : notFound()
    },
  ],
  [
    'POST',
    /^\/v1\/conversations\/([^/]+)\/members$/,
    (relay, { json }, caller, [id]) => change(relay, id!, caller, 'members_added', json.user_ids, json.signed_change),
  ],
]

/** The answer to a request. */
export function answerHttp(relay: ScriptedRelay, request: Seen): Reply {
  const { method, path } = request
  if (method === 'POST' && path === '/v1/accounts') return register(relay, request)
  if (method === 'POST' && path === '/v1/devices') return link(relay, request)
  if (method === 'POST' && path === '/oauth/token') return token(relay, request)
  const bearer = /^bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? ''
  const caller = relay.tokens.get(bearer)
  if (!caller) return { ...refuse(401, 'UNAUTHENTICATED'), headers: { 'WWW-Authenticate': 'Bearer' } }
  for (const [verb, pattern, handle] of ROUTES) {
    const found = verb === method && pattern.exec(path)
    if (found) return handle(relay, request, caller, found.slice(1))
  }
  return notFound()
}

function register(relay: ScriptedRelay, { json }: Seen): Reply {
  if (json === null) return refuse(400, 'INVALID_REQUEST')
  if ([...relay.directory.identities.values()].includes(json.identity_key)) return refuse(409, 'CONFLICT')
  const secret = randomBytes(32).toString('base64url')
  const { userId, deviceId } = relay.directory.enrol(json, { secret, atMs: relay.now() })
  return { status: 201, body: { user_id: userId, device_id: deviceId, device_secret: secret } }
}

// [I-4]
function link(relay: ScriptedRelay, { json }: Seen): Reply {
  const userId = relay.linkCodes.get(json?.link_code)
  if (!userId || userId !== json.user_id) return refuse(403, 'FORBIDDEN')
  if (relay.directory.identities.get(userId) !== json.identity_key) return refuse(400, 'INVALID_REQUEST')
  relay.linkCodes.delete(json.link_code)
  const secret = randomBytes(32).toString('base64url')
  const deviceId = Math.max(...relay.directory.of(userId).map((each) => each.deviceId)) + 1
  relay.directory.enrol(json, { userId, deviceId, secret, atMs: relay.now() })
  return { status: 201, body: { user_id: userId, device_id: deviceId, device_secret: secret } }
}

// [T-3]
function token(relay: ScriptedRelay, { json, headers }: Seen): Reply {
  const basic = /^basic +(\S+)$/i.exec(headers.authorization ?? '')?.[1]
  const [id, secret] = basic
    ? Buffer.from(basic, 'base64').toString().split(':').map(decodeURIComponent)
    : [json?.client_id, json?.client_secret]
  const entry = relay.directory.devices.find(
    (each) => each.secret !== '' && id === `${each.userId}.${each.deviceId}` && secret === each.secret,
  )
  if (!entry || json?.grant_type !== 'client_credentials') return { status: 401, body: { error: 'invalid_client' } }
  const access_token = `token-${relay.tokens.size + 1}-${randomBytes(8).toString('hex')}`
  relay.tokens.set(access_token, entry)
  return { status: 200, body: { access_token, token_type: 'Bearer', expires_in: 3600 } }
}

function bundle(relay: ScriptedRelay, caller: Entry, userId: string, device: string): Reply {
  const devices = relay.directory
    .of(userId)
    .filter((each) => each !== caller && (device === '*' || String(each.deviceId) === device))
  if (devices.length === 0) return notFound()
  const body = relay.directory.bundles(
    userId,
    devices.map((each) => each.deviceId),
  )
  return { status: 200, body, headers: { 'Cache-Control': 'no-store' } }
}

function listed(relay: ScriptedRelay, targets: { user_id: string; device_id: number }[]): object[] {
  const users = [...new Set(targets.map((each) => each.user_id))]
  return users
    .map((userId) =>
      relay.directory.bundles(
        userId,
        targets.filter((each) => each.user_id === userId).map((each) => each.device_id),
      ),
    )
    .filter((each) => each.devices.length > 0)
}

const of = (relay: ScriptedRelay, userId: string): Room[] =>
  [...relay.rooms.all.values()].filter((each) => each.members.some((member) => member.userId === userId))

function create(relay: ScriptedRelay, { json }: Seen, { userId }: Entry): Reply {
  const answer = (status: number, room: Room): Reply => ({
    status,
    body: { conversation_id: room.id, revision: room.links.length },
  })
  const before = json.kind === 'direct' ? relay.rooms.direct(userId, json.user_id) : undefined
  if (before) return answer(200, before)
  const others: string[] = json.kind === 'direct' ? [json.user_id] : (json.user_ids ?? [])
  const users = [...new Set([userId, ...others])]
  const room = relay.rooms.create(json.kind, users, json.signed_change ?? null, relay.now())
  relay.deliver({ conversationId: uuidToBytes(room.id), systemEvent: eventOf(room.links[0]!) })
  return answer(201, room)
}

function change(
  relay: ScriptedRelay,
  id: string,
  caller: Entry,
  name: ChangeName,
  subjects: string[],
  signedChange: string | null,
): Reply {
  const room = relay.rooms.all.get(id)
  if (!room) return notFound()
  if (name === 'members_added') room.members.push(...subjects.map((userId) => ({ userId, role: 1 })))
  relay.change(room, { change: name, actor: caller.userId, subjects, role: 0, signedChange: signedChange ?? null })
  return { status: 200, body: { conversation_id: id, revision: room.links.length } }
}
