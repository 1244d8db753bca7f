// What one's own user has read: told to the relay until it is committed there, and learnt of one's other devices. [G-4]
import { RelayError } from '../proto/errors.ts'
import { isUuid, type Uuid } from '../proto/ids.ts'
import type { Core } from './core.ts'
import {
  advanceMark,
  contradictions,
  countUnread,
  forgetTold,
  newestUnread,
  noteTold,
  ownMark,
  unreadConversations,
  untoldMarks,
} from './marks.ts'
import { isMessageOf } from './messages.ts'
import { askPatiently, Errand, type Signal } from './signal.ts'
import type { Cancel } from './time.ts'
import { idBytes, idOf, type ServerFrame } from './wire.ts'

/** Another device of one's own user has read everything up to that message. */
export type ReadEvent = { conversationId: Uuid; messageId: Uuid }

/** Conversations whose mark is asked for on one connection: those with the newest unread messages. */
const ASKED_MAX = 50
/** The frames that tell of other devices are hints, and one that is lost is told by no other: so often it is asked, more or less. */
const AGAIN_MS = 10 * 60_000
/** Half as often each time while the same is unread, down to once in so many of these spans. */
const AGAIN_SELDOM = 8
/** Conversations asked about then; the next ones the next time. */
const AGAIN_MAX = 10
/** After such a frame: it can come before the message it is about, which then counts as unread. */
const SOON_MS = 7_000
/** A message from later than this is none: it would make all that comes before it read. */
const AHEAD_MS = 10 * 60_000

/** One mark per conversation that only moves forward. */
export class Reads implements Signal {
  private readonly core: Core
  private readonly telling: Errand
  private readonly learning: Errand
  private readonly correcting: Errand
  private isTelling = false
  private again: Cancel = () => {}
  private soon: Cancel | null = null
  private turn = 0
  /** How often in a row the same was unread, and what. */
  private same = 0
  private wasUnread = ''

  constructor(core: Core, fail: (error: unknown) => void) {
    this.core = core
    this.telling = new Errand(fail)
    this.learning = new Errand(fail)
    this.correcting = new Errand(fail)
  }

  /** Everything up to that message is read, by the relay's message_id; absent = everything that came. @throws Error for a message that is not known in it. */
  mark(conversationId: Uuid, messageId?: Uuid): void {
    const moved = this.core.storage.transaction((tx) => {
      if (messageId !== undefined && !isMessageOf(tx, conversationId, messageId))
        throw new Error('no such message in this conversation')
      const to = messageId ?? newestUnread(tx, conversationId)
      return to !== null && advanceMark(tx, conversationId, to, false)
    })
    if (moved) this.tell()
  }

  /** Messages of others that came and were not read. */
  unread(conversationId: Uuid): number {
    return this.core.storage.transaction((tx) => countUnread(tx, conversationId))
  }

  /** The relay was restored: what it had committed is told once more. */
  retell(): void {
    this.core.storage.transaction(forgetTold)
    this.tell()
  }

  live(): void {
    // More than one Hello on one connection is a relay that lies: it gets no more of these questions.
    this.again()
    this.same = 0
    this.tell()
    this.learning.begin((isWanted) => this.learn(this.unreadOnes(), isWanted))
    this.learnAgain()
  }

  lost(): void {
    this.again()
    this.soon?.()
    this.soon = null
    this.telling.end()
    this.learning.end()
    this.correcting.end()
    this.isTelling = false
  }

  take({ statusUpdate }: ServerFrame): void {
    const ownReads = statusUpdate?.ownReads ?? []
    for (const { conversationId, messageId } of ownReads) this.apply(idOf(conversationId), idOf(messageId))
    if (ownReads.length === 0) return
    this.soon ??= this.core.time.after(SOON_MS, () => {
      this.soon = null
      this.correcting.begin(async (isWanted) => {
        await this.learn(this.core.storage.transaction(contradictions).slice(0, ASKED_MAX), isWanted)
      })
    })
  }

  async idle(): Promise<void> {
    await Promise.all([this.telling.idle(), this.learning.idle(), this.correcting.idle()])
  }

  private tell(): void {
    if (this.isTelling || !this.core.connection.isLive) return
    this.isTelling = true
    this.telling.begin((isWanted) => this.tellAll(isWanted))
  }

  // One at a time: of a conversation that is scrolled through, only the latest mark leaves.
  private async tellAll(isWanted: () => boolean): Promise<void> {
    const { storage } = this.core
    const skipped = new Set<Uuid>()
    try {
      while (isWanted()) {
        const next = storage.transaction(untoldMarks).find(({ conversationId }) => !skipped.has(conversationId))
        // In the same turn as `finally`: what is marked from now on finds nobody telling.
        if (!next) return
        const { conversationId, messageId } = next
        if (await this.isDone(conversationId, messageId, isWanted))
          storage.transaction((tx) => noteTold(tx, conversationId, messageId))
        else skipped.add(conversationId)
      }
    } finally {
      if (isWanted()) this.isTelling = false
    }
  }

  /** @returns whether the relay has it, or will never take it: a message it forgot, a conversation that was left. */
  private async isDone(conversationId: Uuid, messageId: Uuid, isWanted: () => boolean): Promise<boolean> {
    const readReceipt = { conversationId: idBytes(conversationId), messageId: idBytes(messageId) }
    try {
      return !!(await askPatiently(this.core, { readReceipt }, isWanted))?.readReceiptCommitted
    } catch (error) {
      if (!(error instanceof RelayError)) throw error
      return error.code !== 'INTERNAL'
    }
  }

  private unreadOnes(): Uuid[] {
    return this.core.storage.transaction((tx) => unreadConversations(tx, ASKED_MAX))
  }

  private learnAgain(): void {
    const { time } = this.core
    const everyMs = AGAIN_MS * Math.min(2 ** this.same, AGAIN_SELDOM)
    this.again = time.after(everyMs * (0.75 + time.random() / 2), () => {
      this.learning.begin(async (isWanted) => {
        const all = this.unreadOnes()
        const isUnread = all.map((id) => `${id} ${this.unread(id)}`).join()
        this.same = isUnread !== '' && isUnread === this.wasUnread ? this.same + 1 : 0
        this.wasUnread = isUnread
        const from = all.length > AGAIN_MAX ? (this.turn++ * AGAIN_MAX) % all.length : 0
        await this.learn([...all.slice(from), ...all.slice(0, from)].slice(0, AGAIN_MAX), isWanted)
      })
      this.learnAgain()
    })
  }

  // What was read elsewhere while this device was away comes in no frame. [G-4.2]
  private async learn(ids: Uuid[], isWanted: () => boolean): Promise<void> {
    const { account } = this.core
    for (const id of ids) {
      if (!isWanted()) return
      let upTo: Uuid | null | undefined
      try {
        upTo = (await account.http.call<{ read_up_to?: Uuid | null }>('GET', `/v1/conversations/${id}?limit=1`))
          .read_up_to
      } catch (error) {
        if (error instanceof RelayError) continue
        // The connection finds out by itself what ails it.
        return
      }
      // The mark this device set itself comes back as well: it says nothing of what came late and was not seen here.
      const own = this.core.storage.transaction((tx) => ownMark(tx, id)) ?? ''
      if (upTo && upTo > own && isWanted()) this.apply(id, upTo)
    }
  }

  private apply(conversationId: Uuid, messageId: Uuid): void {
    if (!isUuid(conversationId) || !isUuid(messageId)) return
    if (timeOf(messageId) > this.core.account.now() + AHEAD_MS) return
    const isNews = this.core.storage.transaction((tx) => {
      const before = countUnread(tx, conversationId)
      return advanceMark(tx, conversationId, messageId, true) || countUnread(tx, conversationId) !== before
    })
    if (isNews) this.core.events.emit('read', { conversationId, messageId })
  }
}

/** Unix milliseconds of a UUIDv7; of anything else a number that means nothing. */
const timeOf = (id: Uuid): number => Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16)
