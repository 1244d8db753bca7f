// How far one's own messages have come: asked on every connection, and taken as the relay tells it. [G-3]
import type { Uuid } from '../proto/ids.ts'
import { STATUS_MAX_IDS } from '../proto/limits.ts'
import type { Core } from './core.ts'
import { type Message, progressMessage } from './messages.ts'
import { forgetQuestion, noteEarly, openQuestions } from './progress.ts'
import { askPatiently, Errand, type Signal } from './signal.ts'
import { idBytes, idOf, type ServerFrame } from './wire.ts'

/** Turns the relay's numbers into changed messages. */
export class Status implements Signal {
  private readonly core: Core
  private readonly errand: Errand
  private readonly extra: Errand

  constructor(core: Core, fail: (error: unknown) => void) {
    this.core = core
    this.errand = new Errand(fail)
    this.extra = new Errand(fail)
  }

  /** Asks about one that was accepted on an earlier connection: what was told then was told to nobody. */
  ask(messageId: Uuid): void {
    this.extra.begin(() => this.page([messageId], () => this.core.connection.isLive))
  }

  live(): void {
    this.errand.begin(async (isWanted) => {
      const { storage, account } = this.core
      const all = storage.transaction((tx) => openQuestions(tx, account.now()))
      for (let at = 0; at < all.length && isWanted(); at += STATUS_MAX_IDS)
        await this.page(all.slice(at, at + STATUS_MAX_IDS), isWanted)
    })
  }

  lost(): void {
    this.errand.end()
  }

  take({ statusUpdate }: ServerFrame): void {
    if (!statusUpdate?.messages?.length) return
    const changed = this.core.storage.transaction((tx) => {
      const all: Message[] = []
      for (const { messageId, delivered, read } of statusUpdate.messages ?? []) {
        const [id, progress] = [idOf(messageId), { delivered: delivered ?? 0, read: read ?? 0 }]
        const message = progressMessage(tx, id, progress)
        if (message) all.push(message)
        // Its acceptance, or its copy from another device of ours, is still under way.
        else if (message === undefined && id) noteEarly(tx, id, progress)
      }
      return all
    })
    for (const message of changed) this.core.events.emit('message_changed', message)
  }

  async idle(): Promise<void> {
    await Promise.all([this.errand.idle(), this.extra.idle()])
  }

  private async page(asked: Uuid[], isWanted: () => boolean): Promise<void> {
    const answer = await askPatiently(this.core, { statusRequest: { messageIds: asked.map(idBytes) } }, isWanted)
    if (!answer?.statusUpdate) return
    this.take(answer)
    const known = new Set(answer.statusUpdate.messages?.map(({ messageId }) => idOf(messageId)))
    const forgotten = asked.filter((id) => !known.has(id))
    if (forgotten.length > 0)
      this.core.storage.transaction((tx) => {
        for (const id of forgotten) forgetQuestion(tx, id)
      })
  }
}
