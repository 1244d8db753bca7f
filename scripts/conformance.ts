// `npm run conformance`: the numbered clauses of proto/README.md against a running relay, or against a client. docs/conformance.md.
//
//   npm run conformance -- --url http://localhost:8080
//   npm run conformance -- --client --command "python3 harness.py"
import { writeFileSync } from 'node:fs'
import { Command, InvalidArgumentError } from 'commander'
import { countOf } from './conformance/accounting.ts'
import { isWanted, protocolClauses } from './conformance/clauses.ts'
import { runClient } from './conformance/client/run.ts'
import { usualRealm } from './conformance/realm.ts'
import { runRelay } from './conformance/relay/run.ts'
import { type Run, reportJson, reportJunit } from './conformance/report.ts'
import { table } from './conformance/table.ts'

type Options = {
  url?: string
  realm?: string
  invitation?: string[]
  client?: boolean
  command?: string
  listen: number
  host: string
  only?: string[]
  clause?: string[]
  slow?: boolean
  patience?: number
  report?: string
  junit?: string
}

const FAILED = 1
/** Wrong arguments, or nothing to test. */
const USELESS = 2

const list = (text: string, before: string[] = []): string[] => [...before, ...text.split(',').filter(Boolean)]
function origin(text: string): string {
  if (!/^https?:\/\/[^/?#]+\/?$/.test(text)) throw new InvalidArgumentError('for example http://localhost:8080')
  return text.replace(/\/$/, '')
}
function seconds(text: string): number {
  if (!/^\d{1,4}$/.test(text) || Number(text) === 0) throw new InvalidArgumentError('whole seconds')
  return Number(text)
}
function port(text: string): number {
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65_535) throw new InvalidArgumentError('a port, or 0 for any')
  return Number(text)
}

const program = new Command('conformance')
  .description('Runs the clauses of proto/README.md against a relay (--url), or against a client (--client --command).')
  .option('--url <url>', 'the relay under test', origin)
  .option('--realm <realm>', 'its realm, where that is not the url (127.0.0.1 counts as localhost)')
  .option('--invitation <code>', 'for relays that ask for one; several by comma, each used once', list)
  .option('--client', 'test a client instead')
  .option('--command <command>', 'starts the client’s harness')
  .option('--listen <port>', 'port of the scripted relay; 0 = any, several at a time', port, 0)
  .option('--host <host>', 'address of the scripted relay', '127.0.0.1')
  .option('--only <sections>', 'sections by letter, for example C,S', list)
  .option('--clause <clauses>', 'clauses, for example S-4.3; a heading means its parts too', list)
  .option('--slow', 'also what takes long by nature')
  .option('--patience <seconds>', 'how long an answer is waited for', seconds)
  .option('--report <file>', 'writes the report as JSON')
  .option('--junit <file>', 'writes the checks as JUnit XML')
  .allowExcessArguments(false)
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : USELESS))

async function wantedOf({ only = [], clause = [] }: Options): Promise<string[]> {
  const known = await protocolClauses()
  const wanted = [...only, ...clause]
  for (const each of wanted)
    if (!known.some(({ id }) => isWanted(id, [each]))) throw new Error(`proto/README.md has no clause ${each}`)
  return wanted
}

/** Tells a person that it is working. */
function progress(): { told(): void; end(): void } {
  if (!process.stderr.isTTY) return { told: () => {}, end: () => {} }
  let count = 0
  return {
    told: () => process.stderr.write(`\r${++count} checks`),
    end: () => process.stderr.write('\r\u001b[K'),
  }
}

async function run(options: Options): Promise<Run> {
  const wanted = await wantedOf(options)
  const startedAt = new Date()
  const began = performance.now()
  const { told, end } = progress()
  const elapsed = (): number => Math.round((performance.now() - began) / 100) / 10
  const { patience } = options
  const shared = { wanted, slow: options.slow === true, told, ...(patience && { patienceMs: patience * 1000 }) }
  try {
    if (options.client) {
      if (!options.command) throw new Error('--client needs --command')
      const { command, listen, host } = options
      const { outcomes, clauses, name } = await runClient({ command, listen, host, ...shared })
      return { part: 'client', target: name, realm: '', startedAt, seconds: elapsed(), outcomes, clauses, notes: [] }
    }
    if (!options.url) throw new Error('--url is missing; for example --url http://localhost:8080')
    const { url, realm = usualRealm(options.url), invitation: invitations = [] } = options
    const { outcomes, clauses, users } = await runRelay({ url, realm, invitations, ...shared })
    const notes = [
      `${users} accounts stay on the relay: the protocol has no way to end one. Their keys end with this process.`,
    ]
    return { part: 'relay', target: url, realm, startedAt, seconds: elapsed(), outcomes, clauses, notes }
  } finally {
    end()
  }
}

try {
  const options = program.parse().opts<Options>()
  const done = await run(options)
  const colour = process.stdout.isTTY === true && !process.env.NO_COLOR
  process.stdout.write(table(done, { colour, columns: process.stdout.columns ?? 120 }))
  if (options.report) writeFileSync(options.report, reportJson(done))
  if (options.junit) writeFileSync(options.junit, reportJunit(done))
  process.exitCode = countOf(done.clauses, 'fail') > 0 ? FAILED : 0
} catch (error) {
  process.stderr.write(`conformance: ${(error as Error).message}\n`)
  process.exitCode = USELESS
}
