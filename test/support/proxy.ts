// A TCP proxy between a relay and its PostgreSQL or Redis that loses what it is told to lose: answers, requests, everything.
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { ownPort } from './ports.ts'

/** What a lost exchange was. */
export type Lost = Promise<void>

export type LossyProxy = {
  /** The given database through the proxy. */
  url: string
  /**
   * Cuts the connection on which the needle is asked next. `answer`: once PostgreSQL has answered, so the commit happened and
   * nobody hears of it. `request`: before PostgreSQL hears of it.
   * @returns resolves when it was cut.
   */
  lose(what: 'answer' | 'request', needle: string): Lost
  /**
   * As when the other host loses its power: what is connected now stays so and says nothing any more, not even that it ended, however
   * it is asked. New connections get through.
   */
  vanish(): void
  /** Cuts everything; connections are refused, as by a machine whose PostgreSQL has ended. */
  down(): Promise<void>
  /** Lets connections through again. */
  up(): Promise<void>
  close(): Promise<void>
}

/** ReadyForQuery, outside of a transaction: the end of an answer whose statement is committed. */
const READY = Buffer.from([0x5a, 0, 0, 0, 5, 0x49])

export async function openProxy(databaseUrl: string): Promise<LossyProxy> {
  const target = new URL(databaseUrl)
  const sockets = new Set<Socket>()
  const pairs = new Set<{ vanished: boolean }>()
  let armed: { what: 'answer' | 'request'; needle: Buffer; cut(): void } | null = null

  const server = createServer({ allowHalfOpen: true }, (client) => {
    const pair = { vanished: false }
    pairs.add(pair)
    const upstream = connect(Number(target.port || 5432), target.hostname)
    let swallowing: { answer: Buffer; cut(): void } | null = null
    const end = () => {
      client.destroy()
      upstream.destroy()
    }
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => {})
      socket.on('close', () => {
        sockets.delete(socket)
        pairs.delete(pair)
        if (!pair.vanished) end()
      })
    }
    client.on('end', () => {
      if (!pair.vanished) end()
    })
    client.on('data', (chunk) => {
      if (pair.vanished) return
      if (armed && chunk.includes(armed.needle)) {
        const { what, cut } = armed
        armed = null
        if (what === 'request') {
          end()
          return cut()
        }
        swallowing = { answer: Buffer.alloc(0), cut }
      }
      upstream.write(chunk)
    })
    upstream.on('data', (chunk) => {
      if (pair.vanished) return
      if (!swallowing) return client.write(chunk)
      swallowing.answer = Buffer.concat([swallowing.answer, chunk])
      if (!swallowing.answer.subarray(-READY.length).equals(READY)) return
      end()
      swallowing.cut()
    })
  })
  const port = await ownPort()
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  const url = new URL(databaseUrl)
  url.hostname = '127.0.0.1'
  url.port = String(port)
  const down = async () => {
    if (!server.listening) return
    server.close()
    for (const socket of sockets) socket.destroy()
    await once(server, 'close')
  }
  return {
    url: url.href,
    lose: (what, needle) =>
      new Promise((resolve) => {
        armed = { what, needle: Buffer.from(needle), cut: resolve }
      }),
    vanish() {
      for (const pair of pairs) pair.vanished = true
    },
    down,
    up: async () => {
      server.listen(port, '127.0.0.1')
      await once(server, 'listening')
    },
    close: down,
  }
}
