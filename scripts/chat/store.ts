// Opening what is kept: a directory of one's own, one SQLite file in it, held by one process.
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Device } from '../../client/index.ts'
import { libsignal, SqliteStorage, StorageInUse, wsTransport } from '../../client/node.ts'
import { usualRealm } from '../demo/relay.ts'
import { Notebook } from './notebook.ts'
import type { Options } from './options.ts'
import { Refusal } from './refusals.ts'
import { shortName } from './usernames.ts'

const FILE = 'device.db'
const USUAL_URL = 'http://localhost:8080'

/** A store that is open. */
export type Opened = { device: Device; notebook: Notebook; url: string; realm: string }

/** @throws Refusal when it is in use, or cannot be read. */
export function openStore({ data, username, url: given, realm: named }: Options): Opened {
  let storage: SqliteStorage
  try {
    mkdirSync(data, { recursive: true, mode: 0o700 })
    storage = new SqliteStorage(join(data, FILE))
  } catch (error) {
    if (error instanceof StorageInUse)
      throw new Refusal(`${shortName(username)} is open already in another terminal (${data} is in use).`)
    throw new Refusal(`${data} cannot be used: ${error instanceof Error ? error.message : error}`)
  }
  const notebook = new Notebook(storage)
  const before = notebook.home
  const url = given ?? before?.url ?? USUAL_URL
  const realm = named ?? before?.realm ?? usualRealm(url)
  if (before && before.realm !== realm) {
    storage.close()
    throw new Refusal(`This account is on the relay ${before.realm}, not on ${realm}.`)
  }
  const device = new Device({ url, realm, transport: wsTransport(), storage, crypto: libsignal() })
  return { device, notebook, url, realm }
}

/** Removes what `openStore` made there, and nothing else. The store is closed. */
export function forgetStore(data: string): void {
  for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(join(data, FILE + suffix), { force: true })
}
