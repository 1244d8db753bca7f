// [H-11] [I-6.8]: pages of other origins, and recovery by username.
import { randomBytes } from 'node:crypto'
import { usernames } from '@signalapp/libsignal-client'
import { base64, be, utf8 } from '../bytes.ts'
import { type Check, hold, same } from '../check.ts'
import { call, Device, otherThan } from '../device.ts'
import { enrolment } from '../enrolment.ts'
import { ok, refused } from '../http.ts'
import { DeviceKeys } from '../keys.ts'
import { Socket } from '../socket.ts'
import type { Kit } from '../world.ts'

export const browserChecks: Check<Kit>[] = [
  {
    clauses: ['H-11'],
    title: 'pages of an origin nobody listed are told nothing they may read; WebSockets are bound to no origin',
    async run(kit) {
      const device = await kit.user()
      const headers = { Origin: 'https://nobody-listed-this.example' }
      const answer = ok(await call(kit.relay, 'GET', '/v1/devices', { token: device.token, headers }), 200)
      same(answer.headers.get('access-control-allow-origin'), null, 'as Access-Control-Allow-Origin')
      const preflight = await call(kit.relay, 'OPTIONS', '/v1/devices', {
        headers: {
          ...headers,
          'Access-Control-Request-Method': 'GET',
          'Access-Control-Request-Headers': 'authorization',
        },
      })
      refused(preflight, 'NOT_FOUND', 'a preflight')
      const socket = await Socket.open(kit.relay.url, device.token, { headers })
      device.sockets.add(socket)
      await socket.next('hello')
      return 'no header, no preflight; a WebSocket with a token opens'
    },
  },
  {
    clauses: ['I-6.8', 'I-6.1'],
    title: 'a new identity may name its user by username_hash',
    async run(kit) {
      const alice = await kit.fresh()
      const name = `conformance_${randomBytes(6).toString('hex')}.42`
      const hash = usernames.hash(name)
      const proof = base64(usernames.generateProof(name))
      ok(await alice.put('/v1/username', { username_hash: base64(hash), proof }), 204)
      const keys = new DeviceKeys({ registrationId: otherThan(alice.keys.registrationId) })
      const nowMs = Date.now()
      const { json, published } = enrolment(keys, kit.relay.realm, { purpose: 'identity', nowMs })
      const signature = (subject: Uint8Array) =>
        base64(
          alice.keys.sign(
            Buffer.concat([utf8(`sealpost.v1 replace\0${kit.relay.realm}`), subject, keys.identityKey, be(nowMs, 8)]),
          ),
        )
      const put = (body: object) => call(kit.relay, 'PUT', '/v1/identity', { json: { ...json, ...body } })
      const unknown = randomBytes(32)
      refused(
        await put({ username_hash: base64(unknown), old_signature: signature(unknown) }),
        'FORBIDDEN',
        'a hash nobody holds',
      )
      refused(
        await put({ username_hash: base64(hash), old_signature: signature(alice.user) }),
        'FORBIDDEN',
        'a signature over the user id',
      )
      const answer = ok(await put({ username_hash: base64(hash), old_signature: signature(hash) }), 200)
      same(answer.body.user_id, alice.userId, 'as user')
      const me = kit.adopt(await Device.enrolled(kit.relay, keys, published, answer.body))
      const found = ok(await me.get(`/v1/usernames/${Buffer.from(hash).toString('base64url')}`), 200)
      hold(found.body.user_id === alice.userId, 'the name still held', found.body)
      return 'found by the hash, and the name is still held'
    },
  },
]
