// Message status: answered from the database, and told by itself as acks and read marks come in. [G-3]
//
// Told by itself means gathered: acks for a moment, so that many of them are one hint, and then the senders take turns. In a direct conversation an ack says all there is
// to know; otherwise the database counts, one statement at a time for all senders. What is left out because there is too much of
// it costs nothing but the surprise: a StatusRequest tells the same numbers.
import type { Uuid } from '../../proto/ids.ts'
import { STATUS_MAX_IDS } from '../../proto/limits.ts'
import type { Bus } from '../bus/bus.ts'
import type { Rosters } from '../rosters.ts'
import type { Sent } from '../session.ts'
import type { Sessions } from '../sessions.ts'
import { encodeSignal, type MessageStatus } from '../signal-codec.ts'
import type { Own, Statuses } from '../statuses.ts'
import { idAt } from '../sweep.ts'
import type { Time } from '../time.ts'
import type { Feature } from './feature.ts'
import { StatusBoard } from './status-board.ts'

export type StatusDeps = {
  statuses: Pick<Statuses, 'count' | 'senders'>
  rosters: Pick<Rosters, 'cached'>
  bus: Pick<Bus, 'publish'>
  sessions: Pick<Sessions, 'ofUser'>
  time: Time
  /** The relay has too much to do for signals: they wait. I12 */
  pressed(): boolean
  /** Told how many messages are remembered. */
  meter(messages: number): void
  /** An error nobody expected. */
  report(error: unknown): void
}

/** Acks wait for one slice, and everyone's turn comes once in so many: a second in all, milliseconds. [G-3.1] */
const SLICE_MS = 100
const SLICES = 9
/** Acks gathered at once; beyond it they are left out. I10 */
const GATHERED_MAX = 50_000
/** Messages in one frame. */
const FRAME_MAX = 250
/** Messages of one statement, and those that may wait for one; beyond it they are left out. I10 */
const COUNT_MAX = 500
const WAITING_MAX = 20_000

/** Between the nodes, milliseconds: they make the ids of messages. */
const CLOCKS_APART_MS = 10_000

/** The feature of StatusRequest and of StatusUpdate. */
export function status(deps: StatusDeps): Feature<'status'> {
  const board = new StatusBoard()
  const turns = Array.from({ length: SLICES }, () => new Set<Uuid>())
  let turn = 0
  let cancel: (() => void) | null = null
  /** By sender what was acked: with its ciphertext on this session's watch, or the database has to look. */
  const [countable, uncertain]: [Gathered, Gathered] = [new Map(), new Map()]
  let gathered = 0
  let cancelGathering: (() => void) | null = null
  let counting = false
  let waiting: Own[] = []

  function due(userId: Uuid): void {
    turns[Number.parseInt(userId.slice(-4), 16) % SLICES]!.add(userId)
    cancel ??= deps.time.after(SLICE_MS, slice)
  }

  function slice(): void {
    if (deps.pressed()) {
      cancel = deps.time.after(SLICE_MS, slice)
      return
    }
    const users = turns[turn]!
    turn = (turn + 1) % SLICES
    for (const userId of users) {
      const { tell, count } = board.take(userId)
      send(userId, tell)
      if (waiting.length + count.length <= WAITING_MAX)
        for (const messageId of count) waiting.push({ userId, messageId })
    }
    users.clear()
    deps.meter(board.messages)
    void countWaiting()
    cancel = turns.some((each) => each.size > 0) ? deps.time.after(SLICE_MS, slice) : null
  }

  async function countWaiting(): Promise<void> {
    if (counting) return
    counting = true
    try {
      while (waiting.length > 0) {
        const asked = waiting.splice(0, COUNT_MAX)
        const found = new Map((await deps.statuses.count(asked)).map((each) => [each.messageId, each]))
        const bySender = new Map<Uuid, MessageStatus[]>()
        for (const { userId, messageId } of asked) {
          const counted = found.get(messageId)
          if (counted) bySender.set(userId, [...(bySender.get(userId) ?? []), counted])
        }
        for (const [userId, statuses] of bySender) send(userId, board.counted(userId, statuses))
      }
    } catch (error) {
      waiting = []
      deps.report(error)
    } finally {
      counting = false
    }
  }

  function send(userId: Uuid, statuses: MessageStatus[]): void {
    for (let at = 0; at < statuses.length; at += FRAME_MAX) {
      const frame = encodeSignal.statusUpdate(0, statuses.slice(at, at + FRAME_MAX))
      for (const session of deps.sessions.ofUser(userId)) session.signal(frame)
    }
  }

  function gather({ senderId, messageId, conversationId }: Acked, into: Gathered): void {
    if (gathered >= GATHERED_MAX) return
    gathered++
    const its = into.get(senderId)
    if (its) its.push({ messageId, conversationId })
    else into.set(senderId, [{ messageId, conversationId }])
    cancelGathering ??= deps.time.after(SLICE_MS, publish)
  }

  /** Tells the senders, wherever they are connected. */
  function publish(): void {
    cancelGathering = null
    gathered = 0
    for (const into of [countable, uncertain]) {
      for (const [userId, messages] of into)
        deps.bus.publish({ kind: 'acked', userId, messages, countable: into === countable })
      into.clear()
    }
  }

  return {
    kind: 'status',
    rate: { burst: 30, everyMs: 1_000 },

    async handle({ caller, connection }, { requestId, messageIds }) {
      const asked = [...new Set(messageIds)].slice(0, STATUS_MAX_IDS)
      const statuses = await deps.statuses.count(asked.map((messageId) => ({ messageId, userId: caller.userId })))
      board.asked(caller.userId, statuses)
      connection.send(encodeSignal.statusUpdate(requestId, statuses))
    },

    acked(_session, envelopes, earlier) {
      for (const each of envelopes) if (hasSender(each)) gather(each, countable)
      if (earlier.length === 0) return
      deps.statuses
        .senders(earlier)
        .then((messages) => {
          for (const each of messages) gather(each, uncertain)
        })
        .catch(deps.report)
    },

    hear(hint) {
      if (hint.kind === 'acked') {
        for (const { messageId, conversationId } of hint.messages) {
          const roster = deps.rosters.cached(conversationId)
          // Where somebody has not accepted, or blocks the other, an ack says nothing yet: the database decides. [V-6.3] [V-7.3]
          const isOpen = roster?.kind === 'direct' && roster.pendingUser === null && roster.blockers.length === 0
          const direct = hint.countable && isOpen
          if (board.delivered(hint.userId, messageId, conversationId, direct ? 1 : null)) due(hint.userId)
        }
      } else if (hint.kind === 'read') {
        for (const userId of hint.userIds)
          if (board.read(userId, hint.conversationId, hint.after, hint.upTo)) due(userId)
      }
    },

    connected: ({ caller }) => board.open(caller.userId, idAt(deps.time.now() + CLOCKS_APART_MS)),

    gone({ caller }) {
      for (const _other of deps.sessions.ofUser(caller.userId)) return
      board.forget(caller.userId)
    },

    stop() {
      cancel?.()
      cancelGathering?.()
    },
  }
}

type Acked = { senderId: Uuid; messageId: Uuid; conversationId: Uuid }
type Gathered = Map<Uuid, { messageId: Uuid; conversationId: Uuid }[]>

const hasSender = (sent: Sent): sent is Sent & { senderId: Uuid; conversationId: Uuid } =>
  sent.senderId !== null && sent.conversationId !== null
