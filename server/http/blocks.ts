// The blocks resource. [H-13]
import { invalid } from '../../proto/errors.ts'
import { isUuid, type Uuid } from '../../proto/ids.ts'
import { type Route, route } from '../../proto/route.ts'
import type { Blocks } from '../blocks.ts'

/** Each change makes nodes forget what they hold of the two, and presence be looked at again. */
const RATE = { burst: 50, everyMs: 5_000 }

function userOf(params: Record<string, string>): Uuid {
  const { userId = '' } = params
  if (!isUuid(userId)) throw invalid('user_id is not a UUID in canonical lowercase form')
  return userId
}

/** `GET /v1/blocks`, and one user's `GET`, `PUT` and `DELETE /v1/blocks/{user_id}`. */
export const blockRoutes = ({ blocks }: { blocks: Blocks }): Route[] => [
  route({
    method: 'GET',
    path: '/v1/blocks',
    summary: 'Whom you block.',
    auth: 'device',
    handle: async ({ caller }) => ({
      status: 200,
      body: {
        blocks: (await blocks.list(caller.userId)).map(({ userId, blockedAtMs }) => ({
          user_id: userId,
          blocked_at_ms: blockedAtMs,
        })),
      },
    }),
  }),
  route({
    method: 'GET',
    path: '/v1/blocks/:userId',
    summary: 'Whether you block a user.',
    auth: 'device',
    handle: async ({ caller, params }) => ({
      status: 200,
      body: { blocked: await blocks.has(caller.userId, userOf(params)) },
    }),
  }),
  route({
    method: 'PUT',
    path: '/v1/blocks/:userId',
    summary: 'Want nothing of a user any more; he cannot tell.',
    auth: 'device',
    rate: RATE,
    handle: async ({ caller, params }) => {
      await blocks.block(caller.userId, userOf(params))
      return { status: 204 }
    },
  }),
  route({
    method: 'DELETE',
    path: '/v1/blocks/:userId',
    summary: 'End a block.',
    auth: 'device',
    rate: RATE,
    handle: async ({ caller, params }) => {
      await blocks.unblock(caller.userId, userOf(params))
      return { status: 204 }
    },
  }),
]
