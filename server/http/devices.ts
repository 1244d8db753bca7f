// The device resource. [H-5]
import { z } from 'zod'
import { invalid } from '../../proto/errors.ts'
import { isUuid } from '../../proto/ids.ts'
import { DEVICE_ID_MAX, DEVICE_ID_MIN } from '../../proto/limits.ts'
import { type Route, route } from '../../proto/route.ts'
import type { Devices } from '../devices.ts'
import { refusedLinkCode } from '../linkcodes.ts'
import { ENROLMENT_MAX_BYTES, enrolledAnswer, enrolmentFields, toEnrolment } from './enrolment.ts'

const linking = z.strictObject({
  ...enrolmentFields,
  user_id: z.string().refine(isUuid, 'is not a canonical UUID').nullish(),
  link_code: z.string().max(64).nullish(),
})

/** `POST /v1/devices/link-code`, `POST`, `GET /v1/devices`, `DELETE /v1/devices/{device_id}`. */
export const deviceRoutes = ({ devices }: { devices: Devices }): Route[] => [
  route({
    method: 'POST',
    path: '/v1/devices/link-code',
    summary: 'Make a code that lets one new device in, within ten minutes; primary device only.',
    auth: 'device',
    async handle({ caller, nowMs }) {
      const { code, expiresAtMs } = await devices.linkCode(caller, nowMs)
      const headers = { 'Cache-Control': 'no-store' }
      return { status: 201, headers, body: { link_code: code, expires_at_ms: expiresAtMs } }
    },
  }),
  route({
    method: 'POST',
    path: '/v1/devices',
    summary: "Link a new device under the user's identity key.",
    auth: 'none',
    body: linking,
    maxBodyBytes: ENROLMENT_MAX_BYTES,
    async handle({ body, bearer, nowMs }) {
      const permit = body.link_code ? { linkCode: body.link_code } : bearer ? { outsideToken: bearer } : null
      if (!permit) throw refusedLinkCode()
      return enrolledAnswer(await devices.link(body.user_id ?? null, permit, toEnrolment(body), nowMs))
    },
  }),
  route({
    method: 'GET',
    path: '/v1/devices',
    summary: "The user's own devices.",
    auth: 'device',
    async handle({ caller }) {
      const listed = (await devices.list(caller)).map((device) => ({
        device_id: device.deviceId,
        registration_id: device.registrationId,
        name: device.name,
        created_at_ms: device.createdAtMs,
      }))
      return { status: 200, body: { devices: listed } }
    },
  }),
  route({
    method: 'DELETE',
    path: '/v1/devices/:deviceId',
    summary: 'Unlink a device: its keys and its queue are deleted, its connections closed.',
    auth: 'device',
    async handle({ caller, params, nowMs }) {
      const deviceId = /^[1-9]\d{0,2}$/.test(params.deviceId ?? '') ? Number(params.deviceId) : 0
      if (deviceId < DEVICE_ID_MIN || deviceId > DEVICE_ID_MAX) {
        throw invalid(`device_id is not between ${DEVICE_ID_MIN} and ${DEVICE_ID_MAX}`)
      }
      await devices.unlink(caller, deviceId, nowMs)
      return { status: 204 }
    },
  }),
]
