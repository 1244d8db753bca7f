// What one scenario works in: a scripted relay, the client connected to it, peers, and time.
import { setTimeout as sleep } from 'node:timers/promises'
import { NotRun, Violation } from '../check.ts'
import type { EnrolmentOptions } from '../enrolment.ts'
import { within } from '../runner.ts'
import type { Harness, Reply } from './harness.ts'
import type { Line } from './line.ts'
import { type Arrived, Person } from './person.ts'
import type { ScriptedRelay, Sent } from './relay.ts'

/** A message as the client shows it. @property state sending, sent, delivered, read, failed, received. */
export type Shown = {
  client_message_id: string
  sender_user_id: string
  text: string | null
  state: string
  withheld?: boolean
}

/** Two in a conversation who have both spoken: sessions are open on both sides. */
export type Talk = { bob: Person; conversation: string }

const POLL_MS = 15
/** Real time for requests and new connections once the clock moved. */
const BREATH_MS = 20
/** Without `advance` so much is waited for in real time; more with --slow. */
const PATIENCE_MS = 3_000

export class Stage {
  readonly relay: ScriptedRelay
  private readonly harness: Harness
  private readonly client: string
  private readonly slow: boolean
  private readonly patienceMs: number

  constructor(
    relay: ScriptedRelay,
    harness: Harness,
    client: string,
    { slow, patienceMs }: { slow: boolean; patienceMs: number },
  ) {
    this.patienceMs = patienceMs
    relay.patienceMs = patienceMs
    this.relay = relay
    this.harness = harness
    this.client = client
    this.slow = slow
  }

  /** One command to the client. */
  call(cmd: string, fields: object = {}): Promise<Reply> {
    return this.harness.call(this.client, cmd, fields)
  }
  needs(ability: Parameters<Harness['can']>[0]): void {
    if (!this.harness.can(ability)) throw new NotRun(`the harness cannot ${ability}`)
  }

  async register(): Promise<void> {
    const { url, realm } = this.relay
    await this.call('register', { url, realm })
  }

  /** Registered, connected, its queue empty. */
  async join(): Promise<Line> {
    await this.register()
    return this.connect()
  }

  async connect(): Promise<Line> {
    const before = this.relay.lines.length
    await this.call('connect')
    return this.ready(before)
  }

  /** Waits until the client is live on a connection after so many. */
  async ready(before: number): Promise<Line> {
    const line = await this.relay.when(
      () => this.relay.lines.slice(before).findLast((each) => each.isLive),
      'the client to connect and to sync',
    )
    await this.until(async () => (await this.state()) === 'live', 'the client to be live')
    return line
  }

  async state(): Promise<string> {
    return (await this.call('state')).state
  }

  /** A peer, known to the relay and not yet to the client. */
  person(options: EnrolmentOptions = {}): Person {
    return new Person(this.relay, options)
  }

  /** A conversation made by the client. */
  async conversation(kind: 'direct' | 'group', people: Person[]): Promise<string> {
    const reply = await this.call('conversation', { kind, user_ids: people.map((each) => each.userId) })
    return reply.conversation_id
  }

  /** Joins, finds Bob, and both say something. */
  async talk(options: EnrolmentOptions = {}): Promise<Talk> {
    await this.join()
    const bob = this.person(options)
    const conversation = await this.conversation('direct', [bob])
    await this.say(conversation, 'hello')
    await bob.device.read(await this.at(bob))
    await bob.say(conversation, 'hello yourself')
    await this.shown(conversation, 'hello yourself')
    // What comes by itself after a first message: a heartbeat, an ack.
    await this.relay.when(() => this.relay.queue.length === 0, 'the client to ack what it was sent')
    return { bob, conversation }
  }

  /** Tells the client to send. @returns the message's id as the client names it. */
  async post(conversation: string, text: string): Promise<string> {
    return (await this.call('send', { conversation_id: conversation, text })).client_message_id
  }

  /** Sends, and waits until the client says that it was sent. */
  async say(conversation: string, text: string): Promise<Sent> {
    const id = await this.post(conversation, text)
    await this.stateOf(conversation, id, 'sent')
    return this.sent(id)
  }

  /** The accepted send of that id. */
  sent(id: string): Sent {
    const found = this.relay.sent.find((each) => each.clientMessageId === id.replaceAll('-', ''))
    if (!found)
      throw new Violation(`expected a message with client_message_id ${id}; saw ${this.relay.sent.length} others`)
    return found
  }

  /** The next thing that arrived at a person's device and was not looked at. */
  async at(person: Person, at = 0): Promise<Arrived> {
    const device = person.devices[at]!
    return this.relay.when(() => device.arrived.shift(), `a message at device ${at + 1} of the peer`)
  }

  /** What the client shows of a conversation, in order. */
  async messages(conversation: string): Promise<Shown[]> {
    return (await this.call('messages', { conversation_id: conversation })).messages
  }
  async texts(conversation: string): Promise<(string | null)[]> {
    return (await this.messages(conversation)).map((each) => each.text)
  }

  /** Waits until the client shows it. */
  async shown(conversation: string, text: string): Promise<Shown> {
    return this.until(
      async () => (await this.messages(conversation)).find((each) => each.text === text),
      `“${text}” to be shown`,
    )
  }

  /** Waits for a message of the client to get there. Later states count: delivered and read are sent. */
  async stateOf(conversation: string, id: string, state: 'sent' | 'failed'): Promise<void> {
    const fits = (each: Shown) =>
      each.client_message_id === id &&
      (state === 'sent' ? ['sent', 'delivered', 'read'].includes(each.state) : each.state === state)
    await this.until(async () => (await this.messages(conversation)).some(fits), `the message to be ${state}`)
  }

  /** Asks again and again. @throws Violation when it does not come to be. */
  until<T>(probe: () => Promise<T | null | undefined | false>, what: string, withinMs = this.patienceMs): Promise<T> {
    let over = false
    const asking = (async () => {
      for (;;) {
        const value = await probe()
        if (value) return value
        if (over) throw new Violation(`expected ${what}`)
        await sleep(POLL_MS)
      }
    })()
    return within(asking, withinMs, what).finally(() => {
      over = true
    })
  }

  /** Waits until everything that was delivered is acked. */
  async acked(): Promise<void> {
    await this.relay.when(() => this.relay.queue.length === 0, 'an ack of everything that was delivered')
  }

  /**
   * Lets time pass, in small steps while the client is connected.
   * @param until stops early. @returns how much had passed when it stopped, null when it did not.
   * @throws NotRun without a clock that can be moved, if it is long.
   */
  async pass(ms: number, until: () => unknown = () => false, stepMs = 1000): Promise<boolean> {
    const fast = this.harness.can('advance')
    if (!fast && ms > PATIENCE_MS && !this.slow)
      throw new NotRun(`takes ${ms / 1000} s with a harness that cannot advance; run with --slow`)
    for (let passed = 0; passed < ms; ) {
      if (until()) return true
      const step = Math.min(stepMs, ms - passed)
      if (fast) {
        this.relay.aheadMs += step
        await this.call('advance', { ms: step })
        // Twice: what it asked has been answered, and it has the answer.
        for (let at = 0; at < 2; at++) await this.relay.line?.round()
        await sleep(BREATH_MS)
      } else await sleep(step)
      passed += step
    }
    return Boolean(until())
  }

  /** Waits as long as it takes, within limits, for something that needs the clock to go on. */
  async later<T>(probe: () => T | null | undefined | false, what: string, mostMs: number, stepMs = 1000): Promise<T> {
    await this.pass(mostMs, probe, stepMs)
    // The clock went faster than the work may have.
    return this.relay.when(probe, `${what} within ${mostMs / 1000} s`, this.patienceMs)
  }

  /** Connections begun after so many. */
  linesAfter(count: number): Line[] {
    return this.relay.lines.slice(count)
  }

  async end(): Promise<void> {
    await this.call('close').catch(() => {})
    await this.relay.close()
  }
}
