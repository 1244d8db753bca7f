// `npm run bench:nodes`: what it costs that sender and recipient are on different nodes. Two relays as processes, one PostgreSQL, one
// Redis; as many pairs on one node as on both, at the same time and the same rate, so that nothing else differs.
//   --seconds N   of the measured run (default 30)   --pairs N   of each kind (default 20)   --rate N   messages/s of each (default 200)
import { mkdtempSync, rmSync } from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { startPostgres } from '../../server/postgres.ts'
import { startRedis } from '../../test/support/redis.ts'
import { type Bench, registerPairs, startBench } from './fleet.ts'
import { type Percentiles, runMessages } from './messages.ts'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '30' },
    pairs: { type: 'string', default: '20' },
    rate: { type: 'string', default: '200' },
  },
})
const [seconds, count, rate] = [Number(values.seconds), Number(values.pairs), Number(values.rate)]
/** What the other node may cost at the median. */
const ADDS_MAX_MS = 5
const WARM_SECONDS = 5

const line = (name: string, { p50, p95, p99 }: Percentiles): string =>
  `  ${name.padEnd(34)} P50 ${p50.toFixed(2)} ms  P95 ${p95.toFixed(2)} ms  P99 ${p99.toFixed(2)} ms`

const dataDir = mkdtempSync(join(tmpdir(), 'sealpost-bench-nodes-'))
const postgres = await startPostgres({ dataDir, settings: {}, ephemeral: true })
const redis = await startRedis()
const nodes: Bench[] = []
try {
  const common = { DATABASE_URL: postgres.url, REDIS_URL: redis.urls[0]!, SEALPOST_STRANGERS: 'open' }
  while (nodes.length < 2) nodes.push(await startBench(common))
  const [one, two] = nodes as [Bench, Bench]
  const [near, far] = [await registerPairs(one, count), await registerPairs(one, count)]
  const run = (forSeconds: number) =>
    Promise.all([
      runMessages(one.url, near, { seconds: forSeconds, outstanding: 20, rate }),
      runMessages(one.url, far, { seconds: forSeconds, outstanding: 20, rate, receiversUrl: two.url }),
    ])
  await run(WARM_SECONDS)
  console.log(`load of this machine before the run: ${loadavg()[0]!.toFixed(2)}`)
  const [same, other] = await run(seconds)
  console.log(`${seconds} s, ${count} pairs of each kind, ${same.delivered} and ${other.delivered} messages delivered`)
  console.log('send → delivered')
  console.log(line('both on one node', same.deliver))
  console.log(line('sender and recipient on different', other.deliver))
  const adds = other.deliver.p50 - same.deliver.p50
  console.log(
    `the other node adds ${adds.toFixed(2)} ms at P50, ${(other.deliver.p99 - same.deliver.p99).toFixed(2)} ms at P99`,
  )
  if (adds >= ADDS_MAX_MS) {
    console.error(`that is not under ${ADDS_MAX_MS} ms`)
    process.exitCode = 1
  }
} finally {
  await Promise.all(nodes.map((each) => each.stop()))
  await redis.close()
  await postgres.stop()
  rmSync(dataDir, { recursive: true, force: true })
}
