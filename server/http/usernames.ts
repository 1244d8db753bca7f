// The username resource. [H-7]
import { z } from 'zod'
import { invalid } from '../../proto/errors.ts'
import { type Route, route } from '../../proto/route.ts'
import type { Usernames } from '../usernames.ts'
import { base64Bytes } from './binary.ts'

const HASH_BYTES = 32
const PROOF_BYTES = 128

const claim = z.strictObject({ username_hash: base64Bytes(HASH_BYTES), proof: base64Bytes(PROOF_BYTES) })

/** `PUT` and `DELETE /v1/username`, `GET /v1/usernames/{hash}`. */
export const usernameRoutes = ({ usernames }: { usernames: Usernames }): Route[] => [
  route({
    method: 'PUT',
    path: '/v1/username',
    summary: 'Take a username, shown by its hash and a proof; releases the one held before.',
    auth: 'device',
    body: claim,
    // CONFLICT tells that a name is taken, as a look-up would, and each success locks a name for 30 days. [U-4]
    rate: { burst: 5, everyMs: 3_600_000 },
    async handle({ caller, body, nowMs }) {
      await usernames.set(caller.userId, body.username_hash, body.proof, nowMs)
      return { status: 204 }
    },
  }),
  route({
    method: 'DELETE',
    path: '/v1/username',
    summary: 'Release the username; it stays locked for its former owner for 30 days.',
    auth: 'device',
    async handle({ caller, nowMs }) {
      await usernames.release(caller.userId, nowMs)
      return { status: 204 }
    },
  }),
  route({
    method: 'GET',
    path: '/v1/usernames/:hash',
    summary: 'The user who holds a username hash, given as base64url.',
    auth: 'device',
    async handle({ caller, params }) {
      const hash = Buffer.from(params.hash ?? '', 'base64url')
      if (hash.length !== HASH_BYTES || hash.toString('base64url') !== params.hash) {
        throw invalid('hash is not 32 bytes in base64url without padding')
      }
      return { status: 200, body: { user_id: await usernames.find(caller.userId, hash) } }
    },
  }),
]
