// Read receipts: a mark per member, committed before it is confirmed; others learn of it gathered, one's own devices at once. [G-4]
import { invalid, type RelayError } from '../../proto/errors.ts'
import type { Uuid } from '../../proto/ids.ts'
import { notMember } from '../authorize.ts'
import type { Bus } from '../bus/bus.ts'
import type { Marked, ReadMarks } from '../read-marks.ts'
import type { Rosters } from '../rosters.ts'
import type { Session } from '../session.ts'
import type { Sessions } from '../sessions.ts'
import { encodeSignal, type ReadMark } from '../signal-codec.ts'
import type { Time } from '../time.ts'
import type { Feature } from './feature.ts'
import { type OwnRead, OwnReads } from './own-reads.ts'
import { openSaid } from './said.ts'

export type ReceiptsDeps = {
  marks: Pick<ReadMarks, 'move'>
  rosters: Pick<Rosters, 'recent'>
  bus: Pick<Bus, 'publish'>
  sessions: Pick<Sessions, 'ofUser'>
  time: Time
  /** A mark moved. */
  onRead(session: Session, mark: ReadMark): void
  /** An error nobody expected. */
  report(error: unknown): void
}

/** Marks of one conversation are told to its senders together, milliseconds: hundreds read a message at about the same time. */
const GATHER_MS = 100
/** Conversations gathered at once; beyond it they are left out, since a StatusRequest tells as well. I10 */
const GATHERED_MAX = 10_000
/** Who sent what is read is looked for among the members of so long ago at most, milliseconds. */
const ROSTER_MAX_AGE_MS = 30_000

type Gathered = { after: Uuid | null; upTo: Uuid }

/** The feature of ReadReceipt. */
export function receipts(deps: ReceiptsDeps): Feature<'receipt'> {
  const gathered = new Map<Uuid, Gathered>()
  const ownReads = new OwnReads(deps)
  const said = openSaid(deps.time, (ownRead: OwnRead) => deps.bus.publish({ kind: 'ownRead', ...ownRead }))
  let cancel: (() => void) | null = null

  function gather(conversationId: Uuid, after: Uuid | null, upTo: Uuid): void {
    const held = gathered.get(conversationId)
    if (held) {
      if (after === null || (held.after !== null && after < held.after)) held.after = after
      if (upTo > held.upTo) held.upTo = upTo
    } else if (gathered.size < GATHERED_MAX) gathered.set(conversationId, { after, upTo })
    cancel ??= deps.time.after(GATHER_MS, tell)
  }

  function tell(): void {
    cancel = null
    for (const [conversationId, { after, upTo }] of gathered) {
      deps.rosters
        .recent(conversationId, ROSTER_MAX_AGE_MS)
        .then((roster) => {
          const userIds = [...new Set(roster?.devices.map((each) => each.userId))]
          if (userIds.length > 0) deps.bus.publish({ kind: 'read', userIds, conversationId, after, upTo })
        })
        .catch(deps.report)
    }
    gathered.clear()
  }

  return {
    kind: 'receipt',
    rate: { burst: 100, everyMs: 100 },

    async handle(session, { requestId, conversationId, messageId }) {
      const { userId, deviceKey } = session.caller
      const marked = await deps.marks.move({ userId, conversationId, messageId })
      if (marked.standing !== 'member') throw refusalOf(marked.standing)
      session.connection.send(encodeSignal.readReceiptCommitted(requestId))
      const ownRead = { userId, deviceKey, conversationId, messageId }
      // Whoever lost the answer repeats it: the mark may have been committed by a node that ended before it told anybody.
      if (!marked.moved && !(marked.stands && !ownReads.wasTold(ownRead))) return
      deps.bus.publish({ kind: 'ownRead', ...ownRead })
      said.add(`${userId} ${conversationId}`, ownRead)
      if (!marked.moved) return
      deps.onRead(session, { conversationId, messageId })
      // Not for a repeat: from where it moved is not known any more, and every sender would count all of the conversation. A
      // StatusRequest tells as well. I10
      if (marked.shown) gather(conversationId, marked.previous, messageId)
    },

    hear(hint) {
      if (hint.kind === 'ownRead') ownReads.tell(hint)
      else if (hint.kind === 'again') said.again()
    },

    gone: (session) => ownReads.gone(session),

    stop() {
      cancel?.()
      ownReads.stop()
      said.stop()
    },
  }
}

function refusalOf(standing: Exclude<Marked['standing'], 'member'>): RelayError {
  return standing === 'unknown message' ? invalid('message_id is not of the conversation') : notMember(standing)
}
