// `npm test`: vitest, after a look at what its tests need of the machine. Where this is root on Debian, what is missing is installed;
// elsewhere one line says what to install. `--without-redis` leaves out the tests that need Redis or HAProxy, and says so.
import { spawn } from 'node:child_process'
import { HAPROXY, obtain, REDIS } from './debian.ts'

const WITHOUT = '--without-redis'
const env = { ...process.env }
const args = process.argv.slice(2).filter((each) => each !== WITHOUT)

if (process.argv.includes(WITHOUT)) {
  console.log('Without Redis and HAProxy: the tests of several nodes that need them are left out.')
  env.SEALPOST_TEST_WITHOUT_REDIS = '1'
} else {
  for (const wanted of [REDIS, HAPROXY]) {
    const { missing } = await obtain(wanted, (line) => console.log(`tests: ${line}`))
    if (missing === null) continue
    console.error(`${missing}; or leave out the tests that need it: npm test -- ${WITHOUT}`)
    process.exit(1)
  }
}

const child = spawn(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', ...args], { stdio: 'inherit', env })
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal))
child.on('exit', (code, signal) => process.exit(signal ? 1 : (code ?? 1)))
