// [I-3] [I-4]: the devices of a user, linked and unlinked.
import { type Check, hold, NotRun, same } from '../check.ts'
import { call, Device, otherThan } from '../device.ts'
import { type EnrolmentJson, enrolment } from '../enrolment.ts'
import { type Answer, codeOf, ok, refused } from '../http.ts'
import { DeviceKeys, type Lasting } from '../keys.ts'
import type { Kit } from '../world.ts'

/** The body that links a device, with a code the primary asked for unless one is given. */
async function linking(kit: Kit, primary: Device, options: { code?: string; keys?: DeviceKeys } = {}) {
  const code: string = options.code ?? ok(await primary.post('/v1/devices/link-code'), 201).body.link_code
  const keys =
    options.keys ??
    new DeviceKeys({ identity: primary.keys.identity, registrationId: otherThan(primary.keys.registrationId) })
  const { json, published } = enrolment(keys, kit.relay.realm, { purpose: 'link', code })
  return { code, keys, published, json: { ...json, user_id: primary.userId, link_code: code } as EnrolmentJson }
}

const link = (kit: Kit, json: EnrolmentJson): Promise<Answer> => call(kit.relay, 'POST', '/v1/devices', { json })

export const linkingChecks: Check<Kit>[] = [
  {
    clauses: ['I-3', 'L-1'],
    title: 'a user has at most so many devices as Hello says',
    withinMs: 40_000,
    async run(kit) {
      const primary = await kit.fresh()
      const most = (await primary.connect()).hello.limits?.devicesPerUser ?? 10
      if (most > 20) throw new NotRun(`${most} devices are allowed here`)
      for (let at = 1; at < most; at++) await primary.link()
      const code = await primary.post('/v1/devices/link-code')
      const answer =
        code.status === 201 ? await link(kit, (await linking(kit, primary, { code: code.body.link_code })).json) : code
      refused(answer, 'CONFLICT', `device ${most + 1}`)
      return `${most} devices, then CONFLICT`
    },
  },
  {
    clauses: ['I-3', 'H-5'],
    title: 'the primary unlinks others, a linked device itself alone, and nobody the primary',
    async run(kit) {
      const primary = await kit.user()
      const [two, three] = [await primary.link(), await primary.link()]
      refused(await two.delete(`/v1/devices/${three.deviceId}`), 'FORBIDDEN', 'a linked device unlinking another')
      refused(await two.delete('/v1/devices/1'), 'FORBIDDEN', 'a linked device unlinking the primary')
      refused(await two.post('/v1/devices/link-code'), 'FORBIDDEN', 'a linked device asking for a link code')
      const self = await primary.delete('/v1/devices/1')
      hold(self.status >= 400 && self.status < 500, 'a refusal for unlinking the primary', self.status)
      ok(await two.delete(`/v1/devices/${two.deviceId}`), 204)
      refused(await primary.delete('/v1/devices/77'), 'NOT_FOUND', 'a device there is not')
      const numbers = (await primary.get('/v1/devices')).body.devices.map(
        (each: { device_id: number }) => each.device_id,
      )
      same(numbers, [1, three.deviceId], 'as devices left')
      return `FORBIDDEN three times, ${codeOf(self)} for the primary; device ${two.deviceId} unlinked itself`
    },
  },
  {
    clauses: ['I-3.1', 'I-3.2'],
    title: 'a device number is not given again, and a new device has none of the mail of the unlinked one',
    async run(kit) {
      const { bob, conversation, a } = await kit.pair()
      const two = await bob.link()
      await a.accepted(conversation, [bob.to(), two.to()])
      ok(await bob.delete(`/v1/devices/${two.deviceId}`), 204)
      const next = await bob.link()
      hold(next.deviceId !== two.deviceId, 'another number', next.deviceId)
      const waiting = await (await next.connect()).readAll()
      same(waiting.filter((each) => each.ciphertext).length, 0, 'as messages that wait for the new one')
      await a.refused(
        {
          signalMessage: {
            clientMessageId: Buffer.alloc(16, 7),
            conversationId: Buffer.from(conversation.replaceAll('-', ''), 'hex'),
            scope: 1,
            recipients: [bob.to(), two.to()],
          },
        },
        'DEVICE_MISMATCH',
        'the unlinked device',
      )
      return `device ${two.deviceId}, then ${next.deviceId}, with an empty queue`
    },
  },
  {
    clauses: ['I-4', 'I-4.1', 'H-5', 'L-1'],
    title: 'a link code has 22 characters and is good once; wrong and used ones are FORBIDDEN alike',
    async run(kit) {
      const primary = await kit.user()
      const issued = ok(await primary.post('/v1/devices/link-code'), 201).body
      hold(/^[A-Za-z0-9_-]{22}$/.test(issued.link_code), '22 characters of base64url', issued.link_code)
      const lifeMs = issued.expires_at_ms - Date.now()
      hold(lifeMs > 8 * 60_000 && lifeMs < 12 * 60_000, 'an end in 10 minutes', `${Math.round(lifeMs / 1000)} s`)
      const { json, keys, published } = await linking(kit, primary, { code: issued.link_code })
      const answer = ok(await link(kit, json), 201)
      const device = await Device.enrolled(kit.relay, keys, published, answer.body)
      primary.links.push(device)
      same([answer.body.user_id, answer.body.device_id > 1], [primary.userId, true], 'as user, and as a number above 1')
      const again = await linking(kit, primary, { code: issued.link_code })
      const used = refused(await link(kit, again.json), 'FORBIDDEN', 'a used code')
      const wrong = refused(
        await link(kit, (await linking(kit, primary, { code: 'A'.repeat(22) })).json),
        'FORBIDDEN',
        'a wrong code',
      )
      same(used.text, wrong.text, 'as the whole answer of both')
      const other = await kit.user()
      const foreign = await linking(kit, other)
      refused(
        await link(kit, { ...foreign.json, link_code: (await linking(kit, primary)).code }),
        'FORBIDDEN',
        'another user’s code',
      )
      return `device ${device.deviceId} linked; used, wrong and foreign FORBIDDEN`
    },
  },
  {
    clauses: ['I-4.1'],
    title: 'a fourth link code voids the oldest',
    async run(kit) {
      const primary = await kit.fresh()
      const bodies = []
      for (let at = 0; at < 4; at++) bodies.push(await linking(kit, primary))
      refused(await link(kit, bodies[0]!.json), 'FORBIDDEN', 'the first of four')
      for (const each of bodies.slice(1)) {
        const answer = ok(await link(kit, each.json), 201)
        primary.links.push(await Device.enrolled(kit.relay, each.keys, each.published, answer.body))
      }
      return 'the first FORBIDDEN, the other three good'
    },
  },
  {
    clauses: ['I-4.1'],
    title: 'a link code ends after 10 minutes',
    slow: 'takes 10 minutes',
    withinMs: 700_000,
    async run(kit) {
      const primary = await kit.fresh()
      const { json, keys, published, code } = await linking(kit, primary)
      await new Promise((resolve) => setTimeout(resolve, 605_000))
      const proof = keys.proof(published, { purpose: 'link', realm: kit.relay.realm, code })
      refused(await link(kit, { ...json, identity_proof: proof }), 'FORBIDDEN', 'a code of 10 minutes ago')
      return 'FORBIDDEN after 605 s'
    },
  },
  {
    clauses: ['I-4.2'],
    title: 'another identity key than the user’s is refused, and the code is not spent',
    async run(kit) {
      const primary = await kit.user()
      const { code } = await linking(kit, primary)
      const stranger = await linking(kit, primary, { code, keys: new DeviceKeys() })
      refused(await link(kit, stranger.json), 'INVALID_REQUEST', 'another identity key')
      const right = await linking(kit, primary, { code })
      const answer = ok(await link(kit, right.json), 201)
      primary.links.push(await Device.enrolled(kit.relay, right.keys, right.published, answer.body))
      return 'INVALID_REQUEST, then the same code was good'
    },
  },
  {
    clauses: ['I-4.5', 'E-2.3'],
    title: 'a link whose answer was lost is the same device under the same code, with a later proof only',
    async run(kit) {
      const primary = await kit.user()
      const { link_code: code } = ok(await primary.post('/v1/devices/link-code'), 201).body
      const keys = new DeviceKeys({
        identity: primary.keys.identity,
        registrationId: otherThan(primary.keys.registrationId),
      })
      const nowMs = Date.now() - 60_000
      const { json, published } = enrolment(keys, kit.relay.realm, { purpose: 'link', code, nowMs })
      const body: EnrolmentJson = { ...json, user_id: primary.userId, link_code: code }
      const post = (change: object = {}) => call(kit.relay, 'POST', '/v1/devices', { json: { ...body, ...change } })
      const proof = (lasting: Lasting, at: number) => ({
        identity_proof: keys.proof(lasting, { purpose: 'link', realm: kit.relay.realm, code, nowMs: at }),
      })
      const first = ok(await post(), 201).body
      refused(await post(), 'FORBIDDEN', 'the same proof again')
      refused(await post(proof(published, nowMs - 1000)), 'FORBIDDEN', 'an earlier proof')
      const other = enrolment(keys, kit.relay.realm, { purpose: 'link', code })
      refused(await post({ ...other.json }), 'FORBIDDEN', 'other lasting keys')
      const again = ok(await post(proof(published, nowMs + 1000)), 201).body
      same([again.user_id, again.device_id], [first.user_id, first.device_id], 'as device')
      hold(again.device_secret !== first.device_secret, 'a new device secret', 'the same')
      primary.links.push(await Device.enrolled(kit.relay, keys, published, again))
      const listed = ok(await primary.get('/v1/devices'), 200).body.devices.length
      same(listed, 2, 'as devices of the user')
      return `device ${first.device_id} both times, a new secret; repeated, earlier and other proofs FORBIDDEN`
    },
  },
]
