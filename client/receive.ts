// One envelope, from the relay's word to a stored message: {session, prekeys, identity, plaintext, marks} in one transaction, and
// only then may it be acked. What cannot be read is stored raw and acked too: it will not get better.
import type { Uuid } from '../proto/ids.ts'
import { uuidV7 } from '../proto/ids.ts'
import { addressOf } from './book.ts'
import { answerComplaint, complain, noteSpoken } from './complaints.ts'
import { type Binding, type Body, checkBinding, isAmong, Unbound, unpack } from './content.ts'
import type { Conversations } from './conversations.ts'
import type { Core } from './core.ts'
import { Undecryptable } from './crypto.ts'
import { noteOffer } from './identities.ts'
import {
  type Held,
  held,
  hold,
  type Incoming,
  keepQuarantined,
  keepUnreadable,
  readIncoming,
  unreadable,
} from './incoming.ts'
import { addMessage } from './messages.ts'
import { noteClaim, takeNaming } from './names.ts'
import { enqueue, hasRoom } from './outbox.ts'
import { isHeartbeatDue } from './ratchet.ts'
import { isUnconfirmed, type Roster } from './roster.ts'
import { isSeen, type Mark, noteMessage, noteSeen } from './seen.ts'
import { Stage } from './stage.ts'
import type { Transaction } from './storage.ts'
import { type SystemHooks, takeSystemEvent } from './system.ts'
import { CIPHERTEXT, type Envelope, idOf, nameOf } from './wire.ts'

/** Events to raise once the transaction is committed. */
type Telling = (() => void)[]

/** Takes envelopes one at a time. */
export class Receiver {
  private readonly core: Core
  private readonly conversations: Conversations
  private readonly hooks: SystemHooks

  constructor(core: Core, conversations: Conversations, hooks: SystemHooks) {
    this.core = core
    this.conversations = conversations
    this.hooks = hooks
  }

  /** Everything of the envelope is durable when this resolves. @throws only what the store throws. */
  async take(envelope: Envelope): Promise<void> {
    const incoming = readIncoming(envelope)
    if (incoming) return this.takeIncoming(incoming, null)
    const mark = { messageId: idOf(envelope.messageId), sender: null, clientMessageId: '' }
    const telling: Telling = []
    this.core.storage.transaction((tx) => {
      if (isSeen(tx, mark)) return
      noteSeen(tx, mark, this.core.account.now())
      takeSystemEvent(this.core, this.conversations, tx, envelope, telling, this.hooks)
    })
    for (const tell of telling) tell()
  }

  /** Reads again what could not be read because its sender's key was not trusted. */
  async retryUntrusted(userId: Uuid): Promise<void> {
    const rows = this.core.storage.transaction((tx) => unreadable.scan(tx))
    for (const { record } of rows)
      if (record.sender.userId === userId && record.reason === 'untrusted_identity')
        await this.takeIncoming(record, record)
  }

  /** Decides about what was held, after the conversation's chain is known to the present. */
  review(conversationId: Uuid): void {
    const telling: Telling = []
    this.core.storage.transaction((tx) => {
      const rows = held.scan(tx, { prefix: `${conversationId}/` })
      while (this.confirm(tx, conversationId, () => rows.map(({ record }) => record), telling));
      const roster = this.conversations.rosterIn(tx, conversationId)
      if (!roster || isUnconfirmed(roster)) return
      for (const { key, record } of rows) {
        held.delete(tx, key)
        const reason = faultOf(roster, record)
        if (reason) this.shelve(tx, record, reason, telling)
        else this.show(tx, record, telling)
      }
    })
    for (const tell of telling) tell()
  }

  /** @param again the row it was kept in. */
  private async takeIncoming(incoming: Incoming, again: Incoming | null): Promise<void> {
    const { core } = this
    const mark: Mark = incoming
    const telling: Telling = []
    await core.mutex.run(async () => {
      if (!again && core.storage.transaction((tx) => isSeen(tx, mark))) return
      const stage = new Stage(core.storage)
      const store = (work: (tx: Transaction) => void) =>
        core.storage.transaction((tx) => {
          if (again) unreadable.delete(tx, again.messageId)
          noteSeen(tx, mark, core.account.now())
          work(tx)
        })
      if (incoming.withheld) return store((tx) => this.showWithheld(tx, incoming, telling))
      if (incoming.type === CIPHERTEXT.PLAINTEXT) return store((tx) => answerComplaint(core, tx, incoming))
      try {
        const { sender, type, content } = incoming
        const { plaintext, isNew } = await core.crypto.decrypt(stage, core.account.self, sender, type, content)
        store((tx) => {
          stage.apply(tx)
          this.takePlaintext(tx, incoming, plaintext, isNew, telling)
        })
      } catch (error) {
        if (!(error instanceof Undecryptable)) throw error
        store((tx) => this.keepRaw(tx, incoming, error, telling))
      }
    })
    for (const tell of telling) tell()
    this.hooks.queued(incoming.conversationId)
  }

  private takePlaintext(
    tx: Transaction,
    incoming: Incoming,
    plaintext: Uint8Array,
    isNew: boolean,
    telling: Telling,
  ): void {
    const { content: _, ...rest } = incoming
    let row: Held = { incoming: rest, body: {}, sentAtMs: 0, rosterHash: new Uint8Array(0), resendOf: '', username: '' }
    let parsed: { binding: Binding; body: Body }
    try {
      parsed = unpack(plaintext)
      row = { ...row, ...parsed.binding, body: parsed.body }
      checkBinding(parsed.binding, incoming)
    } catch (error) {
      if (!(error instanceof Unbound)) throw error
      this.shelve(tx, row, error.message, telling)
      return
    }
    const { body, binding } = parsed
    if (!body.heartbeat) this.answerQuietly(tx, incoming, isNew)
    if (binding.resendOf && !this.isWanted(tx, incoming, binding.resendOf)) return
    if (body.heartbeat) return
    this.place(tx, row, telling)
  }

  /** [P-5] Whether the first one was not read: otherwise a complaint of ours was forged. Taken note of. */
  private isWanted(tx: Transaction, { messageId, sender }: Incoming, resendOf: Uuid): boolean {
    const isIt = (each: Incoming) => each.clientMessageId === resendOf && nameOf(each.sender) === nameOf(sender)
    const raw = unreadable.scan(tx).find(({ record }) => isIt(record))
    if (raw) unreadable.delete(tx, raw.key)
    else if (isSeen(tx, { messageId: '', sender, clientMessageId: resendOf })) return false
    noteMessage(tx, messageId, sender, resendOf)
    return true
  }

  /** Who writes with a roster_hash says that this is the roster: it may be enough for changes whose signer's key is not known any more. */
  private confirm(tx: Transaction, conversationId: Uuid, rows: () => Held[], telling: Telling): boolean {
    const words = () => rows().map(({ incoming, rosterHash }) => ({ userId: incoming.sender.userId, rosterHash }))
    const isNew = this.conversations.confirmIn(tx, conversationId, { words })
    if (isNew) telling.push(() => this.core.events.emit('conversation', { conversationId }))
    return isNew
  }

  /** Shown, or held until the roster it was written for is known. Order within a conversation stays. [P-3.3] */
  private place(tx: Transaction, row: Held, telling: Telling): void {
    const { conversationId } = row.incoming
    const prefix = `${conversationId}/`
    this.confirm(tx, conversationId, () => [...held.scan(tx, { prefix }).map(({ record }) => record), row], telling)
    const roster = this.conversations.rosterIn(tx, conversationId)
    const waits = held.scan(tx, { prefix, limit: 1 }).length > 0
    if (!waits && roster && faultOf(roster, row) === null) this.show(tx, row, telling)
    else {
      for (const each of hold(tx, row)) this.shelve(tx, each, 'its members were not known for too long', telling)
      telling.push(() => this.hooks.unsettled(conversationId))
    }
  }

  private show(tx: Transaction, row: Held, telling: Telling): void {
    const { messageId, conversationId, sender, clientMessageId } = row.incoming
    this.takeNames(tx, row, telling)
    if (row.body.naming) return
    const isOwn = sender.userId === this.core.account.self.userId
    if (isOwn) noteSpoken(this.core, tx, conversationId)
    const message = addMessage(tx, {
      ...{ id: row.resendOf || clientMessageId, messageId, conversationId },
      ...{ senderUserId: sender.userId, senderDeviceId: sender.deviceId, sentAtMs: row.sentAtMs },
      ...{ state: isOwn ? 'sent' : 'received', failure: '', body: row.body, withheld: row.incoming.withheld !== 0 },
      // [G-3] Another device of ours wrote it: the relay tells this one, too, how far it comes.
      ...{ audience: isOwn ? this.othersIn(tx, conversationId) : 0, delivered: 0, read: 0 },
    })
    telling.push(() => this.core.events.emit('message', message))
  }

  private othersIn(tx: Transaction, conversationId: Uuid): number {
    const members = [...(this.conversations.rosterIn(tx, conversationId)?.members.keys() ?? [])]
    return members.filter((userId) => userId !== this.core.account.self.userId).length
  }

  // [P-6] [P-7]
  private takeNames(tx: Transaction, { incoming, body, username }: Held, telling: Telling): void {
    const { core } = this
    const { conversationId, sender } = incoming
    const self = core.account.self.userId
    const changed = body.naming && takeNaming(tx, conversationId, body.naming, self)
    const userIds = [...(changed?.userIds ?? [])]
    if (sender.userId !== self && noteClaim(tx, sender.userId, username, 'own')) userIds.push(sender.userId)
    for (const userId of userIds) telling.push(() => core.events.emit('user_named', { userId }))
    const groupName = changed?.groupName
    if (groupName)
      telling.push(() => core.events.emit('group_named', { conversationId, byUserId: sender.userId, groupName }))
  }

  private showWithheld(tx: Transaction, incoming: Incoming, telling: Telling): void {
    const { content: _, ...rest } = incoming
    const nothing = { body: {}, rosterHash: new Uint8Array(0), resendOf: '', username: '' }
    this.show(tx, { incoming: rest, sentAtMs: incoming.sentAtMs, ...nothing }, telling)
  }

  private shelve(tx: Transaction, row: Held, reason: string, telling: Telling): void {
    const { messageId, conversationId, sender } = row.incoming
    keepQuarantined(tx, row, reason)
    telling.push(() =>
      this.core.events.emit('quarantined', { messageId, conversationId, userId: sender.userId, reason }),
    )
  }

  private keepRaw(tx: Transaction, incoming: Incoming, error: Undecryptable, telling: Telling): void {
    const { events } = this.core
    const { messageId, conversationId, sender } = incoming
    const { reason, offered } = error
    keepUnreadable(tx, incoming, reason)
    if (offered && noteOffer(tx, sender.userId, offered))
      telling.push(() => events.emit('identity_changed', { userId: sender.userId, offered }))
    // A key that is not trusted is for the user to decide, not for the sender to repair.
    if (reason !== 'untrusted_identity') complain(this.core, tx, incoming)
    telling.push(() => events.emit('undecryptable', { messageId, conversationId, ...sender, reason }))
  }

  private answerQuietly(tx: Transaction, { sender, conversationId }: Incoming, isNew: boolean): void {
    if (!isHeartbeatDue(tx, sender, isNew) || !hasRoom(tx)) return
    enqueue(tx, {
      ...{ kind: 'heartbeat', clientMessageId: uuidV7(this.core.account.now()), conversationId, resendOf: '' },
      ...{ queuedAtMs: this.core.account.now(), to: [addressOf(this.core, tx, sender)], body: { heartbeat: true } },
    })
  }
}

/** Why a message is not to be shown under this roster; null = it is. */
function faultOf(roster: Roster, row: Held): string | null {
  if (!isAmong(row.rosterHash, roster.hashes)) return 'its sender sees other members than we do'
  // A former member may have written before the change.
  return roster.everybody.has(row.incoming.sender.userId) ? null : 'its sender is not in the roster'
}
