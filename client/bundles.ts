// Asking the key directory for bundles. What it answers is read here and believed nowhere.
import type { Uuid } from '../proto/ids.ts'
import { BUNDLE_MAX_TARGETS } from '../proto/limits.ts'
import type { Core } from './core.ts'
import type { Bundle } from './crypto.ts'
import { type BundleJson, readBundles } from './prekeys.ts'
import { nameOf } from './wire.ts'

type Target = { userId: Uuid; deviceId: number }

/**
 * Bundles of these devices by name; what has none, or a malformed one, is not in it. One-time keys are spent. [K-4] [K-5]
 * @throws RelayError RATE_LIMITED; the transport's error.
 */
export async function fetchBundles(core: Core, targets: Target[]): Promise<Map<string, Bundle>> {
  const found = new Map<string, Bundle>()
  for (let at = 0; at < targets.length; at += BUNDLE_MAX_TARGETS) {
    const page = targets.slice(at, at + BUNDLE_MAX_TARGETS)
    const json = { targets: page.map(({ userId, deviceId }) => ({ user_id: userId, device_id: deviceId })) }
    const answer = await core.account.http.call<{ bundles: BundleJson[] }>('POST', '/v1/keys/bundles', json)
    for (const each of answer.bundles) take(core, each, new Set(page.map(nameOf)), found)
  }
  return found
}

/** All devices of a user but this one. @returns empty for a user who has none. @throws like `fetchBundles`. */
export async function fetchUser(core: Core, userId: Uuid): Promise<Bundle[]> {
  const found = new Map<string, Bundle>()
  const answer = await core.account.http.call<BundleJson>('GET', `/v1/keys/${userId}/*`)
  take(core, { ...answer, user_id: userId }, null, found)
  return [...found.values()]
}

function take(core: Core, json: BundleJson, asked: Set<string> | null, found: Map<string, Bundle>): void {
  try {
    for (const bundle of readBundles(json)) {
      const name = nameOf({ userId: json.user_id, deviceId: bundle.deviceId })
      // A second key for one user in one reply, or an answer nobody asked for.
      const another = [...found].some(
        ([each, { identityKey }]) =>
          each.startsWith(json.user_id) && identityKey.some((b, i) => b !== bundle.identityKey[i]),
      )
      if ((asked && !asked.has(name)) || found.has(name) || another)
        core.events.emit('problem', {
          what: 'bad_bundle',
          detail: `the relay answered with keys of ${name} that were not asked for`,
        })
      else found.set(name, bundle)
    }
  } catch (error) {
    core.events.emit('problem', { what: 'bad_bundle', detail: String(error) })
  }
}
