// What senders connected here were told of their messages, and what there is to tell or to count. No input, no output, no time. [G-3]
import type { Uuid } from '../../proto/ids.ts'
import type { MessageStatus } from '../signal-codec.ts'

/** tell: the numbers moved, and the sender was not told. count: the database knows by how much. Both may be due. */
type Entry = MessageStatus & { tell: boolean; count: boolean }
type Sender = {
  entries: Map<Uuid, Entry>
  isDue: boolean
  /** Later messages have nobody's mark upon them yet, as far as was heard: their first ack says all. */
  unreadFrom: Uuid
}

/** Messages remembered per sender and in all; past it the oldest is forgotten, since a StatusRequest tells as well. I10 */
const SENDER_MAX = 512
const BOARD_MAX = 200_000

export class StatusBoard {
  private readonly senders = new Map<Uuid, Sender>()
  /** Those with messages here, whoever got his first one first. Looking for them among all the others took as long as there are others. */
  private readonly holding = new Set<Sender>()
  private size = 0

  /** A device of the user is connected. @param lastId no message made before it is later; what is sent from now on is. */
  open(userId: Uuid, lastId: Uuid): void {
    if (!this.senders.has(userId)) this.senders.set(userId, { entries: new Map(), isDue: false, unreadFrom: lastId })
  }

  /**
   * Others have this message of the sender now. Nothing to anybody when the sender is not connected here.
   * @param delivered to how many, where that follows from the conversation (1 in a direct one); null = it has to be counted.
   * @returns whether there is something to tell or count that was not before.
   */
  delivered(userId: Uuid, messageId: Uuid, conversationId: Uuid, delivered: number | null): boolean {
    const sender = this.senders.get(userId)
    if (!sender) return false
    const entry = sender.entries.get(messageId) ?? this.enter(sender, messageId, conversationId)
    // Who has it may have read further on before.
    if (delivered === null || messageId <= sender.unreadFrom) entry.count = true
    else if (delivered <= entry.delivered) return false
    else {
      entry.delivered = delivered
      entry.tell = true
    }
    return this.mark(sender)
  }

  /** Somebody read on in a conversation, from after one message up to another: what is known there has to be counted. */
  read(userId: Uuid, conversationId: Uuid, after: Uuid | null, upTo: Uuid): boolean {
    const sender = this.senders.get(userId)
    if (!sender) return false
    if (upTo > sender.unreadFrom) sender.unreadFrom = upTo
    let found = false
    for (const entry of sender.entries.values()) {
      const { conversationId: its, messageId } = entry
      if (its !== conversationId || messageId > upTo || (after !== null && messageId <= after)) continue
      entry.count = true
      found = true
    }
    return found && this.mark(sender)
  }

  /** The sender asked about these: from here on he learns of what moves. His other devices were not told what he was. */
  asked(userId: Uuid, statuses: readonly MessageStatus[]): void {
    const sender = this.senders.get(userId)
    if (!sender) return
    for (const { messageId, conversationId } of statuses)
      if (!sender.entries.has(messageId)) this.enter(sender, messageId, conversationId)
  }

  /** What there is to do for this sender; none of it is due any more. */
  take(userId: Uuid): { tell: MessageStatus[]; count: Uuid[] } {
    const tell: MessageStatus[] = []
    const count: Uuid[] = []
    const sender = this.senders.get(userId)
    if (!sender) return { tell, count }
    sender.isDue = false
    for (const entry of sender.entries.values()) {
      // Numbers that are here count as told: what is counted after them is compared with them.
      if (entry.tell) tell.push(entry)
      if (entry.count) count.push(entry.messageId)
      entry.tell = entry.count = false
    }
    return { tell, count }
  }

  /** What the database counted. @returns what of it is news to the sender; numbers only grow. [G-3.3] */
  counted(userId: Uuid, statuses: readonly MessageStatus[]): MessageStatus[] {
    const sender = this.senders.get(userId)
    if (!sender) return []
    return statuses.filter(({ messageId, delivered, read }) => {
      const entry = sender.entries.get(messageId)
      if (!entry || (delivered <= entry.delivered && read <= entry.read)) return false
      entry.delivered = Math.max(entry.delivered, delivered)
      entry.read = Math.max(entry.read, read)
      return true
    })
  }

  /** Nobody of this user is connected here any more. */
  forget(userId: Uuid): void {
    const sender = this.senders.get(userId)
    if (!sender) return
    this.size -= sender.entries.size
    this.holding.delete(sender)
    this.senders.delete(userId)
  }

  /** Messages remembered. */
  get messages(): number {
    return this.size
  }

  private enter(sender: Sender, messageId: Uuid, conversationId: Uuid): Entry {
    const entry: Entry = { messageId, conversationId, delivered: 0, read: 0, tell: false, count: false }
    sender.entries.set(messageId, entry)
    this.holding.add(sender)
    this.size++
    if (sender.entries.size > SENDER_MAX) this.forgetOldest(sender)
    const [longest] = this.size > BOARD_MAX ? this.holding : []
    if (longest) this.forgetOldest(longest)
    return entry
  }

  private mark(sender: Sender): boolean {
    const news = !sender.isDue
    sender.isDue = true
    return news
  }

  private forgetOldest(sender: Sender): void {
    for (const oldest of sender.entries.keys()) {
      sender.entries.delete(oldest)
      this.size--
      if (sender.entries.size === 0) this.holding.delete(sender)
      return
    }
  }
}
