// Where a sealed message finds the connection that waits for it: by an address that only the two ends know. In this process; what
// joins several nodes takes this one's place behind Rendezvous. [I-5]

/** Takes the sealed bytes to the waiting connection. @returns false: it is not open. */
export type Take = (sealed: Uint8Array) => boolean

export type Rendezvous = {
  /**
   * Waits at an address.
   * @returns what ends the wait, harmless when it is over; null: somebody waits there already.
   */
  wait(address: string, take: Take): Promise<(() => void) | null>
  /** Hands a message over, once: the wait is over with it. @returns false: nobody took it. */
  hand(address: string, sealed: Uint8Array): Promise<boolean>
}

/** For one node. Holds an entry per waiting connection, and no message. */
export function openRendezvous(): Rendezvous {
  const waiting = new Map<string, Take>()
  return {
    async wait(address, take) {
      if (waiting.has(address)) return null
      waiting.set(address, take)
      return () => {
        // By then somebody else may wait there.
        if (waiting.get(address) === take) waiting.delete(address)
      }
    },
    // Nothing is awaited between the look and the end of the wait: the first wins. [I-5.2]
    async hand(address, sealed) {
      if (!waiting.get(address)?.(sealed)) return false
      waiting.delete(address)
      return true
    },
  }
}
