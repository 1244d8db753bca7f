// Who is writing: told to others while the app reports keystrokes, and shown of others until they stop or fall silent. Nothing is stored. [G-1]
import type { Uuid } from '../proto/ids.ts'
import { DEVICE_ID_MAX } from '../proto/limits.ts'
import type { Core } from './core.ts'
import type { Signal } from './signal.ts'
import type { Cancel } from './time.ts'
import { idBytes, idOf, type ServerFrame } from './wire.ts'

/** [G-1.2] */
const AGAIN_AFTER_MS = 3000
const SILENT_AFTER_MS = 2000
/** [G-1.3] */
const SHOWN_FOR_MS = 6000

/** Somebody began to write in a conversation, or stopped. However many devices of theirs do. */
export type TypingEvent = { conversationId: Uuid; userId: Uuid; isTyping: boolean }

/** One's own writing in one conversation. @property isTold whether others were told of it and not yet of its end. */
type Own = { toldAtMs: number; isTold: boolean; cancel: Cancel }

/** Devices of one user that write in one conversation, each with its end. */
type Writing = TypingEvent & { devices: Map<number, Cancel> }

/** Typing of one's own user and of the others. */
export class Typing implements Signal {
  private readonly core: Core
  private readonly isMember: (conversationId: Uuid, userId: Uuid) => boolean
  private readonly own = new Map<Uuid, Own>()
  private readonly others = new Map<string, Writing>()

  /** @param isMember by the roster; what the relay tells of others is not shown. */
  constructor(core: Core, isMember: (conversationId: Uuid, userId: Uuid) => boolean) {
    this.core = core
    this.isMember = isMember
    core.events.on('message', ({ conversationId, senderUserId }) => this.ended(`${conversationId}/${senderUserId}`))
  }

  /** A keystroke, or its user gave up. */
  typed(conversationId: Uuid, isTyping: boolean): void {
    if (!this.core.connection.isLive) return
    if (!isTyping) {
      this.stop(conversationId)
      return
    }
    const nowMs = this.core.time.now()
    const before = this.own.get(conversationId)
    before?.cancel()
    const isDue = !before || nowMs - before.toldAtMs >= AGAIN_AFTER_MS || nowMs < before.toldAtMs
    if (isDue) this.tell(conversationId, true)
    this.own.set(conversationId, {
      toldAtMs: isDue ? nowMs : before.toldAtMs,
      isTold: isDue || before.isTold,
      cancel: this.core.time.after(SILENT_AFTER_MS, () => this.stop(conversationId)),
    })
  }

  /** Silence, a message sent, or the app's word. When it was last told is kept: the next keystroke may come at once. */
  stop(conversationId: Uuid): void {
    const own = this.own.get(conversationId)
    if (!own?.isTold) return
    own.cancel()
    own.isTold = false
    this.tell(conversationId, false)
  }

  live(): void {}

  /** Nobody writes on a lost connection. */
  lost(): void {
    for (const { cancel } of this.own.values()) cancel()
    this.own.clear()
    for (const key of [...this.others.keys()]) this.ended(key)
  }

  take({ typing }: ServerFrame): void {
    if (!typing || (typing.deviceId ?? 0) > DEVICE_ID_MAX) return
    const [conversationId, userId] = [idOf(typing.conversationId), idOf(typing.userId)]
    const deviceId = typing.deviceId ?? 0
    const key = `${conversationId}/${userId}`
    const known = this.others.get(key)
    known?.devices.get(deviceId)?.()
    known?.devices.delete(deviceId)
    if (typing.isTyping) {
      if (!known && (userId === this.core.account.self.userId || !this.isMember(conversationId, userId))) return
      const writing = known ?? { conversationId, userId, isTyping: true, devices: new Map() }
      writing.devices.set(
        deviceId,
        this.core.time.after(SHOWN_FOR_MS, () => this.silent(key, deviceId)),
      )
      if (known) return
      this.others.set(key, writing)
      this.core.events.emit('typing', { conversationId, userId, isTyping: true })
    } else if (known?.devices.size === 0) this.ended(key)
  }

  async idle(): Promise<void> {}

  private silent(key: string, deviceId: number): void {
    const writing = this.others.get(key)
    writing?.devices.delete(deviceId)
    if (writing?.devices.size === 0) this.ended(key)
  }

  private ended(key: string): void {
    const writing = this.others.get(key)
    if (!writing) return
    this.others.delete(key)
    for (const cancel of writing.devices.values()) cancel()
    const { conversationId, userId } = writing
    this.core.events.emit('typing', { conversationId, userId, isTyping: false })
  }

  private tell(conversationId: Uuid, isTyping: boolean): void {
    this.core.connection.tell({ typing: { conversationId: idBytes(conversationId), isTyping } })
  }
}
