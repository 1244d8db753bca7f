// [I-6] [V-5]: a user who begins anew.
import { randomBytes, randomUUID } from 'node:crypto'
import { uuidFromBytes } from '../../../proto/ids.ts'
import { base64, base64url, be, sha256, utf8 } from '../bytes.ts'
import { type Check, hold, same } from '../check.ts'
import { call, Device, otherThan } from '../device.ts'
import { type EnrolmentJson, enrolment, type Published } from '../enrolment.ts'
import { type Answer, ok, refused, wordOf } from '../http.ts'
import { DeviceKeys } from '../keys.ts'
import type { Kit } from '../world.ts'

const put = (kit: Kit, json: EnrolmentJson): Promise<Answer> => call(kit.relay, 'PUT', '/v1/identity', { json })

type Anew = { json: EnrolmentJson; keys: DeviceKeys; published: Published; code: string }

/** New keys and the body that brings them, authorised by the old key or by a code. */
function anew(
  kit: Kit,
  user: Device,
  by: { code?: string; old?: DeviceKeys; registrationId?: number; nowMs?: number } = {},
): Anew {
  const { code, old = user.keys, registrationId = otherThan(user.keys.registrationId), nowMs = Date.now() } = by
  const keys = new DeviceKeys({ registrationId })
  const { json, published } = enrolment(keys, kit.relay.realm, { purpose: 'identity', code: code ?? '', nowMs })
  const head = utf8(`sealpost.v1 replace\0${kit.relay.realm}`)
  const message = Buffer.concat([head, user.user, keys.identityKey, be(nowMs, 8)])
  const proof = code === undefined ? { old_signature: base64(old.sign(message)) } : { recovery_code: code }
  return { json: { ...json, user_id: user.userId, ...proof }, keys, published, code: code ?? '' }
}

/** The device the user has now. */
const begun = async (kit: Kit, { keys, published }: Anew, answer: Answer): Promise<Device> =>
  kit.adopt(await Device.enrolled(kit.relay, keys, published, ok(answer, 200).body))

/** What stores or removes a recovery code. [I-6.3] */
function recoveryCode(user: Device, hash: Uint8Array | null, more: { nowMs?: number; keys?: DeviceKeys } = {}): object {
  const { nowMs = Date.now(), keys = user.keys } = more
  const head = utf8(`sealpost.v1 recovery\0${user.relay.realm}`)
  const message = Buffer.concat([head, user.user, hash ?? Buffer.alloc(32), be(nowMs, 8)])
  return { recovery_code_hash: hash && base64(hash), timestamp_ms: nowMs, signature: base64(keys.sign(message)) }
}
const newCode = (): string => base64url(randomBytes(16))

export const recoveryChecks: Check<Kit>[] = [
  {
    clauses: ['I-6', 'I-6.1', 'I-6.2', 'I-6.4', 'V-5', 'H-10', 'C-6.3'],
    title: 'with the old key’s signature a user begins anew on one device; the others go, and peers are told',
    async run(kit) {
      const [alice, bob] = [await kit.fresh(), await kit.user()]
      const conversation = await alice.direct(bob)
      const laptop = await alice.link()
      const [a, l, b] = await Promise.all([alice.live(), laptop.live(), bob.live()])
      await b.accepted(conversation, [alice.to(), laptop.to()])
      const next = anew(kit, alice)
      const me = await begun(kit, next, await put(kit, next.json))
      alice.links.splice(0)
      same([me.userId, me.deviceId], [alice.userId, 1], 'as user and device')
      for (const socket of [a, l]) same(await socket.end(), 4401, 'as close code of the former devices')
      for (const former of [alice, laptop])
        same((await former.get('/v1/devices')).status, 401, 'with a former token, HTTP')
      const event = await b.take((frame) => frame.envelope?.systemEvent?.identityChanged != null, 'IdentityChanged')
      const { conversationId, systemEvent } = event.envelope!
      same(conversationId?.length ?? 0, 0, 'as length of its conversation_id')
      const { userId, identityKey } = systemEvent!.identityChanged!
      same([uuidFromBytes(userId!), identityKey], [alice.userId, next.keys.identityKey], 'as user and key')
      same(ok(await me.get('/v1/devices'), 200).body.devices.length, 1, 'as count of devices')
      const bundle = ok(await bob.get(`/v1/keys/${alice.userId}/*`), 200).body
      same(
        [bundle.identity_key, bundle.devices.length],
        [base64(next.keys.identityKey), 1],
        'as identity key and devices in bundles',
      )
      const mine = await me.connect()
      const waiting = await mine.readAll()
      same(waiting.filter((each) => each.ciphertext).length, 0, 'of the former mail, as messages')
      const mismatch = (await b.send(conversation, [alice.to(), laptop.to()])).error?.deviceMismatch
      same(
        (mismatch?.stale ?? []).map((each) => [each.deviceId, each.registrationId]),
        [[1, me.keys.registrationId]],
        'as stale',
      )
      same(
        (mismatch?.extra ?? []).map((each) => each.deviceId),
        [laptop.deviceId],
        'as extra',
      )
      await b.accepted(conversation, [me.to()])
      return 'device 1 again under the new key; 4401, no tokens, no mail for the former; IdentityChanged at the peer; stale for senders'
    },
  },
  {
    clauses: ['I-6.1', 'I-6.2', 'I-6.4', 'I-6.6', 'E-2.2'],
    title: 'what does not authorise a new identity is FORBIDDEN alike; used keys are CONFLICT',
    async run(kit) {
      const alice = await kit.fresh()
      const stranger = new DeviceKeys()
      const wrong = refused(
        await put(kit, anew(kit, alice, { old: stranger }).json),
        'FORBIDDEN',
        'another’s signature',
      )
      const code = refused(
        await put(kit, anew(kit, alice, { code: newCode() }).json),
        'FORBIDDEN',
        'a code nobody stored',
      )
      const unknown = refused(
        await put(kit, { ...anew(kit, alice).json, user_id: randomUUID() }),
        'FORBIDDEN',
        'an unknown user',
      )
      const { old_signature: _, ...without } = anew(kit, alice).json
      const none = refused(await put(kit, without), 'FORBIDDEN', 'nothing')
      same(new Set([wrong, code, unknown, none].map((each) => each.text)).size, 1, 'as count of different answers')
      const both = { ...anew(kit, alice).json, recovery_code: newCode() }
      refused(await put(kit, both), 'INVALID_REQUEST', 'two at once')
      const sameId = anew(kit, alice, { registrationId: alice.keys.registrationId })
      refused(await put(kit, sameId.json), 'INVALID_REQUEST', 'the former registration id')
      const proofForRegistering = anew(kit, alice)
      const registering = proofForRegistering.keys.proof(proofForRegistering.published, {
        purpose: 'register',
        realm: kit.relay.realm,
      })
      const wrongPurpose = await put(kit, { ...proofForRegistering.json, identity_proof: registering })
      hold(
        wrongPurpose.status === 400 || wrongPurpose.status === 403,
        'a refusal for a proof of another purpose',
        wordOf(wrongPurpose),
      )
      const next = anew(kit, alice)
      await begun(kit, next, await put(kit, next.json))
      const again = enrolment(new DeviceKeys({ identity: alice.keys.identity }), kit.relay.realm)
      refused(
        await call(kit.relay, 'POST', '/v1/accounts', { json: { ...again.json, ...kit.world.invitation() } }),
        'CONFLICT',
        'registering a key that was given up',
      )
      return 'four FORBIDDEN word for word; a key once given up is CONFLICT at registration'
    },
  },
  {
    clauses: ['I-6.3', 'I-6.1', 'I-6.2', 'H-10'],
    title: 'a recovery code is stored by the primary with its signature, is good once, and is replaced or removed',
    async run(kit) {
      const alice = await kit.fresh()
      const laptop = await alice.link()
      const store = (by: Device, json: object) => by.put('/v1/recovery-code', json)
      const [old, code] = [newCode(), newCode()]
      const hash = (text: string) => sha256(utf8(text))
      refused(await store(laptop, recoveryCode(alice, hash(code))), 'FORBIDDEN', 'a linked device')
      refused(
        await store(alice, recoveryCode(alice, hash(code), { keys: new DeviceKeys() })),
        'INVALID_REQUEST',
        'another’s signature',
      )
      refused(
        await store(alice, recoveryCode(alice, hash(code), { nowMs: Date.now() - 700_000 })),
        'INVALID_REQUEST',
        'a time 11 minutes ago',
      )
      for (const text of [old, code]) ok(await store(alice, recoveryCode(alice, hash(text))), 204)
      refused(await put(kit, anew(kit, alice, { code: old }).json), 'FORBIDDEN', 'the code that was replaced')
      const next = anew(kit, alice, { code })
      const me = await begun(kit, next, await put(kit, next.json))
      alice.links.splice(0)
      refused(await put(kit, anew(kit, me, { code }).json), 'FORBIDDEN', 'the code a second time')
      const third = newCode()
      ok(await store(me, recoveryCode(me, hash(third))), 204)
      ok(await store(me, recoveryCode(me, null)), 204)
      refused(await put(kit, anew(kit, me, { code: third }).json), 'FORBIDDEN', 'a code that was removed')
      return 'stored by the primary’s word alone; replaced, used and removed codes FORBIDDEN'
    },
  },
  {
    clauses: ['I-6.5'],
    title: 'refused attempts are limited, known user or not, and keep nobody out who is authorised',
    async run(kit) {
      const alice = await kit.fresh()
      for (const user_id of [alice.userId, randomUUID()]) {
        let refusedSoFar = 0
        let answer: Answer
        do {
          answer = await put(kit, { ...anew(kit, alice, { code: newCode() }).json, user_id })
          refusedSoFar++
        } while (answer.status === 403 && refusedSoFar < 12)
        refused(answer, 'RATE_LIMITED', `attempt ${refusedSoFar}`)
        same(refusedSoFar, 6, 'as number of the attempt that was limited')
      }
      const next = anew(kit, alice)
      await begun(kit, next, await put(kit, next.json))
      return 'RATE_LIMITED at the 6th for a user and for nobody; the rightful one got in all the same'
    },
  },
  {
    clauses: ['I-6.7'],
    title: 'who lost the answer begins anew once more, with the key brought before',
    async run(kit) {
      const alice = await kit.fresh()
      const first = anew(kit, alice)
      ok(await put(kit, first.json), 200)
      refused(await put(kit, anew(kit, alice).json), 'FORBIDDEN', 'the former key’s signature')
      const second = anew(kit, alice, { old: first.keys, registrationId: otherThan(first.keys.registrationId) })
      const me = await begun(kit, second, await put(kit, second.json))
      same(me.userId, alice.userId, 'as user')
      return 'the former key FORBIDDEN, the lost one’s signature good'
    },
  },
]
