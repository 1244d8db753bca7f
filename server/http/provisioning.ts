// What a primary device has for one that waits to be linked. The waiting side is a WebSocket: provisioning.ts. [I-5.3]
import { z } from 'zod'
import { binary } from '../../keys/wire.ts'
import { PROVISION_MAX_BYTES } from '../../proto/limits.ts'
import { type Route, route } from '../../proto/route.ts'
import type { Provisioning } from '../provisioning.ts'

const handed = z.strictObject({ message: binary })
/** Base64 of the most there may be, and the JSON around it; what is a little more is refused by its own size. */
const BODY_MAX_BYTES = 2 * PROVISION_MAX_BYTES

/** `PUT /v1/provisioning/{address}`. */
export const provisioningRoutes = ({ provisioning }: { provisioning: Provisioning }): Route[] => [
  route({
    method: 'PUT',
    path: '/v1/provisioning/:address',
    summary: 'Hand sealed bytes to the new device that waits at an address, once.',
    auth: 'device',
    body: handed,
    maxBodyBytes: BODY_MAX_BYTES,
    rate: { burst: 10, everyMs: 30_000 },
    async handle({ params, body }) {
      await provisioning.hand(params.address ?? '', body.message)
      return { status: 204 }
    },
  }),
]
