// What an app does between its user and the relay: sessions from bundles, one ciphertext per device, repair when the devices
// changed, every message read once. Keys are in keys.ts, the wire is in client.ts. One call at a time: sessions have an order.
import {
  CiphertextMessageType,
  DecryptionErrorMessage,
  PlaintextContent,
  type SessionRecord,
} from '@signalapp/libsignal-client'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidFromBytes, uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { type Address, AddressBook, type Mismatch, readMismatch } from './addressbook.ts'
import { type Bundle, readBundles } from './bundles.ts'
import { Client, type RegisterOptions, type Socket } from './client.ts'
import { packText, unpackText } from './content.ts'
import { PREKEY, type TestDevice } from './keys.ts'

const { Withheld, Scope } = sealpost.v1
type Envelope = sealpost.v1.Envelope.$Properties
type Recipient = sealpost.v1.Recipient.$Properties

/** [S-4.5] */
const MAX_ROUNDS = 5
export const PLAINTEXT_CONTENT = 8

/** An accepted send. `rounds`: 1 = the first try fitted. `repaired`: devices that a DEVICE_MISMATCH taught us. */
export type Sent = {
  messageId: Uint8Array
  clientMessageId: Uint8Array
  sentAtMs: number
  duplicate: boolean
  rounds: number
  repaired: Mismatch
  recipients: Recipient[]
}

/** What an envelope turned out to be. Each but `again` is told once. */
export type Received = { envelope: Envelope; from: string; fromDevice: number } & (
  | { kind: 'text'; text: string; type: number }
  | { kind: 'withheld'; reason: number }
  | { kind: 'event'; event: sealpost.v1.SystemEvent.$Properties }
  /** The sender of this could not read what we sent at that time. */
  | { kind: 'complaint'; aboutMs: number; sessionDropped: boolean }
  | { kind: 'again' }
  | { kind: 'unreadable'; error: Error }
)

/** The relay gave a key for this user that is not the one we know. [K-4.5] */
export class UntrustedIdentity extends Error {}

const nameOf = (userId: string, deviceId: number): string => `${userId}.${deviceId}`

export class Messenger {
  readonly client: Client
  /** Replaced when the device starts over. */
  device: TestDevice
  socket!: Socket
  book = new AddressBook()
  /** User id → identity key in base64: the first one seen. */
  readonly pinned = new Map<string, string>()
  /** Devices that publish no Kyber key, with the registration id they had then. */
  private readonly incompatible = new Map<string, number>()
  private readonly seen = new Set<string>()

  constructor(client: Client) {
    this.client = client
    this.device = client.device
    this.pinned.set(client.userId, Buffer.from(client.device.identityKey).toString('base64'))
  }

  /** Registers a new user with this first device and connects it. */
  static async join(relay: { url: string; realm: string }, options: RegisterOptions = {}): Promise<Messenger> {
    return new Messenger(await Client.register(relay, options)).live()
  }

  /** Links and connects one more device of this user. */
  async link(options: RegisterOptions & { registrationId?: number } = {}): Promise<Messenger> {
    return new Messenger(await this.client.link(options)).live()
  }

  get userId(): string {
    return this.client.userId
  }

  /** Opens the socket; what waits is left waiting. */
  async connect(): Promise<Socket> {
    this.socket = await this.client.connect()
    return this.socket
  }

  /** Opens the socket and takes what waits. */
  async live(): Promise<this> {
    await this.connect()
    await this.catchUp()
    return this
  }

  /** Asks for a bundle, which costs the other a one-time key. @returns null when there is none. */
  async fetchBundle(userId: string, deviceId: number): Promise<Bundle | null> {
    const [bundle] = await this.fetchBundles(userId, String(deviceId))
    return bundle ?? null
  }

  private async fetchBundles(userId: string, devices: string): Promise<Bundle[]> {
    const answer = await this.client.get(`/v1/keys/${userId}/${devices}`)
    if (answer.status === 404) return []
    if (answer.status !== 200) throw new Error(`HTTP ${answer.status}: ${JSON.stringify(answer.body)}`)
    return readBundles(answer.body)
  }

  /**
   * Opens a session from a bundle.
   * @returns false: the device speaks no PQXDH.
   * @throws UntrustedIdentity, or libsignal's error for a signature that does not verify; no session is opened.
   */
  async openSession(userId: string, bundle: Bundle): Promise<boolean> {
    this.trust(userId, bundle.identityKey)
    const { kyberPrekey } = bundle
    if (!kyberPrekey) return false
    await this.device.startSession(userId, { ...bundle, kyberPrekey })
    this.pin(userId, bundle.identityKey)
    return true
  }

  /** A user's devices share one identity key: a new device with another is somebody else's. [K-4.5] */
  private trust(userId: string, identityKey: Uint8Array): string {
    const key = Buffer.from(identityKey).toString('base64')
    if ((this.pinned.get(userId) ?? key) !== key) throw new UntrustedIdentity(`another identity key for ${userId}`)
    return key
  }

  private pin(userId: string, identityKey: Uint8Array): void {
    this.pinned.set(userId, this.trust(userId, identityKey))
  }

  /** Learns the devices of a conversation's members and opens sessions with those it knows nothing of. */
  async meet(conversationId: string): Promise<void> {
    const { body } = await this.client.get(`/v1/conversations/${conversationId}`)
    const members: string[] = body.members.map((each: { user_id: string }) => each.user_id)
    this.book.addConversation(conversationId, members)
    for (const userId of members) {
      if (this.book.knowsUser(userId)) continue
      const bundles = await this.fetchBundles(userId, '*')
      this.book.addUser(userId, bundles)
      for (const bundle of bundles) {
        if (!this.hasSession({ userId, ...bundle }) && !(await this.openSession(userId, bundle)))
          this.incompatible.set(nameOf(userId, bundle.deviceId), bundle.registrationId)
      }
    }
  }

  /** The session with a device, current or not. */
  session(userId: string, deviceId: number): SessionRecord | undefined {
    return this.device.sessions.records.get(nameOf(userId, deviceId))
  }

  private hasSession({ userId, deviceId, registrationId }: Address): boolean {
    const record = this.session(userId, deviceId)
    return !!record?.hasCurrentState(new Date()) && record.remoteRegistrationId() === registrationId
  }

  /** Why nothing can be encrypted for that device, or null once there is a session. [S-4.4] [S-4.6] */
  private async withheldFrom(to: Address): Promise<number | null> {
    if (this.hasSession(to)) return null
    const name = nameOf(to.userId, to.deviceId)
    if (this.incompatible.get(name) === to.registrationId) return Withheld.WITHHELD_NO_COMPATIBLE_KEYS
    try {
      const bundle = await this.fetchBundle(to.userId, to.deviceId)
      if (bundle && (await this.openSession(to.userId, bundle))) return null
      this.incompatible.set(name, to.registrationId)
      return Withheld.WITHHELD_NO_COMPATIBLE_KEYS
    } catch (error) {
      if (error instanceof UntrustedIdentity) return Withheld.WITHHELD_UNTRUSTED_IDENTITY
      throw error
    }
  }

  /** One ciphertext for one device, with a session opened for it if need be. */
  async sealFor(to: Address, plaintext: Uint8Array): Promise<Recipient> {
    const head = { userId: uuidToBytes(to.userId), deviceId: to.deviceId, registrationId: to.registrationId }
    const withheld = await this.withheldFrom(to)
    if (withheld) return { ...head, withheld }
    const { type, content } = await this.device.encrypt(to.userId, to.deviceId, plaintext)
    return { ...head, ciphertextType: type, content }
  }

  /**
   * Sends a text to everybody in the conversation, repairing the device list as often as it takes.
   * @param only SUBSET: to these devices. @param clientMessageId to repeat a send under its id.
   */
  async say(
    conversationId: string,
    text: string,
    options: { only?: Address[]; clientMessageId?: Uint8Array } = {},
  ): Promise<Sent> {
    if (!this.book.knows(conversationId)) await this.meet(conversationId)
    const { only, clientMessageId = uuidToBytes(uuidV7(Date.now())) } = options
    const binding = { conversationId: uuidToBytes(conversationId), clientMessageId, sentAtMs: Date.now() }
    const plaintext = packText(binding, text)
    // Ciphertexts made in one round serve in the next: a step of a ratchet is not wasted. [S-2.4]
    const sealed = new Map<string, Recipient>()
    const repaired: Mismatch = { missing: [], extra: [], stale: [] }
    for (let rounds = 1; rounds <= MAX_ROUNDS; rounds++) {
      const addressed = only ?? this.everybody(conversationId)
      const recipients: Recipient[] = []
      for (const to of addressed) {
        const name = `${nameOf(to.userId, to.deviceId)}.${to.registrationId}`
        if (!sealed.has(name)) sealed.set(name, await this.sealFor(to, plaintext))
        recipients.push(sealed.get(name)!)
      }
      const scope = only ? Scope.SCOPE_SUBSET : Scope.SCOPE_ALL
      const { messageAccepted, error } = await this.socket.send(conversationId, recipients, { clientMessageId, scope })
      if (messageAccepted) {
        const { messageId, sentAtMs, duplicate } = messageAccepted
        return {
          messageId: messageId!,
          sentAtMs: sentAtMs!,
          duplicate: duplicate ?? false,
          ...{ clientMessageId, rounds, repaired, recipients },
        }
      }
      if (only || !error?.deviceMismatch) throw new Error(`the send was refused: ${error?.code} ${error?.message}`)
      const mismatch = readMismatch(error.deviceMismatch)
      for (const kind of ['missing', 'extra', 'stale'] as const) repaired[kind].push(...mismatch[kind])
      this.book.correct(conversationId, mismatch)
    }
    throw new Error(`the devices still do not fit after ${MAX_ROUNDS} rounds`)
  }

  private everybody(conversationId: string): Address[] {
    const isOwn = (each: Address) => each.userId === this.userId && each.deviceId === this.device.deviceId
    return this.book.of(conversationId).filter((each) => !isOwn(each))
  }

  /** Waits for the next envelope, reads it, acks it. */
  async hear(): Promise<Received> {
    const received = await this.read(await this.socket.next('envelope'))
    await this.socket.ack(received.envelope.messageId)
    return received
  }

  /** Waits for the next text, whatever events come before it. @throws when something cannot be read. */
  async hearText(): Promise<Received & { kind: 'text' }> {
    for (;;) {
      const received = await this.hear()
      if (received.kind === 'text') return received
      if (received.kind === 'unreadable') throw received.error
    }
  }

  /** Syncs, reads and acks, page by page, until the queue is empty. */
  async catchUp(): Promise<Received[]> {
    const all: Received[] = []
    for (let hasMore = true, cursor: Uint8Array | null = null; hasMore; ) {
      const page = await this.socket.sync(cursor)
      for (const envelope of page.messages ?? []) all.push(await this.read(envelope))
      const ids = (page.messages ?? []).map((each) => each.messageId!)
      await this.socket.ack(...ids, ...(page.gap ? [page.gap.gapId] : []))
      hasMore = page.hasMore ?? false
      cursor = ids.at(-1) ?? cursor
    }
    await this.socket.next('queueEmpty')
    return all
  }

  /** Reads one envelope. Does not ack: a client does that once it has stored what it read. */
  async read(envelope: Envelope): Promise<Received> {
    const { ciphertext, systemEvent } = envelope
    if (!ciphertext) {
      const origin = { envelope, from: '', fromDevice: 0 }
      if (this.isRepeated(uuidFromBytes(envelope.messageId!))) return { ...origin, kind: 'again' }
      return { ...origin, kind: 'event', event: systemEvent! }
    }
    const from = uuidFromBytes(ciphertext.senderUserId!)
    const fromDevice = ciphertext.senderDeviceId!
    const origin = { envelope, from, fromDevice }
    if (this.isRepeated(`${nameOf(from, fromDevice)}.${uuidFromBytes(ciphertext.clientMessageId!)}`))
      return { ...origin, kind: 'again' }
    if (ciphertext.withheld) return { ...origin, kind: 'withheld', reason: ciphertext.withheld }
    const type = ciphertext.ciphertextType!
    const content = Uint8Array.from(ciphertext.content!)
    try {
      if (type === PLAINTEXT_CONTENT) return { ...origin, kind: 'complaint', ...this.heed(from, fromDevice, content) }
      const plaintext = await this.device.decrypt(from, fromDevice, type, content)
      this.pin(from, this.device.identities.known.get(nameOf(from, fromDevice))!.serialize())
      return { ...origin, kind: 'text', type, text: unpackText(plaintext, bindingOf(envelope)) }
    } catch (error) {
      return { ...origin, kind: 'unreadable', error: error as Error }
    }
  }

  //
  private isRepeated(id: string): boolean {
    if (this.seen.has(id)) return true
    this.seen.add(id)
    return false
  }

  /** Tells the sender's device that this could not be read: libsignal's retry receipt, to that device alone. */
  async complain({ envelope, from, fromDevice }: Received): Promise<void> {
    const { ciphertextType, content } = envelope.ciphertext!
    const type = ciphertextType === PREKEY ? CiphertextMessageType.PreKey : CiphertextMessageType.Whisper
    const message = DecryptionErrorMessage.forOriginal(
      Uint8Array.from(content!),
      ...([type, envelope.sentAtMs!, fromDevice] as const),
    )
    const conversationId = uuidFromBytes(envelope.conversationId!)
    const recipient = {
      ...this.book.find(from, fromDevice),
      userId: uuidToBytes(from),
      ciphertextType: PLAINTEXT_CONTENT,
      content: PlaintextContent.from(message).serialize(),
    }
    const answer = await this.socket.send(conversationId, [recipient], { scope: Scope.SCOPE_SUBSET })
    if (!answer.messageAccepted) throw new Error(`the complaint was refused: ${answer.error?.message}`)
  }

  // The session is given up only if it is the one the other could not read with: a complaint may be late, or forged. [S-4.5]
  private heed(from: string, fromDevice: number, content: Uint8Array<ArrayBuffer>) {
    const message = DecryptionErrorMessage.extractFromSerializedBody(PlaintextContent.deserialize(content).body())
    const record = this.session(from, fromDevice)
    const ratchetKey = message.ratchetKey()
    const sessionDropped =
      message.deviceId() === this.device.deviceId && !!ratchetKey && !!record?.currentRatchetKeyMatches(ratchetKey)
    if (sessionDropped) record!.archiveCurrentState()
    return { aboutMs: message.timestamp(), sessionDropped }
  }

  close(): Promise<void> {
    return this.socket.close()
  }
}

const bindingOf = (envelope: Envelope) => ({
  conversationId: envelope.conversationId!,
  clientMessageId: envelope.ciphertext!.clientMessageId!,
  sentAtMs: envelope.sentAtMs!,
})
