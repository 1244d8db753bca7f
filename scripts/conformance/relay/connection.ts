// [C-1] [C-3] [C-5]: who may connect, what Hello says, one consumer per device.
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { uuidFromBytes } from '../../../proto/ids.ts'
import { type Check, hold, NotRun, same, there } from '../check.ts'
import { ok } from '../http.ts'
import { kindOf, Socket, UpgradeRefused, v1 } from '../socket.ts'
import type { Kit } from '../world.ts'

/** The status of a refused upgrade, or 101. */
async function upgradeStatus(kit: Kit, token: string | null, path = '/v1/ws'): Promise<number> {
  try {
    const socket = await Socket.open(kit.relay.url, token, { path })
    await socket.close()
    return 101
  } catch (error) {
    if (error instanceof UpgradeRefused) return error.status
    throw error
  }
}

export const connectionChecks: Check<Kit>[] = [
  {
    clauses: ['C-1', 'C-1.1', 'C-3'],
    title: 'a token in Authorization opens the connection, and Hello is the first frame',
    async run(kit) {
      const device = await kit.user()
      const socket = await device.open()
      const first = await socket.take(() => true, 'a first frame')
      same(kindOf(first), 'hello', 'as first frame')
      same(first.requestId, 0, 'request_id of Hello')
      return 'HTTP 101, then Hello with request_id 0'
    },
  },
  {
    clauses: ['C-1.2'],
    title: 'a token in the subprotocols opens the connection; exactly sealpost.v1 is answered',
    async run(kit) {
      const device = await kit.user()
      const socket = await device.open({ subprotocols: ['sealpost.v1', `bearer.${device.token}`] }, null)
      const headers = there(socket.upgraded, 'an upgrade answer').rawHeaders.join('\n')
      await socket.next('hello')
      same(socket.ws.protocol, 'sealpost.v1', 'as subprotocol')
      hold(!headers.includes(device.token), 'no token in the answer’s headers', 'the token')
      return 'Sec-WebSocket-Protocol: sealpost.v1, the token nowhere'
    },
  },
  {
    clauses: ['C-1.3'],
    title: 'without a valid token the upgrade is answered 401; one in the query string is not read',
    async run(kit) {
      const device = await kit.user()
      const [head, claims, signature] = device.token.split('.') as [string, string, string]
      const flipped = signature.startsWith('A') ? `B${signature.slice(1)}` : `A${signature.slice(1)}`
      const tries = {
        none: await upgradeStatus(kit, null),
        garbage: await upgradeStatus(kit, 'garbage'),
        'a wrong signature': await upgradeStatus(kit, `${head}.${claims}.${flipped}`),
        'in the query': await upgradeStatus(kit, null, `/v1/ws?access_token=${device.token}&token=${device.token}`),
      }
      for (const [what, status] of Object.entries(tries)) same(status, 401, `(token: ${what}) HTTP`)
      return `401 for ${Object.keys(tries).length} kinds of no token`
    },
  },
  {
    clauses: ['C-1.4', 'Q-2.4', 'S-1'],
    title: 'the sender of an envelope is the token’s device; each device gets its own ciphertext',
    async run(kit) {
      const { alice, bob, conversation, a, b } = await kit.pair()
      const laptop = await bob.link()
      const l = await laptop.live()
      const [one, two] = [bob.to(100), laptop.to(120)]
      const clientMessageId = Buffer.from(randomUUID().replaceAll('-', ''), 'hex')
      await a.accepted(conversation, [one, two], { clientMessageId })
      for (const [socket, sent] of [
        [b, one],
        [l, two],
      ] as const) {
        const { ciphertext } = await socket.message()
        same(uuidFromBytes(ciphertext!.senderUserId!), alice.userId, 'as sender')
        same(ciphertext!.senderDeviceId, alice.deviceId, 'as sending device')
        same(ciphertext!.clientMessageId, clientMessageId, 'as client_message_id')
        same(ciphertext!.content, sent.content, 'as content')
      }
      return 'two devices of one user, each with the bytes made for it, from the token’s user and device'
    },
  },
  {
    clauses: ['C-3.1', 'L-1'],
    title: 'Hello names realm, epoch, clock, limits, stock, and whose connection it is',
    async run(kit) {
      const device = await kit.fresh({ oneTime: 5, kyberOneTime: 3 })
      const { hello } = await device.connect()
      same(hello.realm, kit.relay.realm, 'as realm')
      same(hello.epoch?.length, 16, 'as length of the epoch')
      hold(
        Math.abs((hello.serverTimeMs ?? 0) - Date.now()) < 10 * 60_000,
        'a clock within 10 minutes of ours',
        hello.serverTimeMs,
      )
      same(uuidFromBytes(hello.userId!), device.userId, 'as user')
      same(hello.deviceId, device.deviceId, 'as device')
      same(hello.queueWaiting, false, 'as queue_waiting of a new device')
      same(
        {
          ec: hello.prekeyCounts?.ecOneTime,
          kyber: hello.prekeyCounts?.kyberOneTime,
          used: hello.prekeyCounts?.lastResortUsed,
        },
        { ec: 5, kyber: 3, used: false },
        'as prekey counts',
      )
      const limits = there(hello.limits, 'limits')
      const names = ['contentBytes', 'frameBytes', 'ackIds', 'pageMessages', 'pageBytes', 'groupMembers', 'devicesPerUser',
        'windowMessages', 'keysPerUpload', 'queueMessages', 'queueTtlMs'] as const // biome-ignore format: a list
      for (const name of names) hold((limits[name] ?? 0) > 0, `a limit ${name}`, limits[name])
      const again = await (await kit.user()).connect()
      same(again.hello.epoch, hello.epoch, 'on another connection, as epoch')
      return `realm ${hello.realm}, content ${limits.contentBytes}, queue ${limits.queueMessages}, stock 5 and 3`
    },
  },
  {
    clauses: ['C-3.3'],
    title: 'what is sent before Hello arrives is answered after it',
    async run(kit) {
      const device = await kit.fresh()
      const socket = await device.open()
      const ids = [1, 2, 3].map(() => socket.write({ ack: { messageIds: [] } }))
      const kinds: string[] = []
      for (let at = 0; at < 4; at++) kinds.push(kindOf(await socket.take(() => true, 'a frame')))
      same(kinds, ['hello', 'ackCommitted', 'ackCommitted', 'ackCommitted'], 'as frames')
      return `Hello, then ${ids.length} answers`
    },
  },
  {
    clauses: ['C-5'],
    title: 'a newer connection displaces the older with 4409, which is sent nothing more',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      const newer = await bob.live()
      same(await b.end(), 4409, 'as close code of the older')
      const before = b.frames.length
      await a.accepted(conversation, [bob.to()])
      await newer.message()
      same(b.frames.length, before, 'as count of frames on the older after its end')
      return '4409 for the older; the next message came to the newer alone'
    },
  },
  {
    clauses: ['C-5.2'],
    title: 'an ack that a displaced connection sent before its end is valid',
    async run(kit) {
      const { bob, conversation, a, b } = await kit.pair()
      await a.accepted(conversation, [bob.to()])
      const { messageId } = await b.message()
      b.write({ ack: { messageIds: [messageId!] } })
      const newer = await bob.connect()
      for (let tries = 0; ; tries++) {
        const waiting = await newer.readAll()
        if (waiting.length === 0) return 'acked and displaced at once: nothing waits on the newer connection'
        hold(tries < 20, 'the acked envelope to be gone', `${waiting.length} waiting`)
        await sleep(50)
      }
    },
  },
  {
    clauses: ['C-4'],
    title: 'the relay pings at least every 35 s',
    slow: 'takes 35 s',
    withinMs: 60_000,
    async run(kit) {
      const socket = await (await kit.user()).live()
      for (let waited = 0; socket.pings === 0 && waited < 36_000; waited += 100) await sleep(100)
      hold(socket.pings > 0, 'a ping within 35 s', 'none')
      return 'a ping came'
    },
  },
  {
    clauses: ['C-4'],
    title: 'a connection from which nothing comes for 120 s is dropped',
    slow: 'takes 2 minutes',
    withinMs: 200_000,
    async run(kit) {
      const socket = await (await kit.user()).open({ autoPong: false })
      await socket.next('hello')
      const began = performance.now()
      await socket.end(160_000)
      const seconds = Math.round((performance.now() - began) / 1000)
      hold(seconds >= 60, 'to be let live for 120 s', `closed after ${seconds} s`)
      return `dropped after ${seconds} s of silence`
    },
  },
  {
    clauses: ['C-6'],
    title: 'Reauthenticate with a fresh token is answered with its end',
    async run(kit) {
      const device = await kit.user()
      const socket = await device.live()
      const token = await device.refresh()
      const { exp } = claimsOf(token)
      const frame = await socket.ask({ reauthenticate: { token } })
      same(kindOf(frame), 'reauthenticated', 'as answer')
      const differs = Math.abs((frame.reauthenticated?.expiresAtMs ?? 0) - exp * 1000)
      hold(differs <= 1000, `expires_at_ms at the token’s end, ${exp * 1000}`, frame.reauthenticated)
      return `expires_at_ms ${frame.reauthenticated?.expiresAtMs}`
    },
  },
  {
    clauses: ['C-6.1'],
    title: 'a token that is invalid, or of another device, is UNAUTHENTICATED and the connection lives on',
    async run(kit) {
      const [device, other] = await kit.users(2)
      const socket = await device!.live()
      await socket.refused({ reauthenticate: { token: 'garbage' } }, 'UNAUTHENTICATED', 'a token that is none')
      await socket.refused({ reauthenticate: { token: other!.token } }, 'UNAUTHENTICATED', 'another user’s token')
      const laptop = await device!.link()
      await socket.refused({ reauthenticate: { token: laptop.token } }, 'UNAUTHENTICATED', 'another device’s token')
      await socket.fence()
      return 'three refusals, then an ack was answered'
    },
  },
  {
    clauses: ['C-6.2', 'C-8'],
    title: 'GoingAway comes from 30 s before the token’s end, and 4401 within 5 s of it',
    slow: 'takes as long as a token lives',
    withinMs: 3_700_000,
    async run(kit) {
      const device = await kit.user()
      const { exp } = claimsOf(device.token)
      const socket = await device.live()
      const leftMs = () => exp * 1000 - Date.now()
      if (leftMs() > 3_660_000) throw new NotRun(`the token lives for ${Math.round(leftMs() / 60_000)} minutes`)
      const keepAlive = setInterval(() => socket.write({ ack: { messageIds: [] } }), 20_000)
      try {
        const { goingAway } = await socket.take((frame) => frame.goingAway != null, 'GoingAway', leftMs() + 10_000)
        const atMs = leftMs()
        same(goingAway!.reason, v1.GoingAwayReason.GOING_AWAY_REASON_TOKEN_EXPIRED, 'as reason')
        hold(atMs < 40_000, 'GoingAway from 30 s before the end', `${Math.round(atMs / 1000)} s before`)
        same(await socket.end(leftMs() + 10_000), 4401, 'as close code')
        const late = -leftMs()
        hold(late > -6000 && late < 6000, '4401 within 5 s of the end', `${late} ms after it`)
        return `GoingAway ${Math.round(atMs / 1000)} s before the end, 4401 ${late} ms after it`
      } finally {
        clearInterval(keepAlive)
      }
    },
  },
  {
    clauses: ['C-6.3', 'I-3.2', 'T-2'],
    title: 'unlinking closes the device’s connection with 4401 at once and voids its token and secret',
    async run(kit) {
      const alice = await kit.user()
      const laptop = await alice.link()
      const socket = await laptop.live()
      ok(await alice.delete(`/v1/devices/${laptop.deviceId}`), 204)
      same(await socket.end(), 4401, 'as close code')
      same((await laptop.get('/v1/devices')).status, 401, 'with its token, HTTP')
      same(await upgradeStatus(kit, laptop.token), 401, 'with its token, the upgrade')
      const again = await laptop.refresh().then(
        () => 'a token',
        () => 'no token',
      )
      same(again, 'no token', 'for its secret')
      const other = await kit.user()
      await other.request(alice)
      ok(await other.get(`/v1/keys/${alice.userId}/1`), 200)
      const bundle = await other.get(`/v1/keys/${alice.userId}/${laptop.deviceId}`)
      same(bundle.status, 404, 'for its bundle, HTTP')
      return '4401, then 401 for its token, no token for its secret, no bundle'
    },
  },
]

/** The claims of a JWT, unchecked. */
export function claimsOf(token: string): { exp: number; iat: number; [name: string]: unknown } {
  return JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString())
}
