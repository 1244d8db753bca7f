// Which ports are free on this machine, and when something answers on one.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

const LOOK_EVERY_MS = 20

/** @param port 0 = any. @returns the port, or null when it is taken. */
async function tryPort(host: string, port: number): Promise<number | null> {
  const server = createServer()
  try {
    server.listen(port, host)
    await once(server, 'listening')
    return (server.address() as AddressInfo).port
  } catch {
    return null
  } finally {
    if (server.listening) {
      server.close()
      await once(server, 'close')
    }
  }
}

export const isFree = async (host: string, port: number): Promise<boolean> => (await tryPort(host, port)) !== null

/** The first free ones of this machine from there on; 0: any. */
export async function freePorts(from: number, count: number): Promise<number[]> {
  const found: number[] = []
  for (let port = from || 65_536; found.length < count && port < 65_536; port++)
    if (await isFree('127.0.0.1', port)) found.push(port)
  while (found.length < count) found.push((await tryPort('127.0.0.1', 0))!)
  return found
}

/** Resolves when somebody listens there. @param given.ended rejects the wait: nobody will. */
export async function listens(host: string, port: number, ended: Promise<unknown>): Promise<void> {
  let over = false
  void ended.then(() => {
    over = true
  })
  for (;;) {
    const socket = connect(port, host)
    const opened = await once(socket, 'connect').then(
      () => true,
      () => false,
    )
    socket.destroy()
    if (opened) return
    if (over) throw new Error(`it ended before it listened on port ${port}`)
    await delay(LOOK_EVERY_MS)
  }
}
