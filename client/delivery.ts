// Getting the outbox's rows to the relay: one unaccepted send per conversation, the same bytes again when no answer comes, and then
// `failed`. A broken connection costs no attempt: the rows wait for the next.
import { RelayError } from '../proto/errors.ts'
import { WITHHELD } from './book.ts'
import { noteSpoken } from './complaints.ts'
import { DeviceGone, Disconnected } from './connection.ts'
import type { Core } from './core.ts'
import { FORGOTTEN, isForgottenNow, noteKnown } from './forgotten.ts'
import { Unreachable } from './http.ts'
import { changeMessage, type Message } from './messages.ts'
import type { Recipient } from './mismatch.ts'
import { busyConversations, firstRow, OUTBOX_MAX_AGE_MS, type OutboxRow, removeRow, rowAt, setAside } from './outbox.ts'
import { Pace } from './pace.ts'
import { noteAnswered } from './ratchet.ts'
import { LATER, rest } from './rest.ts'
import { type Sealer, Unsendable } from './send.ts'
import { noteSent } from './sentlog.ts'
import { type ClientBody, idBytes, idOf, refusal, Scope, type ServerFrame } from './wire.ts'

/** [S-9.6] */
const ANSWER_WITHIN_MS = 5000
/** Of what goes over HTTP. [C-9.4] */
const LARGE_WITHIN_MS = 60_000
const RETRY_AFTER_MS = [1000, 2000, 4000]
/** [S-4.5] */
const MAX_ROUNDS = 5

/** Nobody answered in time. */
class Unanswered extends Error {}
/** It cannot be sent; the message is the failure's name. */
class Failed extends Error {}

/** Runs while the connection is live. */
export class Delivery {
  private readonly core: Core
  private readonly sealer: Sealer
  private readonly fail: (error: unknown) => void
  private readonly known: (messageId: string) => void
  private readonly pace: Pace
  /** Conversations that are being worked on. */
  private readonly lanes = new Map<string, Promise<void>>()

  /** @param fail told when the store fails. @param known told of a message that an earlier connection had brought to the relay. */
  constructor(core: Core, sealer: Sealer, fail: (error: unknown) => void, known: (messageId: string) => void) {
    this.core = core
    this.sealer = sealer
    this.fail = fail
    this.known = known
    this.pace = new Pace(core.time, (ms) => rest(core, ms))
  }

  /** Looks for work, everywhere or in one conversation; harmless at any time. */
  flush(conversationId?: string): void {
    if (!this.core.connection.isLive) return
    const busy = conversationId === undefined ? this.core.storage.transaction(busyConversations) : [conversationId]
    for (const id of busy) {
      if (this.lanes.has(id)) continue
      // Taken before the lane runs: it may end at once.
      this.lanes.set(id, Promise.resolve())
      const lane = this.lane(id).catch(this.fail)
      if (this.lanes.has(id)) this.lanes.set(id, lane)
    }
  }

  /** Resolves when nothing is being sent. */
  async idle(): Promise<void> {
    while (this.lanes.size > 0) await Promise.all(this.lanes.values())
  }

  private async lane(conversationId: string): Promise<void> {
    try {
      while (this.core.connection.isLive) {
        const row = this.core.storage.transaction((tx) => firstRow(tx, conversationId))
        // In the same turn as `finally`: what is queued from now on finds no lane.
        if (!row) return
        try {
          await this.deliver(row)
        } catch (error) {
          if (error instanceof Failed) this.giveUp(row, error.message)
          else if (!(error instanceof Disconnected)) throw error
        }
      }
    } finally {
      this.lanes.delete(conversationId)
    }
  }

  private async deliver(first: OutboxRow): Promise<void> {
    const { core } = this
    let row = first
    for (let attempt = 0; ; ) {
      if (core.account.now() - row.queuedAtMs > OUTBOX_MAX_AGE_MS) throw new Failed('expired')
      if (row.rounds > MAX_ROUNDS) throw new Failed('devices_unsettled')
      try {
        if (row.recipients === null) row = await this.sealer.seal(row)
        // Everybody it was for is gone.
        if (row.to && row.recipients?.length === 0) return core.storage.transaction((tx) => removeRow(tx, row))
        const ready = row
        const answer = await this.pace.run(() => this.inItsTurn(ready))
        return answer ? this.accepted(row, answer) : undefined
      } catch (thrown) {
        const error = await this.explained(row, thrown)
        const waitMs = this.afterError(error, attempt)
        if (waitMs === null) {
          row = await this.repaired(row, error as RelayError)
          continue
        }
        if (isStrange(error)) attempt++
        await rest(core, waitMs)
        if (!core.connection.isLive) throw new Disconnected('the connection ended meanwhile')
        // It may have been given up or accepted while this waited.
        const now = core.storage.transaction((tx) => rowAt(tx, row.place))
        if (!now) return
      }
    }
  }

  private async repaired(row: OutboxRow, error: RelayError): Promise<OutboxRow> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.sealer.repair(row, error.mismatch!)
      } catch (failure) {
        const waitMs = this.afterError(failure, attempt)
        if (waitMs === null) throw failure
        await rest(this.core, waitMs)
        if (!this.core.connection.isLive) throw new Disconnected('the connection ended meanwhile')
      }
    }
  }

  /** Two codes that a forgotten conversation has, too; its user is told which it is. @throws Disconnected. */
  private async explained(row: OutboxRow, error: unknown): Promise<unknown> {
    const mayBe = error instanceof RelayError && ['INVALID_REQUEST', 'NOT_FOUND'].includes(error.code)
    if (!mayBe || row.kind !== 'message' || !this.sealer.isKnown(row.conversationId)) return error
    const isGone = await isForgottenNow(this.core, row.conversationId).catch((why: unknown) => {
      if (why instanceof Unreachable) return false
      throw why instanceof DeviceGone ? new Disconnected('the device is gone') : why
    })
    return isGone ? new Failed(FORGOTTEN) : error
  }

  /** Milliseconds to wait; null = a mismatch to repair. @throws Failed or what is not ours. */
  private afterError(error: unknown, attempt: number): number | null {
    if (error instanceof Unanswered || error instanceof Unreachable) {
      const waitMs = RETRY_AFTER_MS[attempt]
      if (waitMs === undefined) throw new Failed('unanswered')
      return waitMs
    }
    if (error instanceof Unsendable) throw new Failed(error.message)
    // The connection finds out by itself.
    if (error instanceof DeviceGone) throw new Disconnected('the device is gone')
    if (!(error instanceof RelayError)) throw error
    if (error.code === 'DEVICE_MISMATCH' && error.mismatch) return null
    // [S-9.5] Nothing was stored; these waits are the relay's, and cost no attempt.
    if (LATER.includes(error.code)) return Math.max(error.retryAfterMs, 500)
    if (error.code === 'INTERNAL' && attempt === 0) return RETRY_AFTER_MS[0]!
    throw new Failed(error.code)
  }

  /** null: given up or accepted while it waited. */
  private async inItsTurn(row: OutboxRow): Promise<NonNullable<ServerFrame['messageAccepted']> | null> {
    if (!this.core.connection.isLive) throw new Disconnected('the connection ended meanwhile')
    return this.core.storage.transaction((tx) => rowAt(tx, row.place)) ? this.transmit(row) : null
  }

  private async transmit(row: OutboxRow): Promise<NonNullable<ServerFrame['messageAccepted']>> {
    const body = frameOf(row)
    const { connection } = this.core
    const { frameBytes, contentBytes } = connection.limits
    if (row.recipients?.some((each) => each.content.length > contentBytes)) throw new Failed('TOO_LARGE')
    const bytes = (row.recipients ?? []).reduce((sum, each) => sum + each.content.length + 40, 200)
    if (bytes > connection.largestFrame) throw new Failed('TOO_LARGE')
    const { promise, cancel } = this.timeout(bytes > frameBytes ? LARGE_WITHIN_MS : ANSWER_WITHIN_MS)
    try {
      const answer = await Promise.race([connection.ask(body), promise])
      if (answer.error) throw refusal(answer.error)
      if (!answer.messageAccepted) throw new Unanswered('the answer was of another kind')
      return answer.messageAccepted
    } finally {
      cancel()
    }
  }

  private timeout(withinMs: number): { promise: Promise<never>; cancel: () => void } {
    let cancel = () => {}
    const promise = new Promise<never>((_, reject) => {
      cancel = this.core.time.after(withinMs, () => reject(new Unanswered('no answer in time')))
    })
    return { promise, cancel }
  }

  private accepted(row: OutboxRow, answer: NonNullable<ServerFrame['messageAccepted']>): void {
    const { core } = this
    const nowMs = core.account.now()
    noteKnown(core, row.conversationId)
    const changed = core.storage.transaction((tx) => {
      removeRow(tx, row)
      const recipients = row.recipients ?? []
      for (const each of recipients) if (!each.withheld) noteAnswered(tx, each)
      if (row.kind !== 'message') return null
      const { clientMessageId, conversationId, body } = row
      noteSpoken(core, tx, conversationId)
      const sentAtMs = answer.sentAtMs ?? nowMs
      noteSent(tx, { clientMessageId, conversationId, sentAtMs, body, recipients, resends: {} }, nowMs)
      const audience = audienceOf(recipients, core.account.self.userId)
      return this.show(tx, row, { state: 'sent', messageId: idOf(answer.messageId), audience })
    })
    if (!changed) return
    // Receipts may have come first: who waits for `sent` is told it all the same.
    if (changed.state !== 'sent')
      core.events.emit('message_changed', { ...changed, state: 'sent', delivered: 0, read: 0 })
    core.events.emit('message_changed', changed)
    if (answer.duplicate) this.known(changed.messageId)
  }

  /** People decide about messages; what devices tell each other is dropped. */
  private giveUp(row: OutboxRow, failure: string): void {
    const changed = this.core.storage.transaction((tx) => {
      const now = rowAt(tx, row.place)
      if (!now) return null
      if (row.kind !== 'message') {
        removeRow(tx, row)
        return null
      }
      setAside(tx, now, failure)
      return this.show(tx, row, { state: 'failed', failure })
    })
    if (changed) this.core.events.emit('message_changed', changed)
  }

  private show(tx: Parameters<typeof changeMessage>[0], row: OutboxRow, change: Partial<Message>): Message | null {
    const { userId, deviceId } = this.core.account.self
    return changeMessage(tx, { senderUserId: userId, senderDeviceId: deviceId, id: row.clientMessageId }, change)
  }
}

/** Other users it was for, those left out by the clients' own roster aside: on acceptance every device of everybody was addressed. [S-4.1] */
const audienceOf = (recipients: Recipient[], self: string): number =>
  new Set(
    recipients
      .filter(({ userId, withheld }) => userId !== self && withheld !== 'not_in_roster')
      .map((each) => each.userId),
  ).size

const isStrange = (error: unknown): boolean => !(error instanceof RelayError) || error.code === 'INTERNAL'

/** The row as the relay takes it. In strict_e2e nothing is in clear. [S-1] [S-7.1] */
export const frameOf = (
  row: Pick<OutboxRow, 'clientMessageId' | 'conversationId' | 'to' | 'recipients'>,
): ClientBody => ({
  signalMessage: {
    clientMessageId: idBytes(row.clientMessageId),
    conversationId: idBytes(row.conversationId),
    scope: row.to ? Scope.SCOPE_SUBSET : Scope.SCOPE_ALL,
    recipients: (row.recipients ?? []).map(({ userId, deviceId, registrationId, type, content, withheld }) => ({
      ...{ userId: idBytes(userId), deviceId, registrationId },
      ...(withheld ? { withheld: WITHHELD[withheld] } : { ciphertextType: type, content }),
    })),
  },
})
