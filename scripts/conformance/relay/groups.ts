// What the checks of conversations share: a group of three, its paths, and the roles in it.
import type { Device } from '../device.ts'
import type { Answer } from '../http.ts'
import type { Kit } from '../world.ts'

export type Trio = { alice: Device; bob: Device; carol: Device; group: string }

/** Alice's group with Bob and Carol. */
export async function trio(kit: Kit, more: object = {}): Promise<Trio> {
  const [alice, bob, carol] = (await kit.users(3)) as [Device, Device, Device]
  return { alice, bob, carol, group: await alice.group([bob, carol], more) }
}

/** Where a conversation is. */
export const at = (id: string): string => `/v1/conversations/${id}`

/** Entries as an object whose keys ascend. */
export const sorted = (entries: [string, string][]): Record<string, string> => Object.fromEntries(entries.sort())

/** User id → role of the active members in an answer. */
export const rolesIn = ({ body }: Answer): Record<string, string> =>
  sorted(
    (body.members ?? [])
      .filter((each: { state: string }) => each.state === 'active')
      .map((each: { user_id: string; role: string }) => [each.user_id, each.role]),
  )
