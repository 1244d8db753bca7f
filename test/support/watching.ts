// What tests wait for on a device of the SDK. Runs in pages as well as on Node.
import type { Device, DeviceEvents, Message } from '../../client/index.ts'

/** It only ends what would wait for ever, with a word about what for: within it all of a test's work has its time, on any machine. */
const SLOW_MS = 25_000

/** Connects and waits for `live`. */
export async function live(it: Device): Promise<Device> {
  const reached = until(it, 'state', (state) => state.name === 'live')
  it.connect()
  await reached
  return it
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

/** Resolves when nothing is under way any more: queue, outbox and upkeep of a device. */
export const quiet = (it: Device): Promise<void> => it.settled()
