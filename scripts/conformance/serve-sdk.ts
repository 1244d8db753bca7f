// Our SDK as a client under test, and an example of a harness: reads a command a line, does it with a Device, writes an answer a line.
// The commands are in docs/conformance.md. Started by sdk-harness.ts.
import { createInterface } from 'node:readline'
import {
  type Crypto,
  Device,
  type LinkRequest,
  MemoryStorage,
  type Storage,
  type Transaction,
  type Transport,
} from '../../client/index.ts'
import { libsignal, wsTransport } from '../../client/node.ts'
import { ShiftedTime } from './shifted-time.ts'

type Notice = { what: string; user_id?: string; detail?: string }

/** What a process that died cannot do any more: use its store, hear its sockets. */
class Lives implements Storage {
  isOver = false
  private readonly store: MemoryStorage
  constructor(store: MemoryStorage) {
    this.store = store
  }
  transaction<T>(work: (tx: Transaction) => T): T {
    if (this.isOver) throw new Error('this process died')
    return this.store.transaction(work)
  }
  close(): void {}
}

/** What the devices are made of; tests put something wrong in its place. */
export type Parts = { transport(): Transport; crypto(): Crypto }

/** One client: a device that can be killed and opened again. */
class Client {
  readonly store = new MemoryStorage()
  readonly notices: Notice[] = []
  /** Conversation → users who write there now. */
  readonly writing = new Map<string, Set<string>>()
  time = new ShiftedTime()
  device: Device | null = null
  link: LinkRequest | null = null
  isLinked = false
  private life: Lives | null = null
  private sockets: { close(): void }[] = []
  private where = { url: '', realm: '' }
  private readonly parts: Parts

  constructor(parts: Parts) {
    this.parts = parts
  }

  open(where: { url: string; realm: string }): Device {
    if (this.device) return this.device
    this.where = where
    const life = new Lives(this.store)
    const device = new Device({
      ...where,
      transport: this.transport(life),
      storage: life,
      crypto: this.parts.crypto(),
      time: this.time,
    })
    this.life = life
    this.device = device
    device.on('gap', () => this.notices.push({ what: 'gap' }))
    device.on('identity_changed', ({ userId }) => this.notices.push({ what: 'identity_changed', user_id: userId }))
    device.on('ghost', ({ userId }) => this.notices.push({ what: 'ghost', user_id: userId }))
    device.on('quarantined', ({ userId, reason }) =>
      this.notices.push({ what: 'quarantined', user_id: userId, detail: reason }),
    )
    device.on('undecryptable', ({ userId, reason }) =>
      this.notices.push({ what: 'undecryptable', user_id: userId, detail: reason }),
    )
    device.on('problem', ({ what, detail }) => this.notices.push({ what, detail }))
    device.on('typing', ({ conversationId, userId, isTyping }) => {
      const users = this.writing.get(conversationId) ?? new Set()
      this.writing.set(conversationId, users)
      if (isTyping) users.add(userId)
      else users.delete(userId)
    })
    return device
  }

  /** The device, registered or not. @throws Error before `register`. */
  get it(): Device {
    if (!this.device) throw new Error('register comes first')
    return this.device
  }

  /** As by kill -9, and then from the store. */
  restart(): void {
    this.die()
    this.time = new ShiftedTime()
    this.open(this.where)
  }

  die(): void {
    if (this.life) this.life.isOver = true
    this.time.stop()
    for (const socket of this.sockets.splice(0)) socket.close()
    this.device = null
  }

  private transport(life: Lives): Transport {
    const real = this.parts.transport()
    return {
      request: real.request,
      open: (url, token, events) => {
        const alive = <A extends unknown[]>(call: (...args: A) => void) => {
          return (...args: A) => {
            if (!life.isOver) call(...args)
          }
        }
        const socket = real.open(url, token, {
          opened: alive(events.opened),
          frame: alive(events.frame),
          closed: alive(events.closed),
        })
        this.sockets.push(socket)
        return socket
      },
    }
  }
}

// biome-ignore lint/suspicious/noExplicitAny: commands are JSON
const commands: Record<string, (client: Client, command: any) => unknown> = {
  register: async (client, { url, realm, invitation }) => {
    const device = client.open({ url, realm })
    if (!device.isRegistered) await device.register({ ...(invitation && { invitation }) })
    return { user_id: device.userId, device_id: device.deviceId }
  },
  connect: ({ it }) => it.connect(),
  disconnect: ({ it }) => it.disconnect(),
  state: ({ it: { state } }) => ({
    state: state.name,
    ...(state.name === 'closed' && { reason: state.reason }),
    ...(state.name === 'offline' && { retry_in_ms: state.retryInMs }),
  }),
  conversation: async ({ it }, { kind, user_ids }) => ({
    conversation_id:
      kind === 'direct' ? await it.conversations.direct(user_ids[0]) : await it.conversations.group(user_ids),
  }),
  send: ({ it }, { conversation_id, text }) => ({ client_message_id: it.send(conversation_id, { text }).id }),
  messages: ({ it }, { conversation_id }) => ({
    messages: it.messages(conversation_id, { limit: 10_000 }).map(({ message }) => ({
      ...{ client_message_id: message.id, sender_user_id: message.senderUserId, text: message.body.text ?? null },
      ...{ state: message.state, withheld: message.withheld },
    })),
  }),
  notices: ({ notices }) => ({ notices }),
  typing: ({ writing }, { conversation_id }) => ({ user_ids: [...(writing.get(conversation_id) ?? [])] }),
  link_request: (client, { url, realm, name = '' }) => {
    const request = client.open({ url, realm }).requestLink({ name })
    client.link = request
    request.on('linked', () => {
      client.isLinked = true
    })
  },
  link_state: ({ link, isLinked }) => ({
    ...{ uri: link?.uri ?? null, linked: isLinked },
    offer: link?.offer ? { user_id: link.offer.userId } : null,
  }),
  link_accept: ({ link }) => link?.offer?.accept(),
  link_approve: ({ it }, { uri }) => it.approveLink(uri),
  advance: ({ time }, { ms }) => time.advance(ms),
  restart: (client) => client.restart(),
  close: (client) => client.die(),
}

const write = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`)

/** Serves until stdin ends. */
export function serve(parts: Partial<Parts> = {}): void {
  const clients = new Map<string, Client>()
  const whole: Parts = { transport: wsTransport, crypto: libsignal, ...parts }

  async function answer(line: string): Promise<void> {
    const { id, client: name, cmd, ...command } = JSON.parse(line)
    const client = clients.get(name) ?? new Client(whole)
    clients.set(name, client)
    try {
      const does = commands[cmd]
      if (!does) throw Object.assign(new Error(`no command ${cmd}`), { code: 'UNKNOWN_COMMAND' })
      write({ id, ok: (await does(client, command)) ?? {} })
    } catch (error) {
      const { code = 'ERROR', message } = error as Error & { code?: string }
      write({ id, error: { code, message } })
    }
    if (cmd === 'close') clients.delete(name)
  }

  // What a killed device leaves under way fails; that is no end of this process.
  process.on('unhandledRejection', (error) => process.stderr.write(`${String(error)}\n`))
  process.on('uncaughtException', (error) => process.stderr.write(`${String(error)}\n`))
  const lines = createInterface({ input: process.stdin })
  lines.on('line', (line) => void answer(line))
  lines.on('close', () => process.exit())
  write({ ready: 'sealpost sdk', can: ['advance', 'link', 'many', 'restart', 'typing'] })
}
