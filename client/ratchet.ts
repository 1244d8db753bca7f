// Keeping sessions turning: a peer that only listens never lets the ratchet move, so it says something empty now and then.
import type { Uuid } from '../proto/ids.ts'
import type { Reader, Writer } from './storage.ts'
import { Table } from './tables.ts'
import { nameOf } from './wire.ts'

/** So many messages without a word of ours. */
const QUIET_FOR = 50

const unanswered = new Table<number>('unanswered')
type Peer = { userId: Uuid; deviceId: number }

/** We wrote to it. */
export const noteAnswered = (to: Writer, peer: Peer): void => unanswered.delete(to, nameOf(peer))

/** Counts a message of theirs. @returns whether a heartbeat is due: at the first of a session, and after 50 in silence. */
export function isHeartbeatDue(tx: Reader & Writer, peer: Peer, isNew: boolean): boolean {
  const count = (unanswered.get(tx, nameOf(peer)) ?? 0) + 1
  const due = isNew || count >= QUIET_FOR
  unanswered.put(tx, nameOf(peer), due ? 0 : count)
  return due
}
