// Typing: passed on to who is connected, and gone. Never stored, never echoed, dropped first. I12 [G-1]
import { openLocalMeters } from '../../keys/meter.ts'
import { RelayError } from '../../proto/errors.ts'
import type { Uuid } from '../../proto/ids.ts'
import { type Membership, notMember } from '../authorize.ts'
import type { Bus } from '../bus/bus.ts'
import type { Roster, Rosters } from '../rosters.ts'
import type { Session } from '../session.ts'
import { encodeSignal } from '../signal-codec.ts'
import type { Feature } from './feature.ts'

/** clock: Unix milliseconds. pressed: the relay has too much to do for signals. */
export type TypingDeps = {
  rosters: Pick<Rosters, 'recent'>
  bus: Pick<Bus, 'publish'>
  clock: () => number
  pressed(): boolean
  /** It was left out for that. */
  onLeftOut(): void
  /** Asked only when the roster has no place for the device. */
  membershipOf(conversationId: Uuid, userId: Uuid): Promise<Membership>
}

/** Per user and conversation: above it nobody is told. [G-1.4] */
const CONVERSATION_RATE = { burst: 5, everyMs: 1_000 }
/** Per device over all conversations, its own or not. */
const DEVICE_RATE = { burst: 30, everyMs: 100 }
/** Buckets remembered; past it the one idle longest starts afresh. I10 */
const MAX_BUCKETS = 100_000
/** Changes of a roster drop it on every node; this bounds what a lost hint costs, milliseconds. */
const ROSTER_MAX_AGE_MS = 30_000

/** The feature of Typing. */
export function typing(deps: TypingDeps): Feature<'typing'> {
  const open = openLocalMeters(deps.clock, MAX_BUCKETS)
  const conversations = open({ name: 'typing', rates: [CONVERSATION_RATE], whenGone: 'open' })
  /** Of each session the one being passed on: a stop must not overtake its start. */
  const turns = new WeakMap<Session, Promise<void>>()

  const tooOften = (userId: Uuid, conversationId: Uuid): boolean =>
    conversations.take(`${userId}${conversationId}`, 1) > 0

  async function rosterOf({ caller }: Session, conversationId: Uuid): Promise<Roster> {
    const recent = await deps.rosters.recent(conversationId, ROSTER_MAX_AGE_MS)
    if (recent?.byKey.has(caller.deviceKey)) return recent
    const membership = await deps.membershipOf(conversationId, caller.userId)
    // Nobody says that a device was linked: it may be younger than the roster.
    const fresh = membership === 'active' ? await deps.rosters.recent(conversationId, 0) : null
    if (!fresh?.byKey.has(caller.deviceKey)) throw notMember(membership)
    return fresh
  }

  async function pass(session: Session, conversationId: Uuid, isTyping: boolean): Promise<void> {
    const { userId, deviceId } = session.caller
    const roster = await rosterOf(session, conversationId)
    if (roster.archived) throw new RelayError('FORBIDDEN', 'the conversation is archived')
    if (tooOften(userId, conversationId)) return
    // Neither side is shown what the other does before both want the conversation. [V-6.3]
    if (roster.pendingUser !== null) return
    const others = new Set(roster.devices.map((each) => each.userId))
    others.delete(userId)
    // Nor who blocks the other. [V-7.3]
    for (const pair of roster.apart) if (pair.includes(userId)) for (const each of pair) others.delete(each)
    if (others.size === 0) return
    const frame = encodeSignal.typing({ conversationId, isTyping, userId, deviceId })
    deps.bus.publish({ kind: 'signal', userIds: [...others], frame })
  }

  return {
    kind: 'typing',
    rate: DEVICE_RATE,
    handle(session, { conversationId, isTyping }) {
      if (deps.pressed()) return deps.onLeftOut()
      const before = turns.get(session) ?? Promise.resolve()
      const passed = before.then(() => pass(session, conversationId, isTyping))
      turns.set(
        session,
        passed.catch(() => {}),
      )
      return passed
    },
  }
}
