// From a checked frame to a committed message: dedupe, device set, commit. What is not committed here is not acknowledged anywhere (I1).
import { limited } from '../keys/meter.ts'
import { RelayError } from '../proto/errors.ts'
import { type Uuid, uuidV7 } from '../proto/ids.ts'
import type { Allowance } from './allowance.ts'
import { type Membership, notMember, route, unknownConversation } from './authorize.ts'
import { type Outcome, skippedBy } from './batch.ts'
import type { Sql } from './database.ts'
import type { Send, Sender } from './frames.ts'
import type { Roster, Rosters } from './rosters.ts'
import type { Writer } from './writer.ts'

export type MailboxDeps = {
  sql: Sql
  rosters: Rosters
  writer: Writer
  clock: () => number
  allowance: Allowance
  /** Asked only when a send is refused. */
  membershipOf(conversationId: Uuid, userId: Uuid): Promise<Membership>
}

export class Mailbox {
  private readonly deps: MailboxDeps
  private readonly inFlight = new Map<string, Promise<Outcome>>()

  constructor(deps: MailboxDeps) {
    this.deps = deps
  }

  /**
   * Hands a send to the writer; call it again for the next frame of the session as soon as `submitted` resolves, and order holds.
   * @returns `submitted`: settles when it is decided and in its lane, or refused; null = it already is. `outcome`: committed, or the
   * refusal (a RelayError or the database's error).
   */
  append(sender: Sender, send: Send): { submitted: Promise<void> | null; outcome: Promise<Outcome> } {
    const key = `${sender.deviceKey}.${send.clientMessageId}`
    const twin = this.inFlight.get(key)
    // Two copies in flight are one message. I2
    if (twin)
      return {
        submitted: Promise.resolve(),
        outcome: twin.then((first) => ({ ...first, duplicate: true, committed: [] })),
      }

    const { allowance } = this.deps
    const waiting = allowance.take(sender.userId, send.recipients.length)
    let outcome = waiting === 0 ? this.decideFromCache(sender, send) : null
    let submitted: Promise<void> | null = null
    let spent = waiting === 0
    if (!outcome) {
      const decided = this.whenAllowed(sender, send, waiting, () => {
        spent = true
      })
      submitted = decided.then(
        () => {},
        () => {},
      )
      outcome = decided.then((it) => it.outcome)
    }
    this.inFlight.set(key, outcome)
    const done = (back: 'all' | 'deliveries' | null): void => {
      this.inFlight.delete(key)
      // What stored nothing costs no deliveries; an attempt that was wrong stays a message. [S-9.4]
      if (spent && back)
        allowance.give(sender.userId, { messages: back === 'all' ? 1 : 0, deliveries: send.recipients.length })
    }
    outcome.then(
      ({ duplicate }) => done(duplicate ? 'all' : null),
      (error: unknown) =>
        done(error instanceof RelayError ? (error.code === 'OVERLOADED' ? 'all' : 'deliveries') : null),
    )
    return { submitted, outcome }
  }

  private submit(sender: Sender, send: Send, roster: Roster): Promise<Outcome> {
    const messageId = uuidV7(this.deps.clock())
    const entry = { sender, send, roster, ...route(sender, send, roster), overflow: [], messageId }
    return this.deps.writer.append(entry).catch(async (error: unknown) => {
      // The batch found that the sender is in the conversation no more: a former member is told so, a stranger is not. I13
      if (!(error instanceof RelayError) || error.code !== 'INVALID_REQUEST') throw error
      const why = await this.whyNotMember(sender, send)
      throw why.code === 'FORBIDDEN' ? why : error
    })
  }

  /** @returns null: nothing can be said without the database. */
  private decideFromCache(sender: Sender, send: Send): Promise<Outcome> | null {
    const cached = this.deps.rosters.cached(send.conversationId)
    if (!cached) return null
    try {
      return this.submit(sender, send, cached)
    } catch (error) {
      return error instanceof RelayError && error.code !== 'OVERLOADED' ? null : Promise.reject(error)
    }
  }

  /** @param spend called when the user's allowance was taken. @throws RelayError RATE_LIMITED. */
  private async whenAllowed(
    sender: Sender,
    send: Send,
    waiting: number | Promise<number>,
    spend: () => void,
  ): Promise<{ outcome: Promise<Outcome> }> {
    const waitMs = await waiting
    if (waitMs > 0) {
      // What was accepted is answered so, whatever the limits say. [S-2.1]
      const first = await this.firstAnswer(sender, send)
      if (!first) throw limited('too many messages', waitMs)
      return { outcome: Promise.resolve(first) }
    }
    spend()
    const outcome = waiting === 0 ? null : this.decideFromCache(sender, send)
    return outcome ? { outcome } : this.decideAfresh(sender, send)
  }

  /** The cached roster refused or is not there: the database has the word, and a known id is answered before any refusal. [S-2] */
  private async decideAfresh(sender: Sender, send: Send): Promise<{ outcome: Promise<Outcome> }> {
    const roster = await this.deps.rosters.load(send.conversationId)
    try {
      if (!roster) throw unknownConversation()
      return { outcome: this.submit(sender, send, roster) }
    } catch (error) {
      if (!(error instanceof RelayError) || error.code === 'OVERLOADED') throw error
      const first = await this.firstAnswer(sender, send)
      if (first) return { outcome: Promise.resolve(first) }
      if (roster?.byKey.has(sender.deviceKey)) throw error
      throw await this.whyNotMember(sender, send)
    }
  }

  private async firstAnswer(sender: Sender, send: Send): Promise<Outcome | null> {
    const [row] = await this.deps.sql<{ message_id: Uuid; sent_at: Date }[]>`
      select message_id, sent_at from messages where sender_device_key = ${sender.deviceKey} and client_message_id = ${send.clientMessageId}`
    if (!row) return null
    const skipped = (await skippedBy([row.message_id], this.deps.sql)).get(row.message_id) ?? []
    return { messageId: row.message_id, sentAtMs: row.sent_at.getTime(), duplicate: true, skipped, committed: [] }
  }

  private async whyNotMember(sender: Sender, send: Send): Promise<RelayError> {
    return notMember(await this.deps.membershipOf(send.conversationId, sender.userId))
  }
}
