// `npm run bench:smoke`: what one process on this machine does, load generator and PostgreSQL included.
//   --seconds N   of each message run (default 20)        --pairs N   of users (default 100)
//   --idle        keep a transaction open for 100 s under load: no cliff

import { Agent, get } from 'node:http'
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import postgres from 'postgres'
import { findPostgres } from '../../server/postgres.ts'
import { cpuTimes } from './cpu.ts'
import { type Bench, type Pair, registerPairs, startBench } from './fleet.ts'
import { type Result, runMessages } from './messages.ts'
import { open } from './wire.ts'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '20' },
    pairs: { type: 'string', default: '100' },
    idle: { type: 'boolean', default: false },
  },
})
const seconds = Number(values.seconds)

const ms = (value: number): string => `${value.toFixed(1)} ms`
const say = (text: string): void => console.log(text)
const table = (name: string, result: Result): void => {
  say(
    `${name}: ${Math.round(result.delivered / result.seconds).toLocaleString('en')} messages/s over ${result.seconds.toFixed(0)} s, ${result.errors} refused`,
  )
  for (const [what, p] of [
    ['send → delivered', result.deliver],
    ['send → accepted', result.accept],
  ] as const)
    say(`  ${what.padEnd(17)} P50 ${ms(p.p50)}  P95 ${ms(p.p95)}  P99 ${ms(p.p99)}`)
}

async function connections(bench: Bench, pairs: Pair[]): Promise<void> {
  const clients = pairs.flatMap(({ a, b }) => [a, b])
  const until = performance.now() + 5_000
  let opened = 0
  const began = performance.now()
  const worker = async (share: typeof clients): Promise<void> => {
    for (let i = 0; performance.now() < until; i++) {
      const link = await open(bench.url, share[i % share.length]!.token)
      opened++
      void link.close()
    }
  }
  const workers = Math.min(32, clients.length)
  await Promise.all(Array.from({ length: workers }, (_, w) => worker(clients.filter((_, i) => i % workers === w))))
  say(
    `connections: ${Math.round((opened * 1000) / (performance.now() - began)).toLocaleString('en')} opened/s, each to its Hello`,
  )
}

async function bundles(bench: Bench, pairs: Pair[]): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 32 })
  const clients = pairs.flatMap(({ a, b }) => [a, b])
  const until = performance.now() + 5_000
  const began = performance.now()
  const status = new Map<number, number>()
  const worker = async (first: number): Promise<void> => {
    for (let i = first; performance.now() < until; i += 7) {
      const caller = clients[i % clients.length]!
      const target = clients[(i * 13 + 1) % clients.length]!
      if (target === caller) continue
      await new Promise<void>((resolve, reject) => {
        get(
          `${bench.url}/v1/keys/${target.userId}/1`,
          { agent, headers: { Authorization: `Bearer ${caller.token}` } },
          (response) => {
            status.set(response.statusCode!, (status.get(response.statusCode!) ?? 0) + 1)
            response.resume()
            response.on('end', resolve)
          },
        ).on('error', reject)
      })
    }
  }
  await Promise.all(Array.from({ length: 32 }, (_, i) => worker(i)))
  const all = [...status].map(([code, n]) => `${n} × ${code}`).join(', ')
  const total = [...status.values()].reduce((sum, n) => sum + n, 0)
  say(`bundles: ${Math.round((total * 1000) / (performance.now() - began)).toLocaleString('en')} fetched/s (${all})`)
  agent.destroy()
}

async function idleTransaction(bench: Bench, pairs: Pair[]): Promise<void> {
  const sql = postgres((await findPostgres(bench.dataDir))!, { max: 1, idle_timeout: 0 })
  const hold = await sql.reserve()
  await hold`begin isolation level repeatable read`
  await hold`select txid_current(), count(*) from messages`
  const result = await runMessages(bench.url, pairs, { seconds: 100, outstanding: 20 })
  await hold`rollback`
  hold.release()
  await sql.end()
  table('with a transaction idle for 100 s', result)
  say(`  messages/s each 10 s: ${result.series.map((each) => Math.round(each).toLocaleString('en')).join('  ')}`)
}

const bench = await startBench()
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void bench.stop().finally(() => process.exit(1)))
try {
  say(
    `${cpus().length} cores (${cpus()[0]?.model}), Node ${process.version}; relay, PostgreSQL (fsync on) and generator share them`,
  )
  const pairs = await registerPairs(bench, Number(values.pairs))
  say(`${pairs.length * 2} users registered; 512-byte ciphertexts, one recipient device each`)
  await runMessages(bench.url, pairs, { seconds: 3, outstanding: 20 })
  if (values.idle) await idleTransaction(bench, pairs)
  else {
    const before = cpuTimes(bench.pid)
    const result = await runMessages(bench.url, pairs, { seconds, outstanding: 20 })
    const after = cpuTimes(bench.pid)
    table('closed loop, 20 in flight per pair', result)
    if (before && after) {
      const each = (who: keyof typeof after): string =>
        `${who} ${(((after[who] - before[who]) * 1000) / result.accepted).toFixed(0)}`
      say(`  CPU µs per message: ${each('relay')}, ${each('postgres')}, ${each('generator')}`)
    }
    table(
      'at 5,000 messages/s',
      await runMessages(bench.url, pairs, { seconds: Math.min(seconds, 10), outstanding: 50, rate: 5_000 }),
    )
    await connections(bench, pairs)
    await bundles(bench, pairs)
  }
} finally {
  await bench.stop()
}
