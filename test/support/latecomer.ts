// A network that delivers late: it keeps what its first connection says, also when whoever said it is long gone, until it is let through.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

export type Latecomer = {
  /** http:// of the target through it. */
  url: string
  /** Resolves when the first connection has said something, which is then held. */
  held: Promise<void>
  /** What was held reaches the target. Resolves with the first thing it answers. */
  letThrough(): Promise<Buffer>
  close(): Promise<void>
}

/** @param target http:// with a port. Connections after the first pass at once. */
export async function openLatecomer(target: string): Promise<Latecomer> {
  const { hostname, port } = new URL(target)
  const sockets = new Set<Socket>()
  const watched = (socket: Socket): Socket => {
    sockets.add(socket)
    return socket.on('error', () => {}).on('close', () => sockets.delete(socket))
  }
  let hold: ((said: Buffer) => void) | null = null
  const said = new Promise<Buffer>((resolve) => {
    hold = resolve
  })
  const server = createServer((client) => {
    watched(client)
    if (hold) {
      client.once('data', hold)
      hold = null
      return
    }
    const upstream = watched(connect(Number(port), hostname))
    client.pipe(upstream).pipe(client)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    held: said.then(() => {}),
    letThrough: async () => {
      const upstream = watched(connect(Number(port), hostname))
      upstream.write(await said)
      const [answer] = await once(upstream, 'data')
      return answer as Buffer
    },
    close: async () => {
      server.close()
      for (const each of sockets) each.destroy()
      await once(server, 'close')
    },
  }
}
