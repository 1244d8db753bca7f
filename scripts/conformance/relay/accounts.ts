// [I-1] [I-2]: accounts and the proofs that come with them.
import { base64 } from '../bytes.ts'
import { type Check, hold, same } from '../check.ts'
import { call, Device, otherThan } from '../device.ts'
import { type EnrolmentJson, enrolment } from '../enrolment.ts'
import { type Answer, ok, refused } from '../http.ts'
import { DeviceKeys } from '../keys.ts'
import type { Kit } from '../world.ts'

const post = (kit: Kit, json: EnrolmentJson): Promise<Answer> =>
  call(kit.relay, 'POST', '/v1/accounts', { json: { ...json, ...kit.world.invitation() } })

export const accountChecks: Check<Kit>[] = [
  {
    clauses: ['I-1', 'I-1.3', 'H-4', 'H-5'],
    title: 'registration makes a user, device 1 and a secret of 43 characters, with its keys',
    async run(kit) {
      const keys = new DeviceKeys()
      const { json, published } = enrolment(keys, kit.relay.realm, { oneTime: 3 })
      const answer = ok(await post(kit, { ...json, name: 'phone' }), 201)
      const { user_id, device_id, device_secret } = answer.body
      hold(
        /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(user_id),
        'a UUIDv4 as user_id',
        user_id,
      )
      same(device_id, 1, 'as device_id')
      hold(/^[A-Za-z0-9_-]{43}$/.test(device_secret), '43 characters of base64url', device_secret.length)
      const other = await kit.user()
      await other.request({ userId: user_id })
      const bundle = ok(await other.get(`/v1/keys/${user_id}/1`), 200).body
      same(
        [bundle.identity_key, bundle.devices[0].registration_id],
        [base64(keys.identityKey), keys.registrationId],
        'as keys in its bundle',
      )
      const me = kit.adopt(await Device.enrolled(kit.relay, keys, published, answer.body))
      const [listed] = ok(await me.get('/v1/devices'), 200).body.devices
      same(
        [listed.device_id, listed.registration_id, listed.name],
        [1, keys.registrationId, 'phone'],
        'in the list of devices',
      )
      hold(listed.created_at_ms > 0, 'created_at_ms', listed)
      return 'device 1 with a secret, a bundle, and its name in the list'
    },
  },
  {
    clauses: ['I-1', 'H-4'],
    title: 'last-resort key, one-time keys and name may be absent; what breaks a rule registers nobody',
    async run(kit) {
      const device = await kit.fresh({ kyber: false, oneTime: 0 })
      same((await device.get('/v1/keys')).body.last_resort, null, 'as last_resort')
      const { json } = enrolment(new DeviceKeys(), kit.relay.realm)
      const broken: Record<string, EnrolmentJson> = {
        'a name of 129 characters': { ...json, name: 'n'.repeat(129) },
        'a name with a control character': { ...json, name: 'a\u0007b' },
        'registration id 0': { ...json, registration_id: 0 },
        'registration id 16,384': { ...json, registration_id: 16_384 },
        'a signed prekey by another': {
          ...json,
          signed_prekey: enrolment(new DeviceKeys(), kit.relay.realm).json.signed_prekey,
        },
        'a field that is none': { ...json, colour: 'red' },
      }
      for (const [what, body] of Object.entries(broken)) refused(await post(kit, body), 'INVALID_REQUEST', what)
      kit.world.registered++
      same((await post(kit, json)).status, 201, 'for the good body afterwards, HTTP')
      return `${Object.keys(broken).length} refused, then the same keys were registered`
    },
  },
  {
    clauses: ['I-1.1'],
    title: 'who may register: a missing or wrong invitation is FORBIDDEN where one is needed',
    async run(kit) {
      if (!kit.world.closedWithout) return 'this relay was not said to be closed (--invitation); anybody may register'
      const { json } = enrolment(new DeviceKeys(), kit.relay.realm)
      refused(await call(kit.relay, 'POST', '/v1/accounts', { json }), 'FORBIDDEN', 'no invitation')
      refused(
        await call(kit.relay, 'POST', '/v1/accounts', { json: { ...json, invitation: 'wrong' } }),
        'FORBIDDEN',
        'a wrong one',
      )
      return 'FORBIDDEN without and with a wrong one'
    },
  },
  {
    clauses: ['I-1.2'],
    title: 'one user per identity key',
    async run(kit) {
      const first = await kit.user()
      const keys = new DeviceKeys({ identity: first.keys.identity })
      const { json } = enrolment(keys, kit.relay.realm)
      refused(await post(kit, json), 'CONFLICT', 'an identity key that has a user')
      return 'CONFLICT'
    },
  },
  {
    clauses: ['I-2', 'I-2.1', 'I-2.2', 'I-2.4'],
    title: 'a proof for other keys, another purpose, realm or code, or by another key, is refused',
    async run(kit) {
      const { realm } = kit.relay
      const keys = new DeviceKeys()
      const other = new DeviceKeys({ identity: keys.identity, registrationId: otherThan(keys.registrationId) })
      const { json, published } = enrolment(keys, realm)
      const proofs: Record<string, object> = {
        'for linking': keys.proof(published, { purpose: 'link', realm }),
        'for another realm': keys.proof(published, { purpose: 'register', realm: `${realm}.example` }),
        'with a code': keys.proof(published, { purpose: 'register', realm, code: 'x' }),
        'by another identity key': new DeviceKeys({ registrationId: keys.registrationId }).proof(published, {
          purpose: 'register',
          realm,
        }),
        'for another registration id': other.proof(published, { purpose: 'register', realm }),
        'for another signed prekey': keys.proof(
          { ...published, signed: keys.signed(1) },
          { purpose: 'register', realm },
        ),
        'without the last-resort key': keys.proof({ ...published, lastResort: null }, { purpose: 'register', realm }),
      }
      for (const [what, identity_proof] of Object.entries(proofs))
        refused(await post(kit, { ...json, identity_proof }), 'INVALID_REQUEST', `a proof ${what}`)
      return `${Object.keys(proofs).length} kinds of wrong proof refused`
    },
  },
  {
    clauses: ['I-2.3', 'L-1'],
    title: 'a proof more than 10 minutes off is refused and the skew named',
    async run(kit) {
      const { realm } = kit.relay
      for (const minutes of [-11, 11]) {
        const { json } = enrolment(new DeviceKeys(), realm, { nowMs: Date.now() + minutes * 60_000 })
        const answer = refused(await post(kit, json), 'INVALID_REQUEST', `${minutes} minutes`)
        hold(/\d/.test(answer.body.error.message), 'the skew in the text', answer.body.error.message)
      }
      for (const minutes of [-9, 9]) await kit.fresh({ nowMs: Date.now() + minutes * 60_000 })
      return '±11 minutes refused, ±9 taken'
    },
  },
]
