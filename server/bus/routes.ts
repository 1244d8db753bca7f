// Which node has a device's consumer. Like all that nodes tell each other it says where to look, never what is true: the database
// keeps the epochs (I6), so a table that is emptied, old or wrong costs a question (I11).

/** @property node names one node's end. @property epoch of the connection it has. */
export type Route = { node: string; epoch: number }

/** One node's end of the table of routes. */
export type Routes = {
  /** This node has the device's consumer. Never throws; a lower epoch than is held changes nothing. */
  hold(deviceKey: number, epoch: number): void
  /** It has it no more. The route of another epoch stays. */
  release(deviceKey: number, epoch: number): void
  /** As hold, against a higher epoch that was found to be wrong. */
  insist(deviceKey: number, epoch: number): void
  /** @returns null: no node is known to. @throws when the table cannot be asked. */
  find(deviceKey: number): Promise<Route | null>
  /** The node goes down, and its routes with it. */
  close(): Promise<void>
}

/** Makes one node's end. `onNewer` is told when the table has a higher epoch than a device is held with: it may be taken over. */
export type OpenRoutes = (onNewer: (deviceKey: number, epoch: number) => void) => Routes

/** For the nodes of one process, usually one. */
export function openLocalRoutes(): OpenRoutes {
  const routes = new Map<number, Route>()
  let opened = 0
  return (onNewer) => {
    const node = `${++opened}`
    const held = new Map<number, number>()
    const release = (deviceKey: number, epoch: number): void => {
      if (held.get(deviceKey) === epoch) held.delete(deviceKey)
      if (routes.get(deviceKey)?.epoch === epoch) routes.delete(deviceKey)
    }
    return {
      hold(deviceKey, epoch) {
        if (epoch < (held.get(deviceKey) ?? 0)) return
        held.set(deviceKey, epoch)
        const there = routes.get(deviceKey)
        if (there && there.epoch > epoch) queueMicrotask(() => onNewer(deviceKey, there.epoch))
        else routes.set(deviceKey, { node, epoch })
      },
      release,
      insist(deviceKey, epoch) {
        if (held.get(deviceKey) === epoch) routes.set(deviceKey, { node, epoch })
      },
      find: async (deviceKey) => routes.get(deviceKey) ?? null,
      async close() {
        for (const [deviceKey, epoch] of [...held]) release(deviceKey, epoch)
      },
    }
  }
}
