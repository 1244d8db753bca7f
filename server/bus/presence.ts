// Who is online, over all nodes. A node says which users it has; who says nothing for long is gone with its users.
import type { Uuid } from '../../proto/ids.ts'

/** One node's end of the presence store. */
export type PresenceStore = {
  /** This node has a device of the user. Never throws; saying it twice is saying it once. */
  arrived(userId: Uuid): void
  /** It has none any more. */
  left(userId: Uuid): void
  /** Those of the users whom any node has. @throws when the store cannot be asked. */
  online(userIds: readonly Uuid[]): Promise<Set<Uuid>>
  /** The node goes down. */
  close(): Promise<void>
}

/** For the nodes of one process, usually one. @returns makes one node's end. */
export function openLocalPresence(): () => PresenceStore {
  const nodesOf = new Map<Uuid, Set<symbol>>()
  return () => {
    const node = Symbol('node')
    return {
      arrived(userId) {
        const nodes = nodesOf.get(userId)
        if (nodes) nodes.add(node)
        else nodesOf.set(userId, new Set([node]))
      },
      left(userId) {
        const nodes = nodesOf.get(userId)
        nodes?.delete(node)
        if (nodes?.size === 0) nodesOf.delete(userId)
      },
      close: async () => {},
      online: async (userIds) => new Set(userIds.filter((each) => nodesOf.has(each))),
    }
  }
}
