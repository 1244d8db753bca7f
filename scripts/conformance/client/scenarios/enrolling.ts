// How a client registers, gets its token and connects. [I-1] [I-2] [K-1] [T-3] [C-1] [C-3]
import { PublicKey } from '@signalapp/libsignal-client'
import { be, fromBase64, sha256, utf8 } from '../../bytes.ts'
import { type Check, hold, same } from '../../check.ts'
import type { PrekeyJson } from '../../keys.ts'
import { refuse } from '../endpoints.ts'
import type { Stage } from '../stage.ts'

const isSigned = (identity: PublicKey, message: Uint8Array, signature: string): boolean =>
  identity.verify(Uint8Array.from(message), fromBase64(signature))

const keyBytes = (json: PrekeyJson): Uint8Array[] => [be(json.key_id, 4), fromBase64(json.public_key)]

export const enrolling: Check<Stage>[] = [
  {
    clauses: ['I-2', 'I-2.1', 'I-2.2', 'I-2.3', 'K-1', 'K-1.4', 'K-2.8'],
    title: 'registers with canonical, signed keys and a proof over exactly these',
    async run(stage) {
      await stage.register()
      const [request] = stage.relay.asked('POST', '/v1/accounts')
      const body = request!.json
      const identity = PublicKey.deserialize(fromBase64(body.identity_key))
      const [signed, last]: [PrekeyJson, PrekeyJson | undefined] = [body.signed_prekey, body.last_resort_kyber_prekey]
      const all: PrekeyJson[] = [signed, ...(last ? [last] : []), ...(body.one_time_kyber_prekeys ?? [])]
      for (const key of all)
        hold(
          isSigned(identity, fromBase64(key.public_key), key.signature ?? ''),
          `key ${key.key_id} signed by the identity key`,
          'a signature that is not',
        )
      for (const key of [signed, ...(body.one_time_prekeys ?? [])])
        same(
          [fromBase64(key.public_key).length, fromBase64(key.public_key)[0]],
          [33, 5],
          'as length and type of an EC key',
        )
      for (const key of [...(last ? [last] : []), ...(body.one_time_kyber_prekeys ?? [])])
        same(
          [fromBase64(key.public_key).length, fromBase64(key.public_key)[0]],
          [1569, 8],
          'as length and type of a Kyber key',
        )
      const { registration_id: id, identity_proof: proof } = body
      hold(Number.isInteger(id) && id >= 1 && id <= 16_383, 'a registration id of 1 to 16383', id)
      hold(Math.abs(proof.timestamp_ms - Date.now()) < 600_000, 'a proof of now', proof.timestamp_ms)
      const keys = [
        fromBase64(body.identity_key),
        be(id, 2),
        ...keyBytes(signed),
        ...(last ? [be(1, 1), ...keyBytes(last)] : [be(0, 1)]),
      ]
      const message = [
        utf8(`sealpost.v1 register\0${stage.relay.realm}`),
        sha256(),
        sha256(...keys),
        be(proof.timestamp_ms, 8),
      ]
      hold(
        isSigned(identity, Buffer.concat(message), proof.signature),
        'a proof that holds for these keys and this realm',
        'one that does not',
      )
      return `${all.length + (body.one_time_prekeys ?? []).length} keys, registration id ${id}, the proof holds`
    },
  },
  {
    clauses: ['K-2.3', 'K-2.6', 'K-1.5', 'L-1'],
    title: 'its key ids are in range and no id or key is there twice; at most 100 of a kind',
    async run(stage) {
      await stage.register()
      const body = stage.relay.asked('POST', '/v1/accounts')[0]!.json
      const ecs: PrekeyJson[] = body.one_time_prekeys ?? []
      const last: PrekeyJson[] = body.last_resort_kyber_prekey ? [body.last_resort_kyber_prekey] : []
      const kybers: PrekeyJson[] = [...(body.one_time_kyber_prekeys ?? []), ...last]
      for (const kind of [ecs, kybers])
        same(new Set(kind.map((each) => each.key_id)).size, kind.length, 'as count of different ids')
      const everything = [body.signed_prekey, ...ecs, ...kybers]
      same(new Set(everything.map((each) => each.public_key)).size, everything.length, 'as count of different keys')
      for (const { key_id } of everything)
        hold(Number.isInteger(key_id) && key_id >= 0 && key_id < 2 ** 31, 'ids of 0 to 2^31 − 1', key_id)
      hold(ecs.length <= 100 && kybers.length <= 101, 'at most 100 of a kind', [ecs.length, kybers.length])
      return `${ecs.length} EC and ${kybers.length} Kyber keys`
    },
  },
  {
    clauses: ['E-2.3', 'I-1.2'],
    title: 'a registration whose answer was lost is tried again, and after CONFLICT with another identity key',
    async run(stage) {
      const { relay } = stage
      let lost = false
      relay.script.answered = ({ path }, reply) => {
        if (path !== '/v1/accounts' || lost) return reply
        lost = true
        return 'hang up'
      }
      let tries = 0
      for (; tries < 6; tries++) {
        const done = await stage.register().then(
          () => true,
          () => false,
        )
        if (done) break
      }
      const bodies = relay.asked('POST', '/v1/accounts').map((each) => each.json.identity_key)
      hold(tries < 6, 'a registration in the end', `${bodies.length} tries`)
      hold(bodies.at(-1) !== bodies[0], 'another identity key than the one that was registered in vain', 'the same')
      return `${bodies.length} requests, the last with another identity key`
    },
  },
  {
    clauses: ['T-3', 'C-1.1', 'C-1.2', 'H-3'],
    title: 'gets a token by client_credentials and connects with it, in a header or a subprotocol, never in the query',
    async run(stage) {
      await stage.join()
      const [asked] = stage.relay.asked('POST', '/oauth/token')
      const { userId, deviceId, secret } = stage.relay.device
      if (!asked!.headers.authorization) {
        const { grant_type, client_id, client_secret } = asked!.json
        same([grant_type, client_id, client_secret], ['client_credentials', `${userId}.${deviceId}`, secret], 'as form')
      }
      const [upgrade] = stage.relay.asked('GET', '/v1/ws')
      hold([...upgrade!.query.keys()].length === 0, 'no query', [...upgrade!.query.keys()])
      for (const each of stage.relay.requests) {
        const text = `${each.path}?${each.query}`
        hold(![...stage.relay.tokens.keys(), secret].some((one) => text.includes(one)), 'no secret in a URL', each.path)
      }
      const offered = upgrade!.headers['sec-websocket-protocol']
      return upgrade!.headers.authorization
        ? 'Authorization: Bearer'
        : `subprotocols ${String(offered).replace(/bearer\.\S+/, 'bearer.…')}`
    },
  },
  {
    clauses: ['C-3.2'],
    title: 'another realm in Hello is another world: nothing is sent there, and it is not fought',
    async run(stage) {
      const { relay } = stage
      await stage.register()
      relay.script.hello = (hello) => ({ ...hello, realm: 'https://other.example' })
      relay.deliver({
        conversationId: new Uint8Array(0),
        systemEvent: { devicesChanged: { change: 1, deviceId: 2, registrationId: 7 } },
      })
      await stage.call('connect')
      await relay.when(() => relay.lines[0], 'a connection')
      await stage.pass(90_000, () => relay.lines.length > 3, 10_000)
      hold(relay.lines.length <= 3, 'no loop of connections', `${relay.lines.length} within 90 s`)
      const kinds = relay.frames.filter(
        (each) => each.signalMessage || each.syncRequest || (each.ack?.messageIds ?? []).length > 0,
      )
      same(kinds.length, 0, 'as frames with ids, cursors or messages of the other world')
      same(relay.acked.length, 0, 'as acks')
      return `${relay.lines.length} connection, state ${await stage.state()}, nothing of its own was said`
    },
  },
  {
    clauses: ['C-3.3'],
    title: 'before Hello it sends little or nothing',
    async run(stage) {
      const { relay } = stage
      await stage.register()
      relay.script.hello = () => null
      await stage.call('connect')
      const line = await relay.when(() => relay.lines[0], 'a connection')
      await stage.pass(1000, () => false, 500)
      hold(line.frames.length <= 64, 'at most 64 frames', line.frames.length)
      relay.script.hello = (hello) => hello
      if (line.closed === null) line.greet()
      await stage.ready(0)
      return `${line.frames.length} frames before Hello, live after it`
    },
  },
  {
    clauses: ['C-4.1'],
    title: 'answers pings',
    async run(stage) {
      const line = await stage.join()
      const before = line.pongs
      line.ws.ping()
      await stage.relay.when(() => line.pongs > before, 'a pong')
      return 'a pong'
    },
  },
  {
    clauses: ['C-2', 'C-2.1', 'C-2.4'],
    title: 'everything it sends is one binary ClientFrame, ids have 16 bytes, request ids in flight differ',
    async run(stage) {
      const { bob, conversation } = await stage.talk()
      for (const text of ['one', 'two', 'three']) await stage.say(conversation, text)
      await bob.say(conversation, 'four')
      await stage.shown(conversation, 'four')
      for (const line of stage.relay.lines) {
        same(line.strange, [], 'as messages that are no frames')
        const asked = line.frames
          .filter((each) => !each.typing)
          .map((each) => each.requestId ?? 0)
          .filter((each) => each !== 0)
        same(new Set(asked).size, asked.length, 'as count of different request ids')
        for (const { ack } of line.frames)
          for (const id of ack?.messageIds ?? []) same(id.length, 16, 'as length of an acked id')
      }
      return `${stage.relay.frames.length} frames`
    },
  },
  {
    clauses: ['T-1', 'H-3', 'E-1'],
    title: 'a token that an endpoint refuses is renewed, and the call made again',
    async run(stage) {
      const { relay } = stage
      await stage.join()
      const [bob] = [stage.person()]
      let refusals = 0
      const before = relay.asked('POST', '/oauth/token').length
      relay.script.http = ({ path }) =>
        path === '/v1/conversations' && refusals++ === 0 ? refuse(401, 'UNAUTHENTICATED') : null
      await stage.conversation('direct', [bob!])
      hold(relay.asked('POST', '/oauth/token').length > before, 'a new token', 'none')
      return `${refusals} calls, one new token`
    },
  },
]
