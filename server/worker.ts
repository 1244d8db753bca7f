// One of several workers: a relay in a process that workers.ts starts, and that ends when that one does.
import { readConfig, StartError } from './config.ts'
import { Machine } from './machine.ts'
import { joinNodes } from './nodes.ts'
import { type Exposition, type Observe, openObserve } from './observe.ts'
import { startRelay } from './start.ts'
import type { FromWorker, ToWorker } from './workers.ts'

type Start = Extract<ToWorker, { kind: 'start' }>

const config = readConfig()

function say(what: FromWorker, then: () => void = () => {}): void {
  process.send!(what, undefined, undefined, then)
}

/** Scrapes under way: whoever asks one worker gets the metrics of all. */
const scrapes = new Map<number, (exposition: Exposition) => void>()
let scrapeId = 0
const scrape = (): Promise<Exposition> =>
  new Promise((resolve) => {
    scrapes.set(++scrapeId, resolve)
    say({ kind: 'scrape', id: scrapeId })
  })

async function work({ number, port, databaseUrl }: Start, observe: Observe): Promise<void> {
  const machine = new Machine(observe, config.drain.graceMs, ['SIGTERM'])
  try {
    const nodes = await machine.join(joinNodes(config.redis!, observe))
    if (machine.stopping) return
    const options = { databaseUrl, observe: { ...observe, exposition: scrape }, nodes, sharesPort: true }
    const relay = await machine.serve(startRelay({ ...config, port }, options))
    if (!machine.stopping) say({ kind: 'ready', url: relay.url })
  } catch (error) {
    if (machine.stopping) return
    await machine.release()
    const complaint = error instanceof StartError ? error.message : null
    if (complaint === null) observe.log.fatal({ err: error, worker: number }, 'cannot start')
    observe.flush()
    say({ kind: 'failed', complaint }, () => process.exit(1))
  }
}

if (!process.send) {
  process.stderr.write('sealpost: this is not a command; WORKERS=2 npm start starts workers\n')
  process.exit(1)
}
let observe: Observe | null = null
// A terminal tells everybody; the process that started this one passes it on when it is time.
process.on('SIGINT', () => {})
// It is gone, and with it the embedded PostgreSQL. What was acknowledged is committed. I1
process.on('disconnect', () => {
  observe?.flush()
  process.exit(1)
})
process.on('message', async (told: ToWorker) => {
  if (told.kind === 'start') {
    observe = openObserve({ ...config.log, worker: told.number })
    void work(told, observe)
  } else if (told.kind === 'count') {
    if (observe) say({ kind: 'counted', id: told.id, snapshot: await observe.snapshot() })
  } else {
    scrapes.get(told.id)?.(told.exposition)
    scrapes.delete(told.id)
  }
})
say({ kind: 'hello' })
