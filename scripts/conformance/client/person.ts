// A peer of the client: a user of the kit with real keys and sessions, whose devices are on the scripted relay. Says what a scenario
// wants, also what nobody should say, and reads what the client says to it.
import { uuidFromBytes, uuidToBytes, uuidV7 } from '../../../proto/ids.ts'
import { Violation } from '../check.ts'
import { type EnrolmentOptions, enrolment } from '../enrolment.ts'
import { DeviceKeys } from '../keys.ts'
import { Peer } from '../peer.ts'
import type { Envelope, Recipient } from '../socket.ts'
import { type Content, pack, rosterHash, unpack } from './content.ts'
import type { Entry } from './directory.ts'
import type { ScriptedRelay, Sent } from './relay.ts'

/** What the client sent to one device. @property content null = withheld, or not to be decrypted; why says the reason. */
export type Arrived = { sent: Sent; recipient: Recipient }

/** What is said otherwise than it should be. */
export type Lies = {
  /** Fields of the Content. */
  content?: Content
  /** The byte that ends the plaintext. */
  end?: number
  /** Changes the envelope when it is made. */
  envelope?(envelope: Envelope): void
  /** The message's id in envelope and Content; a new one unless given. */
  clientMessageId?: Uint8Array
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/** One device of a person. */
export class PersonDevice {
  readonly peer: Peer
  readonly entry: Entry
  readonly arrived: Arrived[] = []
  private readonly relay: ScriptedRelay

  constructor(relay: ScriptedRelay, keys: DeviceKeys, entry: Entry) {
    this.relay = relay
    this.entry = entry
    this.peer = new Peer(keys, entry)
    relay.mailboxes.set(`${hex(uuidToBytes(entry.userId))}.${entry.deviceId}`, {
      take: (sent, recipient) => this.arrived.push({ sent, recipient }),
    })
  }

  /** The Content of what arrived. @throws Violation when it cannot be read. */
  async read({ recipient }: Arrived): Promise<ReturnType<typeof unpack>> {
    const { userId, deviceId } = this.relay.device
    let plaintext: Uint8Array
    try {
      plaintext = await this.peer.decrypt(
        { userId, deviceId },
        recipient.ciphertextType ?? 0,
        recipient.content ?? new Uint8Array(0),
      )
    } catch (error) {
      throw new Violation(
        `expected a ciphertext that device ${this.entry.deviceId} can read; saw ${(error as Error).message}`,
      )
    }
    try {
      return unpack(plaintext)
    } catch (error) {
      throw new Violation(`expected a padded Content; saw ${(error as Error).message}`)
    }
  }

  /** Makes the envelope of a text for the client, and delivers it. @returns the envelope. */
  async say(conversationId: string, text: string, lies: Lies = {}): Promise<Envelope> {
    return this.relay.deliver(await this.write(conversationId, text, lies))
  }

  /** The envelope alone. */
  async write(conversationId: string, text: string, lies: Lies = {}): Promise<Envelope> {
    const { clientMessageId = uuidToBytes(uuidV7(this.relay.now())) } = lies
    const plaintext = pack({ ...this.binding(conversationId, clientMessageId), text, ...lies.content }, lies.end)
    const envelope = await this.seal(conversationId, clientMessageId, plaintext)
    lies.envelope?.(envelope)
    return envelope
  }

  /** What an honest Content says of its envelope. [P-3] */
  binding(conversationId: string, clientMessageId: Uint8Array): Content {
    const room = this.relay.rooms.all.get(conversationId)
    if (!room) throw new Error('no such room')
    const hash = rosterHash(conversationId, room.links.length, room.members)
    return {
      conversationId: uuidToBytes(conversationId),
      clientMessageId,
      sentAtMs: this.relay.now(),
      rosterHash: hash,
    }
  }

  private async seal(conversationId: string, clientMessageId: Uint8Array, plaintext: Uint8Array): Promise<Envelope> {
    const to = this.relay.device
    if (!this.peer.hasSession(to)) await this.meet()
    const { type, content } = await this.peer.encrypt(to, plaintext)
    return this.envelope(conversationId, clientMessageId, type, content)
  }

  /** Opens a session from the client's bundle, in place of the one there is. */
  async meet(): Promise<void> {
    const { userId, deviceId } = this.relay.device
    await this.peer.startSession(this.relay.directory.bundles(userId, [deviceId]), deviceId)
  }

  /** An envelope from this device, whatever is in it. */
  envelope(conversationId: string, clientMessageId: Uint8Array, type: number, content: Uint8Array): Envelope {
    const { userId, deviceId } = this.entry
    return {
      conversationId: uuidToBytes(conversationId),
      ciphertext: {
        ...{ senderUserId: uuidToBytes(userId), senderDeviceId: deviceId, clientMessageId, messageType: 1 },
        ...{ ciphertextType: type as never, content, urgent: true },
      },
    }
  }
}

/** A user with one device or more. */
export class Person {
  readonly userId: string
  readonly devices: PersonDevice[]
  private readonly relay: ScriptedRelay
  readonly identity: DeviceKeys['identity']

  constructor(relay: ScriptedRelay, options: EnrolmentOptions = {}) {
    const keys = new DeviceKeys()
    this.relay = relay
    this.identity = keys.identity
    const entry = relay.directory.enrol(made(keys, relay, options), { atMs: relay.now() })
    this.userId = entry.userId
    this.devices = [new PersonDevice(relay, keys, entry)]
  }

  /** The first one. */
  get device(): PersonDevice {
    return this.devices[0]!
  }

  /** One more device; the client is not told. @param identity another key than the user's: a lie. */
  link(options: EnrolmentOptions & { identity?: DeviceKeys['identity'] } = {}): PersonDevice {
    const keys = new DeviceKeys({ identity: options.identity ?? this.identity })
    const before = this.relay.directory.identities.get(this.userId)!
    const { userId } = this
    const deviceId = Math.max(...this.devices.map((each) => each.entry.deviceId)) + 1
    const entry = this.relay.directory.enrol(made(keys, this.relay, options), {
      userId,
      deviceId,
      atMs: this.relay.now(),
    })
    this.relay.directory.identities.set(userId, before)
    const device = new PersonDevice(this.relay, keys, entry)
    this.devices.push(device)
    return device
  }

  /** Device 1 starts over: other keys and another registration id under the same identity. [K-8] */
  startOver(): PersonDevice {
    const { entry } = this.device
    const keys = new DeviceKeys({ identity: this.identity, registrationId: 1 + (entry.registrationId % 16_383) })
    const at = this.relay.directory.devices.indexOf(entry)
    const { userId, deviceId } = entry
    const fresh = this.relay.directory.enrol(made(keys, this.relay), { userId, deviceId, atMs: this.relay.now() })
    this.relay.directory.devices.pop()
    this.relay.directory.devices[at] = fresh
    this.devices[0] = new PersonDevice(this.relay, keys, fresh)
    return this.device
  }

  /** A device is gone. */
  unlink(device: PersonDevice): void {
    this.devices.splice(this.devices.indexOf(device), 1)
    this.relay.directory.devices.splice(this.relay.directory.devices.indexOf(device.entry), 1)
  }

  say(conversationId: string, text: string, lies: Lies = {}): Promise<Envelope> {
    return this.device.say(conversationId, text, lies)
  }
}

const made = (keys: DeviceKeys, relay: ScriptedRelay, options: EnrolmentOptions = {}) =>
  enrolment(keys, relay.realm, { oneTime: 10, kyberOneTime: 10, ...options }).json

/** The conversation's id in a send. */
export const roomOf = ({ message }: Sent): string => uuidFromBytes(message.conversationId!)
