// Devices of the SDK against a test relay, in memory or on SQLite, and what tests wait for.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Device, type DeviceOptions, MemoryStorage, type Storage } from '../../client/index.ts'
import { libsignal, SqliteStorage, wsTransport } from '../../client/node.ts'
import type { TestRelay } from './relay.ts'
import { live } from './watching.ts'

export { live, quiet, say, shown, texts, until } from './watching.ts'

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

/** One more device of that user. */
export async function linked(
  primary: Device,
  relay: Pick<TestRelay, 'url' | 'realm'>,
  options: Options = {},
): Promise<Device> {
  const made = device(relay, options)
  const request = made.requestLink()
  const uri = await request.once('uri', (uri) => uri !== null)
  const [offer] = await Promise.all([request.once('offer'), primary.approveLink(uri!)])
  await offer.accept()
  return live(made)
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
