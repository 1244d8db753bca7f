// Where new devices wait, over all nodes: one end of it for each.

/** A place is the hash of an address, as text. */
export type Places = {
  /** Somebody waits there, at this node. @returns false: somebody waits there already. @throws when it cannot be said. */
  claim(place: string): Promise<boolean>
  /** He does no more. Never throws. */
  leave(place: string): void
  /** The node somebody waits at there; null = nobody does. @throws when it cannot be asked. */
  holder(place: string): Promise<string | null>
  close(): void
}
