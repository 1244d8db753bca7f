// One device of one user, whole: what an app holds. It wires the parts together and decides nothing itself.
import { type Uuid, uuidV7 } from '../proto/ids.ts'
import { Account } from './account.ts'
import { clearWithheld } from './book.ts'
import { hex } from './bytes.ts'
import { Connection, type ConnectionState } from './connection.ts'
import type { Body } from './content.ts'
import { Conversations } from './conversations.ts'
import type { Core, DeviceEvents } from './core.ts'
import type { Crypto } from './crypto.ts'
import { Delivery } from './delivery.ts'
import { Emitter } from './events.ts'
import { acceptIdentity, offeredIdentity } from './identities.ts'
import { allGaps, type Gap, Inbox } from './inbox.ts'
import { held } from './incoming.ts'
import { openIdentityMessage, sealIdentityMessage } from './linking.ts'
import { addMessage, changeMessage, listMessages, type Message } from './messages.ts'
import { Mutex } from './mutex.ts'
import { Names } from './names.ts'
import { enqueue, OUTBOX_MAX_AGE_MS, removeRow, requeue, rowOf } from './outbox.ts'
import { Receiver } from './receive.ts'
import { resendAll } from './restore.ts'
import { pruneSeen } from './seen.ts'
import { Sealer } from './send.ts'
import { Stage } from './stage.ts'
import type { Storage } from './storage.ts'
import { systemTime, type Time } from './time.ts'
import type { Transport } from './transport.ts'
import { Upkeep } from './upkeep.ts'
import { Usernames } from './usernames.ts'
import { type Hello, idOf } from './wire.ts'

/** What a device is made of. */
export type DeviceOptions = {
  /** The relay: http:// or https://, without a path. */
  url: string
  /** The deployment's name, from the same source as the url and not from the relay: part of every proof. [I-2] */
  realm: string
  transport: Transport
  storage: Storage
  crypto: Crypto
  /** The platform's when absent. */
  time?: Time
}

/** A device, stored in its `storage`; opened again it is the same one. Listen before `connect`. */
export class Device extends Emitter<DeviceEvents> {
  readonly conversations: Conversations
  readonly usernames: Usernames
  readonly names: Names
  private readonly core: Core
  private readonly receiver: Receiver
  private readonly inbox: Inbox
  private readonly delivery: Delivery
  private readonly upkeep: Upkeep
  private readonly settling = new Map<Uuid, Promise<void>>()
  private mending: Promise<void> = Promise.resolve()

  constructor(options: DeviceOptions) {
    super()
    const { storage, crypto, transport, url, realm, time = systemTime } = options
    const account = new Account({ storage, crypto, transport, time, url, realm })
    const connection = new Connection({ transport, url, time, tokens: (which) => account.tokens(which) })
    this.core = { storage, crypto, time, account, connection, mutex: new Mutex(), events: this }
    const fail = (error: unknown) => this.fail(error)
    this.conversations = new Conversations(this.core)
    this.usernames = new Usernames(this.core)
    this.names = new Names(this.core, this, (id) => this.delivery.flush(id))
    this.receiver = new Receiver(this.core, this.conversations, {
      unsettled: (id) => void this.settle(id),
      queued: (id) => this.delivery.flush(id),
    })
    this.inbox = new Inbox(this.core, this.receiver, fail)
    this.delivery = new Delivery(this.core, new Sealer(this.core, this.conversations), fail)
    this.upkeep = new Upkeep(this.core)
    const guarded = (work: () => void) => {
      try {
        work()
      } catch (error) {
        fail(error)
      }
    }
    connection.on('state', (state) => guarded(() => this.changed(state)))
    this.on('own_devices', ({ change, deviceId }) => guarded(() => this.welcome(change, deviceId)))
    connection.on('hello', (hello) => guarded(() => this.greet(hello)))
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
    return this.core.account.register(options)
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
    await Promise.allSettled([...this.settling.values(), this.mending, this.upkeep.idle(), this.delivery.idle()])
    await this.core.mutex.run(() => {})
  }
  /** Disconnects and gives the store back. Nothing that was promised is lost. */
  async close(): Promise<void> {
    this.core.connection.close('stopped')
    await this.inbox.idle()
    await this.core.mutex.run(() => this.core.storage.close())
  }

  /**
   * Stores a message to be sent and returns it as `sending`; `message_changed` tells the rest. Works offline.
   * @throws OutboxFull.
   */
  send(conversationId: Uuid, body: Body): Message {
    const { userId, deviceId } = this.core.account.self
    const nowMs = this.core.account.now()
    const clientMessageId = uuidV7(nowMs)
    const message: Message = {
      ...{ id: clientMessageId, messageId: '', conversationId, senderUserId: userId, senderDeviceId: deviceId },
      ...{ sentAtMs: nowMs, state: 'sending', failure: '', body, withheld: false },
    }
    this.core.storage.transaction((tx) => {
      enqueue(tx, {
        ...{ kind: 'message', clientMessageId, conversationId, queuedAtMs: nowMs },
        to: null,
        body,
        resendOf: '',
      })
      addMessage(tx, message)
    })
    this.emit('message', message)
    this.delivery.flush(conversationId)
    return message
  }

  /** Sends a failed message again: the same bytes under the same id. @throws Error when it did not fail, or is too old for that. */
  retry(id: Uuid): void {
    const { userId, deviceId } = this.core.account.self
    const nowMs = this.core.account.now()
    const changed = this.core.storage.transaction((tx) => {
      const row = rowOf(tx, id)
      if (!row?.failure) throw new Error('this message did not fail')
      if (nowMs - row.queuedAtMs > OUTBOX_MAX_AGE_MS) throw new Error('this message is too old to be sent under its id')
      requeue(tx, row)
      return changeMessage(
        tx,
        { senderUserId: userId, senderDeviceId: deviceId, id },
        { state: 'sending', failure: '' },
      )
    })
    if (changed) this.emit('message_changed', changed)
    this.delivery.flush()
  }

  /** Gives a failed message up; it stays shown as failed. */
  discard(id: Uuid): void {
    this.core.storage.transaction((tx) => {
      const row = rowOf(tx, id)
      if (row?.failure) removeRow(tx, row)
    })
  }

  /** The last messages of a conversation, oldest first. @param page.before place of the oldest one shown. */
  messages(
    conversationId: Uuid,
    page: { limit?: number; before?: string } = {},
  ): { place: string; message: Message }[] {
    return this.core.storage.transaction((tx) => listMessages(tx, conversationId, page))
  }
  /** Messages that were lost on the way. */
  gaps(): Gap[] {
    return allGaps(this.core)
  }

  /** 60 digits to compare with the peer's; null while its key is unknown. */
  safetyNumber(userId: Uuid): string | null {
    return this.core.crypto.safetyNumber(new Stage(this.core.storage), this.core.account.self, userId)
  }
  /** The key a user is said to have now, if it is not the known one. */
  offeredIdentity(userId: Uuid): Uint8Array | null {
    return offeredIdentity(this.core, userId)
  }
  /** The user compared and believes it: sessions begin anew, and what could not be read is read. */
  async acceptIdentity(userId: Uuid): Promise<void> {
    await acceptIdentity(this.core, userId)
    await this.receiver.retryUntrusted(userId)
    this.delivery.flush()
  }
  /** Asks again for bundles of a user's devices that were of no use. */
  forgetWithheld(userId: Uuid): void {
    this.core.storage.transaction((tx) => clearWithheld(tx, userId))
  }

  /** On the new device: the key to show to the primary, 33 bytes. */
  linkKey(): Uint8Array {
    const stage = new Stage(this.core.storage)
    const key = this.core.crypto.createProvisionKey(stage)
    this.core.storage.transaction((tx) => stage.apply(tx))
    return key
  }
  /** On the primary: everything the new device needs, sealed to its key. Its user has confirmed. [I-4] */
  async sealLink(linkKey: Uint8Array): Promise<Uint8Array> {
    const { link_code } = await this.core.account.http.call<{ link_code: string }>('POST', '/v1/devices/link-code', {})
    return sealIdentityMessage(this.core, linkKey, { userId: this.userId, linkCode: link_code })
  }
  /** On the new device: becomes a device of the user who sealed it. */
  async link(sealed: Uint8Array, linkKey: Uint8Array, options: { name?: string } = {}): Promise<void> {
    const stage = new Stage(this.core.storage)
    const { userId, linkCode } = openIdentityMessage(this.core, stage, sealed, linkKey)
    await this.core.account.link({ ...options, userId, linkCode, stage })
  }

  /** The user's devices, as the relay lists them. */
  async devices(): Promise<{ deviceId: number; name: string; createdAtMs: number }[]> {
    type Json = { devices: { device_id: number; name: string; created_at_ms: number }[] }
    const { devices } = await this.core.account.http.call<Json>('GET', '/v1/devices')
    return devices.map(({ device_id, name, created_at_ms }) => ({
      deviceId: device_id,
      name,
      createdAtMs: created_at_ms,
    }))
  }
  /** Ends a device of one's own user: the primary any other, a linked one itself. [I-3] */
  async unlink(deviceId: number): Promise<void> {
    await this.core.account.http.call('DELETE', `/v1/devices/${deviceId}`)
  }

  private changed(state: ConnectionState): void {
    this.emit('state', state)
    if (state.name !== 'live') return
    this.delivery.flush()
    this.maintain()
    this.usernames.settle().catch((error) => this.unexpected(error))
    const waiting = this.core.storage.transaction((tx) => held.scan(tx).map(({ key }) => key.split('/')[0]!))
    for (const id of new Set(waiting)) void this.settle(id)
  }

  /** A new device of one's own knows nothing of what there is: the primary tells it. [P-7] */
  private welcome(change: 'linked' | 'unlinked', deviceId: number): void {
    if (change === 'unlinked' || this.deviceId !== 1) return
    const talking = this.conversations.list().filter(({ archived }) => !archived)
    this.names.tellOwn(
      deviceId,
      talking.map(({ id }) => id),
    )
  }

  // [C-3]
  private greet(hello: Hello): void {
    const { account, connection, time, storage } = this.core
    const { realm, userId, deviceId, epoch } = account.self
    if (hello.realm !== realm || idOf(hello.userId) !== userId || hello.deviceId !== deviceId) {
      connection.close('wrong_realm')
      return
    }
    const seen = hex(hello.epoch ?? new Uint8Array(0))
    const isRestored = epoch !== '' && epoch !== seen
    storage.transaction((tx) => {
      account.updateIn(tx, { skewMs: (hello.serverTimeMs ?? time.now()) - time.now() })
      // Kept as it was until everything a restore asks for is done.
      if (!isRestored) account.updateIn(tx, { epoch: seen })
      while (pruneSeen(tx, account.now()));
    })
    if (isRestored) this.mending = this.mend(seen)
    this.inbox.sync()
  }

  private async mend(epoch: string): Promise<void> {
    try {
      this.emit('problem', { what: 'restored', detail: 'the relay was restored from a backup' })
      await this.upkeep.replaceOneTime()
      await resendAll(this.core)
      this.core.account.update({ epoch })
    } catch (error) {
      this.unexpected(error)
    }
  }

  private maintain(): void {
    this.upkeep.run().catch((error) => this.unexpected(error))
  }

  /** Fetches a conversation's chain and decides about what waits for it; one at a time per conversation. */
  private settle(id: Uuid): Promise<void> {
    const running = this.settling.get(id)
    if (running) return running
    const run = (async () => {
      try {
        await this.conversations.settle(id)
        this.receiver.review(id)
      } catch (error) {
        this.unexpected(error)
      } finally {
        this.settling.delete(id)
      }
    })()
    this.settling.set(id, run)
    return run
  }

  /** Network trouble ends by itself, at the latest with the next connection; the rest is told. */
  private unexpected(error: unknown): void {
    if (this.core.connection.isLive) this.emit('problem', { what: 'unexpected', detail: String(error) })
  }

  private fail(error: unknown): void {
    this.core.connection.close('storage_failed')
    this.emit('problem', { what: 'unexpected', detail: String(error) })
  }
}
