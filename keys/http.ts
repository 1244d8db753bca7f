// The directory's HTTP routes. The socket layer serves them; the JSON is in wire.ts. [H-6]
import { invalid, RelayError } from '../proto/errors.ts'
import { isUuid } from '../proto/ids.ts'
import { DEVICE_ID_MAX } from '../proto/limits.ts'
import { type Route, route } from '../proto/route.ts'
import type { Directory } from './directory.ts'
import type { Target } from './prekeys.ts'
import { bundlesBody, bundlesJson, checkBody, countsJson, toDeviceKeys, uploadBody } from './wire.ts'

/** Largest body that carries keys, bytes: two full lists are about 240 KB. */
export const UPLOAD_MAX_BODY_BYTES = 1024 * 1024

// [K-4.6] A cached bundle would hand out its one-time keys again.
const NO_STORE = { 'Cache-Control': 'no-store' }

/** PUT and GET /v1/keys, POST /v1/keys/check, GET /v1/keys/{user_id}/{device_id or *}, POST /v1/keys/bundles. */
export const keyRoutes = (directory: Directory): Route[] => [
  route({
    method: 'PUT',
    path: '/v1/keys',
    summary: 'Publishes prekeys of the calling device, or replaces all its one-time keys.',
    auth: 'device',
    body: uploadBody,
    // 100 signatures and 200 rows each; an honest device uploads a few times a day.
    rate: { burst: 100, everyMs: 60_000 },
    maxBodyBytes: UPLOAD_MAX_BODY_BYTES,
    async handle({ caller, body }) {
      const upload = {
        ...toDeviceKeys(body),
        replace: body.replace ?? false,
        registrationId: body.registration_id ?? null,
      }
      return { status: 200, body: countsJson(await directory.publish(caller, upload)) }
    },
  }),
  route({
    method: 'GET',
    path: '/v1/keys',
    summary: 'Counts, ids and ages of the prekeys of the calling device.',
    auth: 'device',
    async handle({ caller }) {
      return { status: 200, body: countsJson(await directory.counts(caller.deviceKey)) }
    },
  }),
  route({
    method: 'POST',
    path: '/v1/keys/check',
    summary: 'Compares a digest that the calling device made of its own keys with what the relay holds.',
    auth: 'device',
    body: checkBody,
    async handle({ caller, body }) {
      return { status: 200, body: { match: await directory.check(caller, body.digest) } }
    },
  }),
  route({
    method: 'GET',
    path: '/v1/keys/:userId/:deviceId',
    summary: 'The bundle of one device, or with * of all devices of a user.',
    auth: 'device',
    async handle({ caller, params }) {
      const [bundles] = await directory.bundles(caller, [targetFrom(params)])
      // [K-4.4] I13
      if (!bundles) throw new RelayError('NOT_FOUND', 'no such device')
      return { status: 200, body: bundlesJson(bundles), headers: NO_STORE }
    },
  }),
  route({
    method: 'POST',
    path: '/v1/keys/bundles',
    summary: 'The bundles of up to 100 devices; those without one are left out.',
    auth: 'device',
    body: bundlesBody,
    async handle({ caller, body }) {
      const users = await directory.bundles(caller, body.targets)
      return { status: 200, body: { bundles: users.map(bundlesJson) }, headers: NO_STORE }
    },
  }),
]

function targetFrom({ userId = '', deviceId = '' }: Record<string, string>): Target {
  if (!isUuid(userId)) throw invalid('user_id is not a canonical UUID')
  if (deviceId === '*') return { userId, deviceId }
  if (!/^[1-9][0-9]{0,2}$/.test(deviceId) || Number(deviceId) > DEVICE_ID_MAX)
    throw invalid(`device_id is neither * nor between 1 and ${DEVICE_ID_MAX}`)
  return { userId, deviceId: Number(deviceId) }
}
