// One device of one user, whole: what an app holds. It wires the parts together and decides nothing itself.
import type { Uuid } from '../proto/ids.ts'
import { Account } from './account.ts'
import { clearWithheld } from './book.ts'
import { compose, giveUp, recompose } from './composing.ts'
import { Connection, type ConnectionState, Disconnected } from './connection.ts'
import type { Body } from './content.ts'
import { Conversations } from './conversations.ts'
import type { Core, DeviceEvents } from './core.ts'
import { Delivery } from './delivery.ts'
import { Enrolling } from './enrolling.ts'
import { Emitter } from './events.ts'
import { Greeting } from './greeting.ts'
import { Unreachable } from './http.ts'
import { acceptIdentity, lookAgain, offeredIdentity, offeredSafetyNumber } from './identities.ts'
import { allGaps, type Gap, Inbox } from './inbox.ts'
import { listQuarantined, listUndecryptable, type NotShown } from './incoming.ts'
import { approveLink } from './linking.ts'
import { LinkRequest } from './linkrequest.ts'
import { type LinkAsk, readLinkUri } from './linkuri.ts'
import { listMessages, type Message } from './messages.ts'
import { Mutex } from './mutex.ts'
import { Names } from './names.ts'
import type { DeviceOptions } from './options.ts'
import { listDevices, type OwnDevice, unlinkDevice } from './owndevices.ts'
import { Receiver } from './receive.ts'
import { type Lost, Recovery, warrantOf } from './recovery.ts'
import { Renewal } from './renewal.ts'
import { Requests } from './requests.ts'
import { Sealer } from './send.ts'
import { changeSettings, fetchSettings, type Settings } from './settings.ts'
import { Settling } from './settling.ts'
import { Signals } from './signals.ts'
import { Stage } from './stage.ts'
import type { Transaction } from './storage.ts'
import { systemTime } from './time.ts'
import type { Transport } from './transport.ts'
import { Upkeep } from './upkeep.ts'
import { Usernames } from './usernames.ts'

/** A device, stored in its `storage`; opened again it is the same one. Listen before `connect`. */
export class Device extends Emitter<DeviceEvents> {
  readonly conversations: Conversations
  readonly usernames: Usernames
  readonly names: Names
  readonly recovery: Recovery
  readonly requests: Requests
  private readonly core: Core
  private readonly receiver: Receiver
  private readonly inbox: Inbox
  private readonly delivery: Delivery
  private readonly upkeep: Upkeep
  private readonly greeting: Greeting
  private readonly signals: Signals
  private isClosed = false
  private readonly enrolling: Enrolling
  private readonly renewal: Renewal
  private readonly way: { transport: Transport; url: string }
  private linkRequest: LinkRequest | null = null
  private readonly settling: Settling

  constructor(options: DeviceOptions) {
    super()
    const { storage, crypto, transport, url, realm, time = systemTime } = options
    const account = new Account({ storage, crypto, transport, time, url, realm })
    const tokens = (which: { fresh: boolean }) => this.renewal.finish().then(() => account.tokens(which))
    const connection = new Connection({ transport, url, time, tokens })
    this.core = { storage, crypto, time, account, connection, mutex: new Mutex(), events: this }
    this.way = { transport, url }
    this.enrolling = new Enrolling(this.core)
    this.renewal = new Renewal(this.core)
    const fail = (error: unknown) => this.fail(error)
    const unexpected = (error: unknown) => this.unexpected(error)
    this.conversations = new Conversations(this.core)
    const isMember = (id: Uuid, userId: Uuid) => this.conversations.isMember(id, userId)
    this.signals = new Signals(this.core, isMember, fail)
    this.usernames = new Usernames(this.core)
    this.recovery = new Recovery(this.core)
    this.names = new Names(this.core, this, (id) => this.delivery.flush(id))
    this.requests = new Requests(this.core, this.conversations, this.names)
    this.receiver = new Receiver(this.core, this.conversations, {
      unsettled: (id) => void this.settling.settle(id),
      renewed: (id) => void lookAgain(this.core, id).catch(unexpected),
      queued: (id) => this.delivery.flush(id),
    })
    this.inbox = new Inbox(this.core, this.receiver, fail)
    const sealer = new Sealer(this.core, this.conversations)
    this.delivery = new Delivery(this.core, sealer, fail, (id) => this.signals.status.ask(id))
    this.upkeep = new Upkeep(this.core)
    const reviewed = (id: Uuid) => this.receiver.review(id)
    this.settling = new Settling(this.core, this.conversations, { reviewed, unexpected })
    const forgetful = () => this.signals.reads.retell()
    this.greeting = new Greeting(this.core, this.upkeep, this.conversations, { forgetful, unexpected })
    const guarded = (work: () => unknown) => {
      try {
        work()
      } catch (error) {
        fail(error)
      }
    }
    connection.on('state', (state) => guarded(() => this.changed(state)))
    this.on('own_devices', ({ change, deviceId }) => guarded(() => this.welcome(change, deviceId)))
    connection.on('hello', (hello) => guarded(() => this.greeting.take(hello) && this.inbox.sync()))
    connection.on('frame', (frame) => {
      if (frame.envelope) this.inbox.take(frame.envelope)
      else if (frame.queueEmpty) this.inbox.queueEmpty()
      else if (frame.keysLow) this.maintain()
    })
  }

  get isRegistered(): boolean {
    return this.core.account.isEnrolled
  }
  /** @throws Error before registration. */
  get userId(): Uuid {
    return this.core.account.self.userId
  }
  get deviceId(): number {
    return this.core.account.self.deviceId
  }
  get state(): ConnectionState {
    return this.core.connection.state
  }

  /** Makes a user with this as its first device. @throws RelayError: CONFLICT is worth one more try, FORBIDDEN is not. */
  register(options: { name?: string; invitation?: string } = {}): Promise<void> {
    this.linkRequest?.cancel()
    return this.enrolling.register(options)
  }

  /**
   * On an empty store, when every device is lost: becomes the user's only device, under another identity key. Others see it and decide. To be
   * called again, with the same, after anything but FORBIDDEN: `register` or `requestLink` instead may lock that user out for good, the code used up.
   * @throws InvalidRecoveryCode; RelayError FORBIDDEN: unknown user or wrong code, RATE_LIMITED. [I-6]
   */
  async recover(options: Lost): Promise<void> {
    if (this.isRegistered) throw new Error('this device is registered')
    this.linkRequest?.cancel()
    await this.enrolling.alone(() => this.renewal.begin(...warrantOf(this.core, options)))
  }
  /**
   * Somebody else may have the identity key: another one takes its place, this becomes the user's only device, everybody is told, and
   * the recovery code is void. When the answer is lost, `connect` asks again. @throws RelayError.
   */
  async replaceIdentity(options: { name?: string } = {}): Promise<void> {
    const wasConnected = this.state.name !== 'closed'
    this.disconnect()
    await this.settled()
    // What was signed with the present key is found true now, or never again.
    this.conversations.list()
    try {
      await this.renewal.begin({ user: { userId: this.userId } }, { ...options, username: null })
    } finally {
      if (wasConnected) this.connect()
    }
  }

  /** Stays connected until `close`, or until one of the reasons in `state` ends it. */
  connect(): void {
    this.core.connection.start()
  }
  /** The network is back: do not wait for the next try. */
  retryNow(): void {
    this.core.connection.retryNow()
  }
  /** Stays away until `connect`. What is sent meanwhile waits. */
  disconnect(): void {
    this.core.connection.close('stopped')
  }
  /** Resolves when nothing is under way: what came is stored, what was to be sent is sent or waits for a connection. */
  async settled(): Promise<void> {
    await this.inbox.idle()
    await Promise.allSettled([this.settling.idle(), this.greeting.idle(), this.upkeep.idle()])
    await Promise.all([this.delivery.idle(), this.signals.idle()])
    await this.core.mutex.run(() => {})
  }
  /** Disconnects and gives the store back. Nothing that was promised is lost. */
  async close(): Promise<void> {
    this.core.connection.close('stopped')
    await this.inbox.idle()
    await this.core.mutex.run(() => this.core.storage.close())
    // What still waits for an answer finds no store, which is nobody's fault.
    this.isClosed = true
  }

  /**
   * Stores a message to be sent and returns it as `sending`; `message_changed` tells the rest. Works offline.
   * @throws OutboxFull.
   */
  send(conversationId: Uuid, body: Body): Message {
    this.signals.typing.stop(conversationId)
    const message = compose(this.core, conversationId, body)
    this.delivery.flush(conversationId)
    return message
  }
  /** Sends a failed message again: the same bytes under the same id. @throws Error when it did not fail, or is too old for that. */
  retry(id: Uuid): void {
    recompose(this.core, id)
    this.delivery.flush()
  }
  /** Gives a failed message up; it stays shown as failed. */
  discard(id: Uuid): void {
    giveUp(this.core, id)
  }
  /** The last messages of a conversation, oldest first. @param page.before place of the oldest one shown. */
  messages(
    conversationId: Uuid,
    page: { limit?: number; before?: string } = {},
  ): { place: string; message: Message }[] {
    return this.core.storage.transaction((tx) => listMessages(tx, conversationId, page))
  }
  /** Everything up to that message is read, by its messageId; absent = everything that came. Offline is no error. @throws Error when it is not of the conversation. [G-4] */
  markRead(conversationId: Uuid, messageId?: Uuid): void {
    this.signals.reads.mark(conversationId, messageId)
  }
  /** How many messages of others came and were not marked as read. */
  unread(conversationId: Uuid): number {
    return this.signals.reads.unread(conversationId)
  }

  /** To be called at every keystroke, with false when its user gives up. Silence and `send` end it. [G-1] */
  typing(conversationId: Uuid, isTyping: boolean): void {
    this.signals.typing.typed(conversationId, isTyping)
  }
  /** Whose coming and going `presence` tells: these and no others, until the next call. @throws RelayError TOO_LARGE above 500. [G-2] */
  watchPresence(userIds: Uuid[]): void {
    this.signals.presence.watch(userIds)
  }
  /** Whether a watched user is connected, as the relay says. */
  isOnline(userId: Uuid): boolean {
    return this.signals.presence.isOnline(userId)
  }

  /** What one's user shows of themselves, on all devices. @throws RelayError, or Error without a connection. [H-10] */
  settings(): Promise<Settings> {
    return fetchSettings(this.core.account)
  }
  /** Changes what is given. @returns all settings. */
  async changeSettings(change: Partial<Settings>): Promise<Settings> {
    const settings = await changeSettings(this.core.account, change)
    if (change.presence !== undefined) this.signals.presence.again()
    return settings
  }

  /** What was read and is not shown, because it does not belong where the relay put it; the last 1,000, oldest first. */
  quarantined(): NotShown[] {
    return this.core.storage.transaction(listQuarantined)
  }
  /** What could not be read; the last 1,000, oldest first. */
  undecryptable(): NotShown[] {
    return this.core.storage.transaction(listUndecryptable)
  }
  /** Messages that were lost on the way. */
  gaps(): Gap[] {
    return allGaps(this.core)
  }

  /** 60 digits to compare with the peer's; null while its key is unknown. */
  safetyNumber(userId: Uuid): string | null {
    return this.core.crypto.safetyNumber(new Stage(this.core.storage), this.core.account.self, userId)
  }
  /** The same with the key the user is said to have now: compare this one before `acceptIdentity`. null when there is no other key. */
  offeredSafetyNumber(userId: Uuid): string | null {
    return offeredSafetyNumber(this.core, userId)
  }
  /** The key a user is said to have now, if it is not the known one. */
  offeredIdentity(userId: Uuid): Uint8Array | null {
    return offeredIdentity(this.core, userId)
  }
  /** The user compared and believes it: sessions begin anew, and what could not be read is read. Best done while connected. */
  async acceptIdentity(userId: Uuid): Promise<void> {
    // What is offered now is what was compared: while the relay is asked it may offer another.
    const compared = this.offeredIdentity(userId)
    await this.settling.with(userId)
    await acceptIdentity(this.core, userId, compared)
    await this.receiver.retryUntrusted(userId)
    this.delivery.flush()
  }
  /** The user looked at `unconfirmed` of a conversation, up to that revision, and says it is right. @throws Error when it is not that any more. */
  confirmMembers(conversationId: Uuid, revision: number): void {
    const confirmed = (tx: Transaction) => this.conversations.confirmIn(tx, conversationId, { revision })
    if (!this.core.storage.transaction(confirmed)) throw new Error('there is no such change to confirm')
    this.emit('conversation', { conversationId })
    this.receiver.review(conversationId)
  }
  /** Asks again for bundles of a user's devices that were of no use. */
  forgetWithheld(userId: Uuid): void {
    this.core.storage.transaction((tx) => clearWithheld(tx, userId))
  }

  /**
   * On a device that is not registered: asks to become one more device of a user. Another request ends the one before; one that was
   * accepted before a crash is finished first. @param options.name what the user's devices call it. [I-5]
   */
  requestLink({ name = '' }: { name?: string } = {}): LinkRequest {
    if (this.isRegistered) throw new Error('this device is registered')
    this.linkRequest?.cancel()
    this.linkRequest = new LinkRequest({ ...this.way, core: this.core, enrolling: this.enrolling, name })
    return this.linkRequest
  }
  /** On the primary: what a new device asks for, to be shown with a warning before `approveLink`. @throws LinkUriRefused. */
  readLinkUri(uri: string): LinkAsk {
    return readLinkUri(this.way.url, uri)
  }
  /** On the primary, after its user's word: seals the account, identity key included, to the device that shows this. */
  approveLink(uri: string): Promise<void> {
    return approveLink(this.core, this.way.url, uri, this.usernames.own ?? '')
  }

  /** The user's devices, as the relay lists them. */
  devices(): Promise<OwnDevice[]> {
    return listDevices(this.core)
  }
  /** Ends a device of one's own user: the primary any other, a linked one itself. [I-3] */
  unlink(deviceId: number): Promise<void> {
    return unlinkDevice(this.core, deviceId)
  }

  private changed(state: ConnectionState): void {
    this.emit('state', state)
    if (state.name !== 'live') return
    this.delivery.flush()
    this.maintain()
    this.usernames.settle().catch((error) => this.unexpected(error))
    this.settling.live()
  }

  /** A new device of one's own knows nothing of what there is: the primary tells it. [P-7] */
  private welcome(change: 'linked' | 'unlinked', deviceId: number): void {
    if (change === 'unlinked' || this.deviceId !== 1) return
    const talking = this.conversations.list().flatMap(({ id, archived }) => (archived ? [] : [id]))
    this.names.tellOwn(deviceId, talking)
  }

  private maintain(): void {
    this.upkeep.run().catch((error) => this.unexpected(error))
  }

  /** Network trouble ends by itself, at the latest with the next connection; the rest is told. */
  private unexpected(error: unknown): void {
    if (error instanceof Unreachable || error instanceof Disconnected || !this.core.connection.isLive) return
    this.emit('problem', { what: 'unexpected', detail: String(error) })
  }

  private fail(error: unknown): void {
    if (this.isClosed) return
    this.core.connection.close('storage_failed')
    this.emit('problem', { what: 'unexpected', detail: String(error) })
  }
}
