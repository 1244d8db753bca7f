// The bus of nodes that share a process: usually one.
import { type Channel, channelsOf, type Hint, type OpenBus } from './bus.ts'

type Node = { channels: Set<Channel>; receive(hint: Hint): void }

/** @param report a receiver threw. @returns opens one node's end; all ends of one hub hear each other. */
export function openLocalHub(report: (error: unknown) => void): OpenBus {
  const nodes = new Set<Node>()
  let pending: { node: Node; hint: Hint }[] = []

  const deliver = (): void => {
    const now = pending
    pending = []
    for (const { node, hint } of now) {
      if (!nodes.has(node)) continue
      try {
        node.receive(hint)
      } catch (error) {
        report(error)
      }
    }
  }

  return (receive) => {
    const self: Node = { channels: new Set(), receive }
    nodes.add(self)
    return {
      join: async (channel) => void self.channels.add(channel),
      leave: (channel) => void self.channels.delete(channel),
      publish: (hint) => {
        const channels = channelsOf(hint)
        for (const node of nodes) {
          if (channels && !channels.some((each) => node.channels.has(each))) continue
          if (pending.length === 0) queueMicrotask(deliver)
          pending.push({ node, hint })
        }
      },
      close: async () => void nodes.delete(self),
    }
  }
}
