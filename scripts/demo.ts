// `npm run demo`: finds a relay or starts one of its own, lets real libsignal clients talk through it, exit code 0 only if every
// step held. The steps are in demo/story.ts.
//
//   npm run demo                          the relay on PORT (8080), or one of its own if none runs there
//   npm run demo -- http://host:port      that relay; --realm when it has another than http://localhost:port
//   npm run demo -- --own                 one of its own in any case
import { parseArgs } from 'node:util'
import { Broken, Narration } from './demo/narration.ts'
import { lookFor, type OwnRelay, type RunningRelay, startOwnRelay, usualRealm } from './demo/relay.ts'
import { tell } from './demo/story.ts'

// npm passes Ctrl-C on although the terminal already sent it: two within this time are one, milliseconds.
const SAME_SIGNAL_MS = 500
const START_WITHIN_MS = 60_000
const INTERRUPTED = 130

const narration = new Narration()
let own: ReturnType<typeof startOwnRelay> | null = null
let interruptedAt = 0

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    if (interruptedAt > 0) {
      // Even now nothing stays behind: the guard of our relay sees this process end.
      if (performance.now() - interruptedAt > SAME_SIGNAL_MS) process.exit(INTERRUPTED)
      return
    }
    interruptedAt = performance.now()
    narration.line('\n')
    narration.aside('Interrupted; stopping.')
    narration.hush()
    void (own?.stop() ?? Promise.resolve()).finally(() => process.exit(INTERRUPTED))
  })
}

type Choice = { url: string | undefined; realm: string | undefined; alone: boolean }

function readArguments(): Choice {
  const { values, positionals } = parseArgs({
    options: { own: { type: 'boolean', default: false }, realm: { type: 'string' } },
    allowPositionals: true,
  })
  const [given, ...more] = positionals
  if (more.length > 0) throw new Error(`one relay at a time: ${positionals.join(' ')}`)
  if (given !== undefined && !/^https?:\/\/[^/]+\/?$/.test(given))
    throw new Error(`${given} is not the URL of a relay; for example http://localhost:8080`)
  return { url: given?.replace(/\/$/, ''), realm: values.realm ?? process.env.SEALPOST_REALM, alone: values.own }
}

async function findRelay({ url, realm, alone }: Choice): Promise<RunningRelay | OwnRelay> {
  const usual = url ?? `http://localhost:${process.env.PORT || 8080}`
  return narration.step(
    url ? 'The relay you named' : 'A relay',
    async (say) => {
      const found = alone ? 'nothing' : await lookFor(usual)
      if (found === 'relay') {
        say(`${usual} is one that runs already.`)
        return { url: usual, realm: realm ?? usualRealm(usual) }
      }
      const why = found === 'nothing' ? `nothing answers at ${usual}` : `${usual}: ${found.other}`
      if (url) throw new Broken(`${why}\nstart one: npm start`)
      own = startOwnRelay()
      const relay = await own.relay
      if (!alone) say(`${why[0]!.toUpperCase()}${why.slice(1)}.`)
      say(`Started one at ${relay.url}, with a PostgreSQL of its own,`)
      say('in a temporary directory that is removed at the end.')
      return relay
    },
    START_WITHIN_MS,
  )
}

async function main(): Promise<boolean> {
  const choice = readArguments()
  narration.title('Two people, three devices, and a relay that cannot read what it carries.')
  let relay: RunningRelay | OwnRelay | null = null
  try {
    relay = await findRelay(choice)
    await tell(narration, relay)
  } catch {
    const complaints = relay && 'complaints' in relay ? relay.complaints() : ''
    if (complaints) narration.line(`The relay said:\n${complaints}\n`)
    narration.line(`Step ${narration.steps} did not hold.`)
    return false
  } finally {
    await (own as ReturnType<typeof startOwnRelay> | null)?.stop()
  }
  narration.line(`All ${narration.steps} steps held, in ${narration.seconds} s.`)
  if (!own) narration.aside('The two accounts stay on that relay; their private keys end with this process.')
  return true
}

await main().then(
  (held) => {
    if (interruptedAt === 0) process.exit(held ? 0 : 1)
  },
  (error: unknown) => {
    process.stderr.write(`demo: ${(error as Error).message}\n`)
    process.exit(1)
  },
)
