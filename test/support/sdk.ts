// Devices of the SDK against a test relay, in memory or on SQLite, and what tests wait for.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  Device,
  type DeviceEvents,
  type DeviceOptions,
  MemoryStorage,
  type Message,
  type Storage,
} from '../../client/index.ts'
import { libsignal, SqliteStorage, wsTransport } from '../../client/node.ts'
import type { TestRelay } from './relay.ts'

const SLOW_MS = 10_000

export type Options = Partial<DeviceOptions>

/** A device that is not registered. Memory unless a storage is given. */
export function device(relay: Pick<TestRelay, 'url' | 'realm'>, options: Options = {}): Device {
  const { url, realm } = relay
  return new Device({
    url,
    realm,
    transport: wsTransport(),
    storage: new MemoryStorage(),
    crypto: libsignal(),
    ...options,
  })
}

/** Registered, connected, live. */
export async function joined(relay: Pick<TestRelay, 'url' | 'realm'>, options: Options = {}): Promise<Device> {
  const made = device(relay, options)
  await made.register()
  return live(made)
}

/** Connects and waits for `live`. */
export async function live(it: Device): Promise<Device> {
  const reached = until(it, 'state', (state) => state.name === 'live')
  it.connect()
  await reached
  return it
}

/** One more device of that user. */
export async function linked(
  primary: Device,
  relay: Pick<TestRelay, 'url' | 'realm'>,
  options: Options = {},
): Promise<Device> {
  const made = device(relay, options)
  const key = made.linkKey()
  await made.link(await primary.sealLink(key), key)
  return live(made)
}

/** The next event that fits. @throws when it does not come: a failing test, not a hanging one. */
export function until<K extends keyof DeviceEvents>(
  it: Device,
  name: K,
  fits: (event: DeviceEvents[K]) => boolean = () => true,
): Promise<DeviceEvents[K]> {
  const error = new Error(`no ${name} that fits within ${SLOW_MS / 1000} s`)
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(error), SLOW_MS)
    void it.once(name, fits).then((event) => {
      clearTimeout(timer)
      resolve(event)
    })
  })
}

/** Texts of a conversation as this device shows them, in order, own ones included. */
export const texts = (it: Device, conversationId: string): string[] =>
  it
    .messages(conversationId, { limit: 10_000 })
    .map(({ message }) => message.body.text ?? (message.withheld ? '(withheld)' : ''))

/** Resolves once the text is shown, also when it is already. */
export async function shown(it: Device, conversationId: string, text: string): Promise<Message> {
  const coming = until(
    it,
    'message',
    (message) => message.conversationId === conversationId && message.body.text === text,
  )
  coming.catch(() => {})
  const there = it.messages(conversationId, { limit: 10_000 }).find(({ message }) => message.body.text === text)
  return there ? there.message : coming
}

/** Sends and waits for a state. */
export async function say(it: Device, conversationId: string, text: string, state = 'sent'): Promise<Message> {
  const message = it.send(conversationId, { text })
  return until(it, 'message_changed', (each) => each.id === message.id && each.state === state)
}

/** A place for SQLite files that goes away with `end`. */
export function directory(): { path(name: string): string; sqlite(name: string): Storage; end(): void } {
  const root = mkdtempSync(join(tmpdir(), 'sealpost-sdk-'))
  const path = (name: string) => join(root, name)
  return {
    path,
    sqlite: (name) => new SqliteStorage(path(name)),
    end: () => rmSync(root, { recursive: true, force: true }),
  }
}

/** Resolves when nothing is under way any more: queue, outbox and upkeep of a device. */
export const quiet = (it: Device): Promise<void> => it.settled()
