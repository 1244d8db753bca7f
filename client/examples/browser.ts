// The core where there is no Node: the platform's WebSocket, and crypto and storage that the app brings.
import { type Crypto, Device, MemoryStorage, platformTransport } from '../index.ts'

/** @param crypto an implementation for this platform, for example around a WebAssembly build of libsignal. */
export async function start(crypto: Crypto): Promise<Device> {
  const device = new Device({
    url: 'https://chat.example.org',
    realm: 'https://chat.example.org',
    transport: platformTransport(),
    storage: new MemoryStorage(),
    crypto,
  })
  await device.register()
  device.connect()
  await device.once('state', (state) => state.name === 'live')
  return device
}
