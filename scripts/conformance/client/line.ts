// One connection of the client to the scripted relay: what it sent, and what an honest relay answers. [C-2] [C-3] [Q-3] [S-4]
import type { WebSocket } from 'ws'
import { uuidFromBytes, uuidToBytes, uuidV7 } from '../../../proto/ids.ts'
import { type ClientBody, type Recipient, type ServerFrame, v1 } from '../socket.ts'
import type { Entry } from './directory.ts'
import type { ScriptedRelay, Sent } from './relay.ts'

type Send = NonNullable<ClientBody['signalMessage']>
type Address = { userId: Uint8Array; deviceId: number; registrationId: number }

/** For a pong: only who answers no pings at all is waited for in vain, others may be busy. */
const ROUND_MS = 3_000

const hex = (bytes: Uint8Array | null | undefined): string => Buffer.from(bytes ?? []).toString('hex')
const nameOf = (each: Recipient | Address): string => `${hex(each.userId)}.${each.deviceId}`
const addressOf = ({ userId, deviceId, registrationId }: Entry): Address => ({
  ...{ userId: uuidToBytes(userId), deviceId, registrationId },
})

export class Line {
  readonly ws: WebSocket
  readonly entry: Entry
  readonly token: string
  readonly openedAtMs: number
  /** What the client sent, decoded, in order; and what did not decode. */
  readonly frames: ClientBody[] = []
  readonly strange: string[] = []
  closed: { code: number; byUs: boolean; atMs: number } | null = null
  isLive = false
  pongs = 0
  private readonly relay: ScriptedRelay
  private closing: number | null = null

  constructor(relay: ScriptedRelay, ws: WebSocket, entry: Entry, token: string) {
    this.relay = relay
    this.ws = ws
    this.entry = entry
    this.token = token
    this.openedAtMs = relay.now()
    ws.on('message', (data: Buffer, isBinary: boolean) => this.heard(data, isBinary))
    ws.on('pong', () => {
      this.pongs++
      relay.touch()
    })
    ws.on('error', () => {})
    ws.on('close', (code) => {
      this.closed = { code: this.closing ?? code, byUs: this.closing !== null, atMs: relay.now() }
      this.isLive = false
      relay.touch()
    })
    this.greet()
  }

  /** A ping and its pong: what the client sent before has arrived. Not waited for long. [C-4.1] */
  async round(): Promise<void> {
    if (this.closed !== null) return
    const before = this.pongs
    this.ws.ping()
    const heard = () => this.pongs > before || this.closed !== null
    await this.relay.when(heard, 'a pong', ROUND_MS).catch(() => {})
  }

  send(frame: Partial<ServerFrame> | ClientBody): void {
    this.raw(v1.ServerFrame.encode(frame as ServerFrame).finish())
  }
  raw(bytes: Uint8Array): void {
    if (this.ws.readyState === this.ws.OPEN) this.ws.send(bytes)
  }

  /** Ends it; 1006 breaks it. */
  close(code: number, reason = ''): void {
    this.closing = code
    if (code === 1006) this.ws.terminate()
    else this.ws.close(code, reason)
  }

  /** Says Hello, unless the scenario says it later. */
  greet(): void {
    const { relay, entry } = this
    const waits = relay.queue.length > 0 || relay.gap !== null
    const hello = {
      ...{
        realm: relay.realm,
        epoch: relay.epoch,
        serverTimeMs: relay.now(),
        limits: relay.limits,
        queueWaiting: waits,
      },
      prekeyCounts: {
        ...{ ecOneTime: entry.oneTime.length, kyberOneTime: entry.kyber.length, lastResortUsed: entry.lastResortUsed },
      },
      ...{ userId: uuidToBytes(entry.userId), deviceId: entry.deviceId },
    }
    const said = relay.script.hello ? relay.script.hello(hello) : hello
    if (!said) return
    this.isLive = said.queueWaiting !== true
    this.send({ hello: said })
  }

  private heard(data: Buffer, isBinary: boolean): void {
    let frame: ClientBody
    try {
      if (!isBinary) throw new Error('text')
      frame = v1.ClientFrame.decode(data)
    } catch {
      this.strange.push(isBinary ? `bytes that are no frame: ${data.toString('hex').slice(0, 60)}` : 'a text message')
      return
    }
    this.frames.push(frame)
    if (!this.relay.script.frame?.(this, frame)) this.answer(frame)
    this.relay.touch()
  }

  /** As an honest relay does. */
  answer(frame: ClientBody): void {
    const { requestId = 0 } = frame
    const reply = (body: Partial<ServerFrame> | ClientBody | object): void =>
      this.send({ requestId: requestId ?? 0, ...body } as ServerFrame)
    if (frame.syncRequest) this.page(requestId ?? 0, frame.syncRequest)
    else if (frame.ack) {
      this.take(frame.ack.messageIds ?? [])
      reply({ ackCommitted: {} })
    } else if (frame.signalMessage) reply(this.accept(frame.signalMessage))
    else if (frame.reauthenticate) reply(this.extend(frame.reauthenticate.token ?? ''))
    else if (frame.readReceipt) reply({ readReceiptCommitted: {} })
    else if (frame.statusRequest) reply({ statusUpdate: {} })
    else if (frame.presenceSubscription)
      reply({
        presence: { users: (frame.presenceSubscription.userIds ?? []).map((userId) => ({ userId, isOnline: false })) },
      })
    else if (!frame.typing)
      reply({ error: { code: v1.ErrorCode.ERROR_CODE_INVALID_REQUEST, message: 'no known body' } })
  }

  /** One page from the queue, and QueueEmpty after the last. */
  page(requestId: number, { lastMessageId, limit }: NonNullable<ClientBody['syncRequest']>): void {
    const { relay } = this
    this.isLive = false
    const most = Math.min(limit || relay.limits.pageMessages, relay.limits.pageMessages)
    const at = lastMessageId?.length ? relay.queue.findIndex((each) => hex(each.messageId) === hex(lastMessageId)) : -1
    const after = at >= 0 ? relay.queue[at]!.sequence! : this.cursor(hex(lastMessageId))
    const waiting = relay.queue.filter((each) => each.sequence! > after)
    const messages = waiting.slice(0, most)
    for (const each of messages) this.passed.set(hex(each.messageId), each.sequence!)
    const hasMore = waiting.length > messages.length
    this.send({ requestId, syncResponse: { messages, hasMore, ...(relay.gap && { gap: relay.gap }) } } as ServerFrame)
    if (hasMore) return
    this.send({ queueEmpty: {} } as ServerFrame)
    this.isLive = true
  }

  /** Envelopes of former pages: their ids are known cursors though they were acked. */
  private readonly passed = new Map<string, number>()
  private cursor(id: string): number {
    return this.passed.get(id) ?? 0
  }

  private take(ids: Uint8Array[]): void {
    const { relay } = this
    const gone = new Set(ids.map(hex))
    relay.acked.push(...gone)
    relay.queue = relay.queue.filter((each) => !gone.has(hex(each.messageId)))
    if (relay.gap && gone.has(hex(relay.gap.gapId))) relay.gap = null
  }

  private extend(token: string): object {
    if (this.relay.tokens.get(token) !== this.entry)
      return { error: { code: v1.ErrorCode.ERROR_CODE_UNAUTHENTICATED, message: 'no token of this device' } }
    return { reauthenticated: { expiresAtMs: this.relay.now() + 3_600_000 } }
  }

  /** [S-2] [S-4] */
  accept(message: Send): object {
    const { relay } = this
    const clientMessageId = hex(message.clientMessageId)
    const known = relay.sent.find((each) => each.clientMessageId === clientMessageId)
    if (known) {
      known.duplicates++
      return { messageAccepted: { messageId: known.messageId, sentAtMs: known.sentAtMs, duplicate: true } }
    }
    const refused = this.refusal(message)
    if (refused) return { error: refused }
    const sent: Sent = {
      ...{ clientMessageId, conversationId: uuidFromBytes(message.conversationId!), message, duplicates: 0 },
      ...{ messageId: uuidToBytes(uuidV7(relay.now())), sentAtMs: relay.now() },
    }
    relay.sent.push(sent)
    for (const each of message.recipients ?? []) relay.mailboxes.get(nameOf(each))?.take(sent, each)
    return { messageAccepted: { messageId: sent.messageId, sentAtMs: sent.sentAtMs } }
  }

  private refusal({ conversationId, recipients, scope }: Send): object | null {
    const { relay, entry } = this
    const invalid = { code: v1.ErrorCode.ERROR_CODE_INVALID_REQUEST, message: 'no such conversation' }
    const room = conversationId?.length === 16 ? relay.rooms.all.get(uuidFromBytes(conversationId)) : undefined
    if (!room) return invalid
    const users = [...room.members.map((each) => each.userId), ...(relay.ghosts.get(room.id) ?? [])]
    const current = users
      .flatMap((userId) => relay.directory.of(userId))
      .filter((each) => each !== entry)
      .map(addressOf)
    const addressed = new Map((recipients ?? []).map((each) => [nameOf(each), each]))
    const names = new Set(current.map(nameOf))
    const missing = scope === v1.Scope.SCOPE_ALL ? current.filter((each) => !addressed.has(nameOf(each))) : []
    const extra = [...addressed.values()].filter((each) => !names.has(nameOf(each)))
    const stale = current.filter((each) => {
      const given = addressed.get(nameOf(each))
      return given !== undefined && given.registrationId !== each.registrationId
    })
    if (missing.length + extra.length + stale.length === 0) return null
    return mismatch({
      missing,
      extra: extra.map(({ userId, deviceId }) => ({ userId: userId!, deviceId: deviceId!, registrationId: 0 })),
      stale,
    })
  }
}

/** The Error of a mismatch. */
export const mismatch = (lists: { missing?: Address[]; extra?: Address[]; stale?: Address[] }): object => ({
  ...{ code: v1.ErrorCode.ERROR_CODE_DEVICE_MISMATCH, message: 'the addressed devices are not the current ones' },
  deviceMismatch: { missing: [], extra: [], stale: [], ...lists },
})
