// What nodes tell each other. A hint says where to look, never what is true: the database and the presence store have the word, so
// a hint that is lost, late, doubled or out of order costs time at most (I11).
import type { Counts } from '../../keys/prekeys.ts'
import type { Uuid } from '../../proto/ids.ts'
import type { Delivery, Outgoing } from '../frames.ts'

/** Plain values and bytes: a hint crosses process borders. */
export type Hint =
  /** A row of this device's queue was committed. delivery is null when it is too large to carry along: its node reads it. I4 */
  | { kind: 'committed'; deviceKey: number; sequence: number; delivery: Delivery | null }
  /** The device may have rows nobody will announce. */
  | { kind: 'lookAgain'; deviceKey: number }
  /** A connection with this epoch is the device's consumer: older ones end, on whatever node. [C-5] */
  | { kind: 'takenOver'; deviceKey: number; epoch: number }
  /** The device is gone: whoever is connected as it is cut off, and no node remembers it. [C-6.3] [T-2] */
  | { kind: 'unlinked'; deviceKey: number }
  /** One-time prekeys run low. [K-6] */
  | { kind: 'keysLow'; deviceKey: number; counts: Counts }
  /** A frame for whatever devices of these users are connected: typing. The first thing to drop (I12). */
  | { kind: 'signal'; userIds: Uuid[]; frame: Outgoing }
  /** Another user's device acked messages this user sent; countable = each of them had its ciphertext. [G-3] */
  | { kind: 'acked'; userId: Uuid; messages: { messageId: Uuid; conversationId: Uuid }[]; countable: boolean }
  /** Somebody read on in a conversation of these users: later than `after` (null = from its beginning), up to `upTo`. [G-4] */
  | { kind: 'read'; userIds: Uuid[]; conversationId: Uuid; after: Uuid | null; upTo: Uuid }
  /** This user read on, on this device. [G-4.2] */
  | { kind: 'ownRead'; userId: Uuid; deviceKey: number; conversationId: Uuid; messageId: Uuid }
  /** Hints may have been lost, of this node or of all: what nothing else will ever tell is said again. */
  | { kind: 'again' }
  /** This user changed what he shows. [H-10] */
  | { kind: 'settings'; userId: Uuid }
  /** This user may have come or gone: the presence store knows. [G-2] */
  | { kind: 'presence'; userId: Uuid }
  /** A conversation changed, or who of it blocks whom; `moved` are the users it began or ceased to be shared with, `members` who is or was in it. */
  | { kind: 'conversation'; conversationId: Uuid; moved: Uuid[]; members: Uuid[] }
  /** For the new device that waits at this place, on this node; `from` wants to hear what became of it. [I-5.3] */
  | { kind: 'handed'; node: string; from: string; request: Uuid; place: string; sealed: Uint8Array }
  /** It was taken, or nobody was there to take it. */
  | { kind: 'taken'; node: string; request: Uuid; taken: boolean }

/** What a node can listen to; every node hears of conversations and of devices that are gone. */
export type Channel = `device:${number}` | `user:${Uuid}` | `presence:${Uuid}` | `node:${string}`

/** One node's end of the bus. No method throws or waits. */
export type Bus = {
  /**
   * Hints for this channel come here, as far as they come at all. Joining twice is joining once.
   * @returns resolves when they do, or when that is not to be had now; never rejects.
   */
  join(channel: Channel): Promise<void>
  leave(channel: Channel): void
  /**
   * To every node that joined a channel of the hint, this one included, each once; a hint for several users comes once, or once
   * for each of them with him alone. Never before publish has returned.
   */
  publish(hint: Hint): void
  close(): Promise<void>
}

/** Makes one node's end. `receive` gets its hints; one that throws is no reason to lose the next. */
export type OpenBus = (receive: (hint: Hint) => void) => Bus

/** Where a hint goes; null = to every node. */
export function channelsOf(hint: Hint): Channel[] | null {
  switch (hint.kind) {
    case 'committed':
    case 'lookAgain':
    case 'takenOver':
    case 'keysLow':
      return [`device:${hint.deviceKey}`]
    case 'signal':
    case 'read':
      return hint.userIds.map((each): Channel => `user:${each}`)
    case 'acked':
    case 'ownRead':
    case 'settings':
      return [`user:${hint.userId}`]
    case 'handed':
    case 'taken':
      return [`node:${hint.node}`]
    case 'presence':
      return [`presence:${hint.userId}`]
    // Whichever node was asked by the device last may remember it; whichever has said something may have to say it again.
    case 'again':
    case 'unlinked':
    case 'conversation':
      return null
  }
}
