// What one's own devices were told of one's marks on this node, and what they could not be told yet. A mark that is left out is not told
// by anything that comes later: who reads on says another one, and who does not, none. So it is kept for as long as the session. [G-4.2]
import type { Uuid } from '../../proto/ids.ts'
import type { Session } from '../session.ts'
import { encodeSignal } from '../signal-codec.ts'
import type { Time } from '../time.ts'

/** This user's mark; as the hint of that kind. */
export type OwnRead = { userId: Uuid; deviceKey: number; conversationId: Uuid; messageId: Uuid }

type OwnReadsDeps = {
  sessions: { ofUser(userId: Uuid): Iterable<Session> }
  time: Time
}

/** Before a session that could not take a mark is asked again, milliseconds. */
const AGAIN_MS = 500
/** Marks kept for sessions that cannot take them, for one and in all; beyond it they are left out. I10 */
const SESSION_KEPT_MAX = 1_000
const KEPT_MAX = 50_000
/** Marks in one frame. */
const FRAME_MAX = 500
/** Conversations of a user of which the last mark that was told is known; the one told longest ago is forgotten. */
const TOLD_MAX = 100
/** And of all users; past it the user who was told longest ago is forgotten: what he repeats is told once more. I10 */
const TOLD_ALL_MAX = 100_000

export class OwnReads {
  private readonly deps: OwnReadsDeps
  /** User → conversation → mark, of users connected here. */
  private readonly told = new Map<Uuid, Map<Uuid, Uuid>>()
  private toldMarks = 0
  /** Conversation → mark. */
  private readonly kept = new Map<Session, Map<Uuid, Uuid>>()
  private keptMarks = 0
  private cancel: (() => void) | null = null

  constructor(deps: OwnReadsDeps) {
    this.deps = deps
  }

  /** A mark moved, on whatever node: to the user's other devices here, once. */
  tell(ownRead: OwnRead): void {
    if (this.wasTold(ownRead)) return
    const { userId, deviceKey, conversationId, messageId } = ownRead
    const frame = encodeSignal.statusUpdate(0, [], [{ conversationId, messageId }])
    let isHere = false
    let isLeftOut = false
    for (const session of this.deps.sessions.ofUser(userId)) {
      isHere = true
      if (session.caller.deviceKey === deviceKey) continue
      // Where others are kept it is kept with them: no mark comes behind a later one of its conversation.
      if (this.kept.has(session) || !session.signal(frame))
        isLeftOut = !this.keep(session, conversationId, messageId) || isLeftOut
    }
    if (isHere && !isLeftOut) this.remember(userId, conversationId, messageId)
  }

  /** Whether this mark was told, as far as is remembered here: a mark that was committed may have been told to nobody. */
  wasTold({ userId, conversationId, messageId }: OwnRead): boolean {
    return (this.told.get(userId)?.get(conversationId) ?? '') >= messageId
  }

  /** The session is over, and forgotten: what was kept for it goes to the one that took its place, between two polls. [C-9.8] */
  gone(session: Session): void {
    const { userId, deviceKey } = session.caller
    const marks = this.drop(session)
    let isHere = false
    for (const other of this.deps.sessions.ofUser(userId)) {
      isHere = true
      if (other.caller.deviceKey === deviceKey)
        for (const [conversationId, messageId] of marks) this.keep(other, conversationId, messageId)
    }
    if (!isHere) this.forget(userId)
  }

  stop(): void {
    this.cancel?.()
    this.cancel = null
  }

  private remember(userId: Uuid, conversationId: Uuid, messageId: Uuid): void {
    const marks = this.told.get(userId) ?? new Map<Uuid, Uuid>()
    const before = marks.get(conversationId) ?? ''
    this.toldMarks -= marks.size
    marks.delete(conversationId)
    marks.set(conversationId, messageId > before ? messageId : before)
    if (marks.size > TOLD_MAX) marks.delete(marks.keys().next().value!)
    this.toldMarks += marks.size
    this.told.delete(userId)
    this.told.set(userId, marks)
    if (this.toldMarks > TOLD_ALL_MAX) this.forget(this.told.keys().next().value!)
  }

  private forget(userId: Uuid): void {
    this.toldMarks -= this.told.get(userId)?.size ?? 0
    this.told.delete(userId)
  }

  /** @returns false when it is left out. */
  private keep(session: Session, conversationId: Uuid, messageId: Uuid): boolean {
    if (session.state === 'closed') return true
    const marks = this.kept.get(session) ?? new Map<Uuid, Uuid>()
    const before = marks.get(conversationId)
    if (before === undefined && (marks.size >= SESSION_KEPT_MAX || this.keptMarks >= KEPT_MAX)) return false
    if (before === undefined) this.keptMarks++
    if (before === undefined || messageId > before) marks.set(conversationId, messageId)
    this.kept.set(session, marks)
    this.cancel ??= this.deps.time.after(AGAIN_MS, () => this.again())
    return true
  }

  private again(): void {
    this.cancel = null
    for (const [session, marks] of this.kept) {
      if (session.state === 'closed') this.drop(session)
      if (!session.takesSignals) continue
      const some = [...marks].slice(0, FRAME_MAX)
      const reads = some.map(([conversationId, messageId]) => ({ conversationId, messageId }))
      if (!session.signal(encodeSignal.statusUpdate(0, [], reads))) continue
      for (const [conversationId] of some) marks.delete(conversationId)
      this.keptMarks -= some.length
      if (marks.size === 0) this.kept.delete(session)
    }
    if (this.kept.size > 0) this.cancel ??= this.deps.time.after(AGAIN_MS, () => this.again())
  }

  private drop(session: Session): Map<Uuid, Uuid> {
    const marks = this.kept.get(session) ?? new Map<Uuid, Uuid>()
    this.kept.delete(session)
    this.keptMarks -= marks.size
    return marks
  }
}
