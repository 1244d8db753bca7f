// The command `npm start`: configuration, database, relay, and the way back down. What a relay is made of is in start.ts.
import { once } from 'node:events'
import { createServer } from 'node:net'
import { resolve } from 'node:path'
import { type Config, readConfig, StartError } from './config.ts'
import { describeDatabase, prepareDatabase } from './database-check.ts'
import { describeRedis, joinNodes } from './nodes.ts'
import { type Observe, openObserve } from './observe.ts'
import { type Postgres, startPostgres } from './postgres.ts'
import { startRelay } from './start.ts'

// npm passes Ctrl-C on although the terminal already sent it to everybody: two within this time are one, milliseconds.
const SAME_SIGNAL_MS = 500

type Closable = { close(): Promise<void> }

async function main(): Promise<void> {
  const config = readConfig()
  const observe = openObserve(config.log)
  const machine = new Machine(observe)
  try {
    await checkPort(config)
    const nodes = config.redis ? await machine.join(joinNodes(config.redis, observe)) : null
    if (machine.stopping) return
    const url = config.databaseUrl ?? (await machine.keep(startPostgres({ dataDir: config.dataDir })))
    if (!machine.stopping) await prepareDatabase(url)
    if (machine.stopping) return
    const relay = await machine.serve(startRelay(config, { databaseUrl: url, observe, ...(nodes && { nodes }) }))
    if (!machine.stopping) process.stdout.write(welcome(config, relay.url, url))
  } catch (error) {
    // Whoever asked it to stop gets what he asked for, not a complaint that something was cut short.
    if (machine.stopping) return
    await machine.release()
    observe.flush()
    throw error
  }
}

/** What runs in this process: taken down in order, once, whatever the reason. */
class Machine {
  stopping = false
  #postgres: Promise<Postgres> | null = null
  #relay: Promise<Closable> | null = null
  #nodes: Promise<Closable> | null = null
  #stoppingSince = 0
  readonly #observe: Observe

  constructor(observe: Observe) {
    this.#observe = observe
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => this.#signalled(signal))
    for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
      process.on(event, (error: unknown) => {
        observe.log.fatal({ err: error }, 'the relay ends because of a defect')
        void this.#down(1)
      })
    }
  }

  /** @returns the URL once it is up. */
  async keep(starting: Promise<Postgres>): Promise<string> {
    this.#postgres = starting
    const { url, died } = await starting
    void died.then(() => {
      this.#observe.log.fatal('the embedded PostgreSQL ended by itself: see postgres.log in the data directory')
      void this.#down(1)
    })
    return url
  }

  join<Nodes extends Closable>(joining: Promise<Nodes>): Promise<Nodes> {
    this.#nodes = joining
    return joining
  }

  serve<Relay extends Closable>(starting: Promise<Relay>): Promise<Relay> {
    this.#relay = starting
    return starting
  }

  #signalled(signal: string): void {
    if (!this.stopping) {
      this.#observe.log.info({ signal }, 'stopping')
      void this.#down(0)
    } else if (Date.now() - this.#stoppingSince > SAME_SIGNAL_MS) {
      // PostgreSQL is not left behind: its guard sees this process end.
      this.#observe.flush()
      process.exit(1)
    }
  }

  async #down(code: number): Promise<void> {
    if (this.stopping) return
    this.stopping = true
    this.#stoppingSince = Date.now()
    await this.release().catch((error: unknown) => this.#observe.log.error({ err: error }, 'stopping went wrong'))
    this.#observe.flush()
    process.exit(code)
  }

  /** Drains the relay, then leaves the other nodes and stops PostgreSQL; what is still starting is waited for. */
  async release(): Promise<void> {
    const relay = await this.#relay?.catch(() => null)
    await relay?.close().catch((error: unknown) => this.#observe.log.error({ err: error }, 'draining went wrong'))
    const nodes = await this.#nodes?.catch(() => null)
    await nodes?.close()
    const postgres = await this.#postgres?.catch(() => null)
    await postgres?.stop()
  }
}

// Before anything is started: an operator who starts a second relay by mistake is told at once.
async function checkPort({ host, port }: Config): Promise<void> {
  const server = createServer()
  try {
    server.listen(port, host)
    await once(server, 'listening')
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'EADDRINUSE') {
      throw new StartError(
        `port ${port} on ${host} is in use; stop what listens there, or choose another: PORT=${port + 1}`,
      )
    }
    if (code === 'EACCES')
      throw new StartError(`port ${port} needs rights this user does not have; for example PORT=8080`)
    throw new StartError(`cannot listen on HOST=${host}: ${message}; for example HOST=127.0.0.1`)
  } finally {
    if (server.listening) {
      server.close()
      await once(server, 'close')
    }
  }
}

const WHO = {
  open: 'anybody may register',
  invite: 'by invitation: npm run invite',
  issuer: 'with a token of the configured issuer',
}

function welcome(config: Config, url: string, databaseUrl: string): string {
  const place = config.databaseUrl ? describeDatabase(databaseUrl) : `embedded PostgreSQL in ${resolve(config.dataDir)}`
  return `
Sealpost relays.

  HTTP        ${url}
  WebSocket   ${url.replace(/^http/, 'ws')}/v1/ws
  realm       ${config.realm}
  data        ${place}
  nodes       ${config.redis ? `joined by ${describeRedis(config.redis)}` : 'this one only'}
  accounts    ${WHO[config.registration]}

Try next, in another terminal:
  npm run demo
  curl ${url}/healthz

Ctrl-C stops it.

`
}

await main().catch((error: unknown) => {
  if (!(error instanceof StartError)) throw error
  for (const line of error.message.split('\n')) process.stderr.write(`sealpost: ${line}\n`)
  process.exit(1)
})
