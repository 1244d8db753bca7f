// The command `npm start`: configuration, database, relay, and the way back down. What a relay is made of is in start.ts.
import { once } from 'node:events'
import { createServer } from 'node:net'
import { resolve } from 'node:path'
import { type Config, readConfig, StartError } from './config.ts'
import { describeDatabase, prepareDatabase } from './database-check.ts'
import { Machine } from './machine.ts'
import { describeRedis, joinNodes } from './nodes.ts'
import { openObserve } from './observe.ts'
import { startPostgres } from './postgres.ts'
import { startRelay } from './start.ts'
import { startWorkers } from './workers.ts'

// Of the embedded PostgreSQL: what a relay takes (database.ts), and the rest for commands, backups and people.
const CONNECTIONS_PER_RELAY = 25
const CONNECTIONS_SPARE = 75

type Serving = { url: string; close(): Promise<void> }

async function main(): Promise<void> {
  const config = readConfig()
  const observe = openObserve(config.log)
  const machine = new Machine(observe, config.drain.graceMs)
  try {
    await checkPort(config)
    const isOne = config.workers === 1
    const nodes = isOne && config.redis ? await machine.join(joinNodes(config.redis, observe)) : null
    if (machine.stopping) return
    const settings = { max_connections: String(config.workers * CONNECTIONS_PER_RELAY + CONNECTIONS_SPARE) }
    const url = config.databaseUrl ?? (await machine.keep(startPostgres({ dataDir: config.dataDir, settings })))
    if (!machine.stopping) await prepareDatabase(url)
    if (machine.stopping) return
    const options = { databaseUrl: url, observe, ...(nodes && { nodes }) }
    const relay = await machine.serve<Serving>(isOne ? startRelay(config, options) : startWorkers(config, options))
    if (!machine.stopping) process.stdout.write(welcome(config, relay.url, url))
  } catch (error) {
    // Whoever asked it to stop gets what he asked for, not a complaint that something was cut short.
    if (machine.stopping) return
    await machine.release()
    observe.flush()
    throw error
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
  const workers = config.workers > 1 ? `  workers     ${config.workers}, all on this port\n` : ''
  return `
Sealpost relays.

  HTTP        ${url}
  WebSocket   ${url.replace(/^http/, 'ws')}/v1/ws
  realm       ${config.realm}
  data        ${place}
${workers}  nodes       ${config.redis ? `joined by ${describeRedis(config.redis)}` : 'this one only'}
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
