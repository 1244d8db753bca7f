// What runs in the page under test: one device of the SDK, its core bundled as an app would, and words for the test to move it by.
import { Device, MemoryStorage, platformTransport } from '../../../client/index.ts'
import { live, say, shown, texts, until } from '../../support/watching.ts'
import { testCrypto } from './crypto.ts'

let device: Device

/** All take and give JSON, because they are called through the browser's own protocol. */
const words = {
  /** Registers a user and connects. @returns the user id. */
  async join(relay: { url: string; realm: string }): Promise<string> {
    device = new Device({
      ...relay,
      transport: platformTransport(),
      storage: new MemoryStorage(),
      crypto: testCrypto(),
    })
    await device.register({ name: 'a page' })
    await live(device)
    await device.settled()
    return device.userId
  },
  direct: (userId: string): Promise<string> => device.conversations.direct(userId),
  async say(conversation: string, text: string): Promise<string> {
    return (await say(device, conversation, text)).state
  },
  /** Does not wait: there may be no connection. */
  write: (conversation: string, text: string): string => device.send(conversation, { text }).state,
  async shown(conversation: string, text: string): Promise<string> {
    return (await shown(device, conversation, text)).senderUserId
  },
  texts: (conversation: string): string[] => texts(device, conversation),
  state: (): string => device.state.name,
  async becomes(name: string): Promise<void> {
    if (device.state.name !== name) await until(device, 'state', (state) => state.name === name)
  },
  retryNow: (): void => device.retryNow(),
}

/** For the test's side of the protocol. */
export type Words = typeof words

Object.assign(globalThis, { sealpost: words })
