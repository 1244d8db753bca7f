// Who waits for the user's word, and whom the user wants nothing of: the relay is asked, what it said is kept, and what is over goes.
import { RelayError } from '../../client/index.ts'
import { titleOf } from './labels.ts'
import type { Messenger } from './messenger.ts'
import type { Asked } from './model.ts'
import { isOfConnection, sentenceOf } from './refusals.ts'

const AGAIN_AFTER_MS = 5_000
/** After a refusal that time may not mend, which is said each time. */
const REFUSED_AGAIN_AFTER_MS = 60_000
/** Refusals that time mends. */
const PASSING = new Set(['RATE_LIMITED', 'OVERLOADED', 'UNAVAILABLE', 'INTERNAL'])

/** Strangers of one messenger. */
export class Strangers {
  private readonly messenger: Messenger
  private asking: Promise<void> = Promise.resolve()
  private next: Promise<void> | null = null
  private timer: NodeJS.Timeout | null = null
  private isStopped = false
  /** Conversations that were new on this connection. */
  private readonly met = new Map<string, Promise<boolean>>()
  private readonly learnt = new Set<string>()
  /** Who waits for a look that succeeds. */
  private readonly waiting: ((hasLooked: boolean) => void)[] = []

  constructor(messenger: Messenger) {
    this.messenger = messenger
  }

  /** What was known when the messenger ended. */
  start(): void {
    this.tell(this.messenger.notebook.asked)
  }

  /** Asks the relay. One look serves all who ask before it begins; none that has begun before. @throws like `device.requests`. */
  refresh(): Promise<void> {
    this.next ??= this.asking
      .catch(() => {})
      .then(() => {
        this.next = null
        this.asking = this.ask()
        return this.asking
      })
    return this.next
  }

  /** The same for nobody who waits: what fails is tried again, at the latest with the next connection. @returns whether it succeeded. */
  async settle(): Promise<boolean> {
    try {
      await this.refresh()
    } catch (error) {
      if (this.isStopped) return false
      if (error instanceof RelayError && PASSING.has(error.code))
        this.again(Math.max(AGAIN_AFTER_MS, error.retryAfterMs))
      else if (isOfConnection(error)) this.again(AGAIN_AFTER_MS)
      else {
        this.messenger.say(sentenceOf(error), 'bad')
        this.again(REFUSED_AGAIN_AFTER_MS)
      }
      return false
    }
    return !this.isStopped
  }

  /** With every connection. */
  live(): void {
    this.met.clear()
    this.learnt.clear()
    void this.settle()
  }

  /**
   * Before a conversation of somebody else's making is shown: whether it waits for the user's word is asked once per connection. Asking
   * tells of conversations itself: what is told again must not ask again. Resolves when that is known, however late: what cannot be told
   * from a talk is not shown as one. @returns false: there is no messenger any more.
   */
  meet(chatId: string): Promise<boolean> {
    const meeting = this.met.get(chatId) ?? this.looked()
    this.met.set(chatId, meeting)
    return meeting
  }

  /** No more timers, and nothing is shown any more. */
  stop(): void {
    this.isStopped = true
    if (this.timer) clearTimeout(this.timer)
    this.answer(false)
  }

  /** Whether a message in a conversation that was dismissed brings it back: not what was waiting when it was ended, or is of who is blocked. */
  recalls(chatId: string): boolean {
    const { device, notebook, state } = this.messenger
    const known = device.conversations.get(chatId)
    if (!known || known.archived) return false
    const isOfBlocked =
      known.kind === 'direct' && known.members.some(({ userId }) => state.asked.blocked.includes(userId))
    if (!isOfBlocked) notebook.recall(chatId)
    return !isOfBlocked
  }

  private async looked(): Promise<boolean> {
    if (await this.settle()) return true
    if (this.isStopped) return false
    return new Promise((resolve) => this.waiting.push(resolve))
  }
  private answer(hasLooked: boolean): void {
    for (const tell of this.waiting.splice(0)) tell(hasLooked)
  }

  private again(afterMs: number): void {
    this.timer ??= setTimeout(() => {
      this.timer = null
      if (this.messenger.device.state.name === 'live') void this.settle()
    }, afterMs)
    this.timer.unref()
  }

  private async ask(): Promise<void> {
    const { device, notebook } = this.messenger
    const waiting = await device.requests.list()
    const blocked = (await device.requests.blocked()).map(({ userId }) => userId)
    const unwanted = blocked.length > 0 ? await device.requests.unwanted() : []
    for (const { conversationId } of waiting) await this.learn(conversationId)
    const requests = Object.fromEntries(waiting.map(({ conversationId, byUserId }) => [conversationId, byUserId]))
    if (this.isStopped) return
    const gone = Object.entries(notebook.asked.requests).filter(([id]) => !Object.hasOwn(requests, id))
    const over: string[] = []
    for (const [id, byUserId] of gone) if (await this.isOver(id, byUserId, blocked)) over.push(id)
    if (this.isStopped) return
    for (const id of over) this.dismiss(id)
    this.keep({
      requests,
      blocked,
      unwanted: Object.fromEntries(unwanted.map(({ conversationId, byUserId }) => [conversationId, byUserId])),
    })
    for (const { conversationId } of waiting) this.show(conversationId)
    this.answer(true)
    this.messenger.people.watch()
  }

  // Who is in it is known once it is verified: whose keys it takes may be a stranger's, of whom nothing came before. [V-6.5]
  private async learn(id: string): Promise<void> {
    const { conversations } = this.messenger.device
    if (this.learnt.has(id) || (conversations.get(id)?.members.length ?? 0) > 0) return
    this.learnt.add(id)
    await conversations.settle(id).catch((error: unknown) => {
      if (!(error instanceof RelayError)) throw error
    })
  }

  /** What waited and waits no more was accepted, unless it ended. */
  private async isOver(id: string, byUserId: string | null, blocked: string[]): Promise<boolean> {
    const { device } = this.messenger
    if (byUserId && blocked.includes(byUserId)) return true
    try {
      await device.conversations.refresh(id)
    } catch (error) {
      if (error instanceof RelayError && (error.code === 'FORBIDDEN' || error.code === 'NOT_FOUND')) return true
      throw error
    }
    const isAnswered = device.messages(id).some(({ message }) => message.senderUserId === device.userId)
    return !isAnswered && (device.conversations.get(id)?.archived ?? true)
  }

  private dismiss(chatId: string): void {
    const { messenger } = this
    const { state } = messenger
    const chat = state.chats.find(({ id }) => id === chatId)
    messenger.notebook.dismiss(chatId)
    this.met.delete(chatId)
    if (!chat) return
    messenger.tell({ type: 'gone', chatId })
    // It may have been another device of the user's, or whoever asked: nothing says which.
    if (state.open === chatId) messenger.say(`${titleOf(state, chat)}: this is no request any more.`)
  }

  private keep(asked: Asked): void {
    this.messenger.notebook.asked = asked
    this.tell(asked)
  }

  private tell(asked: Asked): void {
    this.messenger.tell({ type: 'asked', asked })
    // Whom the user blocks may be in no conversation that is shown, and has a name all the same.
    const { requests, blocked, unwanted } = asked
    for (const userId of new Set([...blocked, ...Object.values(requests), ...Object.values(unwanted)]))
      if (userId) this.messenger.people.refresh(userId)
  }

  private show(chatId: string): void {
    this.messenger.notebook.recall(chatId)
    this.messenger.bring(chatId)
  }
}
