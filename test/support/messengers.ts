// Messengers in terminals of their own, against a test relay that can be stopped and started again at its address.
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { testDatabase } from './database.ts'
import { type TestRelay, testRelay } from './relay.ts'
import { Terminal } from './terminal.ts'

type Start = { args?: string[]; env?: Record<string, string>; columns?: number; rows?: number; store?: string }

/** A relay and whoever talks through it. */
export type Messengers = {
  url: string
  realm: string
  /** A messenger, started and connected. Twice with one name: the same store. */
  start(name: string, options?: Start): Promise<Terminal>
  /** A messenger in whatever state. */
  launch(name: string, options?: Start): Terminal
  /** Where that messenger keeps its things. */
  store(name: string): string
  relay: { stop(): Promise<void>; start(config?: { realm: string }): Promise<void> }
  close(): Promise<void>
}

/** An address that stays while the relay behind it comes and goes: a port of its own could be taken meanwhile. */
async function openDoor(to: () => string | null): Promise<{ url: string; close(): void }> {
  const sockets = new Set<Socket>()
  const server = createServer((client) => {
    const target = to()
    const { hostname, port } = new URL(target ?? 'http://127.0.0.1:1')
    const relay = target ? connect(Number(port), hostname) : null
    for (const [one, other] of [
      [client, relay],
      [relay, client],
    ] as const) {
      if (!one) continue
      sockets.add(one)
      one.on('error', () => {})
      one.on('close', () => {
        sockets.delete(one)
        other?.destroy()
      })
      if (other) one.pipe(other)
    }
    if (!relay) client.destroy()
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    close: () => {
      for (const each of sockets) each.destroy()
      server.close()
    },
  }
}

/** Everything is gone after `close`. @param options.strangers whether strangers are asked, as by a relay nobody configured; not unless said. */
export async function messengers({ strangers = 'open' }: { strangers?: 'ask' | 'open' } = {}): Promise<Messengers> {
  const db = await testDatabase()
  const root = mkdtempSync(join(tmpdir(), 'sealpost-chat-'))
  let relay: TestRelay | null = await testRelay({ db, config: { strangers } })
  const { realm } = relay
  const door = await openDoor(() => relay?.url ?? null)
  const { url } = door
  const terminals: Terminal[] = []
  const store = (name: string) => join(root, name)
  const launch = (name: string, { args = [], store: place = name, ...options }: Start = {}) => {
    const where = ['--url', url, '--realm', realm, '--data', store(place)]
    const terminal = new Terminal('scripts/chat.tsx', ['--as', name, ...where, ...args], options)
    terminals.push(terminal)
    return terminal
  }
  return {
    url,
    realm,
    store,
    launch,
    async start(name, options) {
      const terminal = launch(name, options)
      await terminal.see('● connected')
      return terminal
    },
    relay: {
      async stop() {
        const running = relay
        relay = null
        await running?.close()
      },
      async start(config) {
        relay = await testRelay({ db, config: { strangers, ...config } })
      },
    },
    async close() {
      await Promise.all(terminals.map((each) => each.close()))
      door.close()
      await relay?.close()
      await db.close()
      rmSync(root, { recursive: true, force: true })
    },
  }
}
