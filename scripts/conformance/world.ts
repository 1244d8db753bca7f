// The users of the kit on the relay under test: registered when they are needed, lent to one check at a time, left as harmless as
// the protocol allows.
import { type Check, NotRun } from './check.ts'
import { Device, type Relay } from './device.ts'
import type { EnrolmentOptions } from './enrolment.ts'
import { PATIENCE_MS } from './socket.ts'

export type WorldOptions = {
  url: string
  realm: string
  /** For relays that ask for one. Each is used once; a single one is used again and again. */
  invitations?: string[]
  slow?: boolean
  /** How long is waited for a frame. */
  patienceMs?: number
}

export class World {
  readonly relay: Relay
  readonly slow: boolean
  /** How many users were registered. */
  registered = 0
  readonly closedWithout: boolean
  private readonly invitations: string[]
  private readonly onlyInvitation: string | null
  private readonly idle: Device[] = []

  constructor({ url, realm, invitations = [], slow = false, patienceMs = PATIENCE_MS }: WorldOptions) {
    this.relay = { url, realm, refusals: [], patienceMs }
    this.slow = slow
    this.invitations = [...invitations]
    this.onlyInvitation = invitations.length === 1 ? invitations[0]! : null
    this.closedWithout = invitations.length > 0
  }

  /** What goes into a registration besides keys. @throws NotRun when the invitations are used up. */
  invitation(): { invitation?: string } {
    if (!this.closedWithout) return {}
    const invitation = this.onlyInvitation ?? this.invitations.shift()
    if (!invitation) throw new NotRun(`no invitation is left: ${this.registered} users were registered so far`)
    return { invitation }
  }

  /** A user nobody has used. */
  async fresh(options: EnrolmentOptions = {}): Promise<Device> {
    const device = await Device.register(this.relay, options, this.invitation())
    this.registered++
    return device
  }

  /** A user with an empty queue who may have been used before. */
  async borrow(): Promise<Device> {
    const device = this.idle.pop()
    if (!device) return this.fresh()
    const socket = await device.live()
    await socket.close()
    device.sockets.clear()
    return device
  }

  giveBack(device: Device): void {
    this.idle.push(device)
  }

  /** What one check works in. */
  enter(_: Check<Kit>): Promise<Kit> {
    return Promise.resolve(new Kit(this))
  }
}

/** Users for one check. What they did is undone when it ends, as far as it can be. */
export class Kit {
  readonly world: World
  readonly relay: Relay
  private readonly lent: Device[] = []
  private readonly made: Device[] = []

  constructor(world: World) {
    this.world = world
    this.relay = world.relay
  }

  /** One user with an empty queue. Its keys, names and budgets may have been used. */
  async user(): Promise<Device> {
    const device = await this.world.borrow()
    this.lent.push(device)
    return device
  }

  /** So many of them. */
  users(count: number): Promise<Device[]> {
    return Promise.all(Array.from({ length: count }, () => this.user()))
  }

  /** A user nobody has used, and nobody will use again. */
  async fresh(options: EnrolmentOptions = {}): Promise<Device> {
    const device = await this.world.fresh(options)
    this.made.push(device)
    return device
  }

  /** Two users and their direct conversation; both queues are empty but for its creation, which is acked. */
  async pair(): Promise<Pair> {
    const [alice, bob] = (await this.users(2)) as [Device, Device]
    return this.between(alice, bob)
  }

  /** The same with users nobody has used: nothing comes to them by itself that another check has caused. [G-3.1] */
  async freshPair(): Promise<Pair> {
    const [alice, bob] = await Promise.all([this.fresh(), this.fresh()])
    return this.between(alice, bob)
  }

  private async between(alice: Device, bob: Device): Promise<Pair> {
    const conversation = await alice.direct(bob)
    const [a, b] = await Promise.all([alice.live(), bob.live()])
    return { alice, bob, conversation, a, b }
  }

  /** A device that was made without these methods and is to be forgotten with the others. */
  adopt(device: Device): Device {
    this.made.push(device)
    return device
  }

  /** @param passed false: nobody knows what state they are in. */
  async leave(passed: boolean): Promise<void> {
    const all = [...this.lent, ...this.made]
    for (const each of all) {
      const conversations = each.conversations.splice(0)
      await Promise.allSettled(conversations.map((id) => each.post(`/v1/conversations/${id}/archive`)))
      const links = each.links.splice(0)
      for (const link of links) await closeAll(link)
      await Promise.allSettled(links.map((link) => each.delete(`/v1/devices/${link.deviceId}`)))
      await closeAll(each)
    }
    if (passed) for (const each of this.lent) this.world.giveBack(each)
  }
}

type Live = Awaited<ReturnType<Device['live']>>
/** @property a Alice's connection, live. @property b Bob's. */
export type Pair = { alice: Device; bob: Device; conversation: string; a: Live; b: Live }

async function closeAll(device: Device): Promise<void> {
  await Promise.all([...device.sockets].map((socket) => socket.close()))
  device.sockets.clear()
}
