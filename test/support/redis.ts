// A real redis-server for a test file, on a port of its own, keeping nothing on disk; or three of them as a cluster.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { ownPort } from './ports.ts'

export type TestRedis = {
  /** One per server. */
  urls: string[]
  cluster: boolean
  /** A command on every server, as redis-cli would send it. */
  command(...words: string[]): Promise<unknown[]>
  /** The same on one of them. */
  commandAt(server: number, ...words: string[]): Promise<unknown>
  /** As by kill -9; start() brings an empty one back on the same port. */
  kill(): Promise<void>
  start(): Promise<void>
  close(): Promise<void>
}

/** @throws Error saying what to install. */
export async function startRedis({ servers = 1 }: { servers?: 1 | 3 } = {}): Promise<TestRedis> {
  const cluster = servers > 1
  const directory = mkdtempSync(join(tmpdir(), 'sealpost-redis-'))
  const ports: number[] = []
  while (ports.length < servers) ports.push(await ownPort())
  let running: ChildProcess[] = []
  const connect = (port: number): Redis => {
    const client = new Redis(port, '127.0.0.1', { maxRetriesPerRequest: null })
    client.on('error', () => {})
    return client
  }
  async function commandAt(server: number, ...words: string[]): Promise<unknown> {
    const client = connect(ports[server]!)
    try {
      return await client.call(words[0]!, ...words.slice(1))
    } finally {
      client.disconnect()
    }
  }
  const each = (...words: string[]): Promise<unknown[]> =>
    Promise.all(ports.map((_, server) => commandAt(server, ...words)))

  async function start(): Promise<void> {
    running = ports.map((port) => {
      const own = cluster ? ['--cluster-enabled', 'yes', '--cluster-config-file', `${port}.conf`] : []
      const child = spawn(
        'redis-server',
        [
          ...['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', directory],
          ...['--loglevel', 'warning', ...own],
        ],
        { stdio: 'ignore' },
      )
      child.on('error', () => {})
      return child
    })
    if (running.some((child) => child.pid === undefined))
      throw new Error('redis-server is not on the PATH: install it (Debian: apt-get install redis-server)')
    await each('ping')
  }
  async function stop(): Promise<void> {
    await Promise.all(
      running.splice(0).map(async (child) => {
        const ended = once(child, 'exit')
        child.kill('SIGKILL')
        await ended
      }),
    )
  }
  async function join3(): Promise<void> {
    for (const [i, port] of ports.entries()) {
      const client = connect(port)
      const [from, to] = [Math.floor((i * 16384) / servers), Math.floor(((i + 1) * 16384) / servers) - 1]
      await client.call('cluster', 'addslotsrange', `${from}`, `${to}`)
      for (const other of ports) if (other !== port) await client.call('cluster', 'meet', '127.0.0.1', `${other}`)
      client.disconnect()
    }
    const isWhole = async (): Promise<boolean> =>
      (await each('cluster', 'info')).every(
        (info) => /cluster_state:ok/.test(String(info)) && /cluster_known_nodes:3/.test(String(info)),
      )
    while (!(await isWhole()));
  }

  try {
    await start()
    if (cluster) await join3()
  } catch (error) {
    await stop()
    rmSync(directory, { recursive: true, force: true })
    throw error
  }
  return {
    urls: ports.map((port) => `redis://127.0.0.1:${port}`),
    cluster,
    command: each,
    commandAt,
    kill: stop,
    start,
    async close() {
      await stop()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}
