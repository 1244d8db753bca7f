// The settings resource. [H-10]
import { z } from 'zod'
import { type Route, route } from '../../proto/route.ts'
import type { Settings, SettingsStore } from '../settings.ts'

const changes = z.strictObject({ read_receipts: z.boolean().optional(), presence: z.boolean().optional() })

const body = ({ readReceipts, presence }: Settings) => ({ read_receipts: readReceipts, presence })

/** `GET` and `PATCH /v1/settings`. */
export const settingsRoutes = ({ settings }: { settings: SettingsStore }): Route[] => [
  route({
    method: 'GET',
    path: '/v1/settings',
    summary: 'What you show of yourself: read receipts and presence.',
    auth: 'device',
    handle: async ({ caller }) => ({ status: 200, body: body(await settings.get(caller.userId)) }),
  }),
  route({
    method: 'PATCH',
    path: '/v1/settings',
    summary: 'Switch read receipts or presence on or off.',
    auth: 'device',
    body: changes,
    // Each change makes the presence of all who watch be looked at again.
    rate: { burst: 20, everyMs: 10_000 },
    handle: async ({ caller, body: { read_receipts: readReceipts, presence } }) => ({
      status: 200,
      body: body(await settings.change(caller.userId, { readReceipts, presence })),
    }),
  }),
]
