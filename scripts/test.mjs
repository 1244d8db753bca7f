#!/usr/bin/env node
// `npm test`: vitest, after a look at what its tests need of the machine. Where this is root on Debian, what is missing is installed;
// elsewhere one line says what to install. `--without-redis` leaves out the tests that need a redis-server, and says so.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'

const args = process.argv.slice(2).filter((each) => each !== '--without-redis')
const without = args.length < process.argv.length - 2
const found = (program) => spawnSync('sh', ['-c', `command -v ${program}`]).status === 0
const env = { ...process.env }

if (without) {
  console.log('Without Redis: the tests of hints and presence between nodes through Redis are left out.')
  env.SEALPOST_TEST_WITHOUT_REDIS = '1'
} else if (!found('redis-server')) {
  const isRootOnDebian = process.getuid?.() === 0 && existsSync('/etc/debian_version')
  if (isRootOnDebian) {
    console.log('Installing redis-server, which some of the tests need.')
    const apt = (...words) =>
      spawnSync('apt-get', words, { stdio: 'inherit', env: { ...env, DEBIAN_FRONTEND: 'noninteractive' } })
    apt('update', '-qq')
    apt('install', '-y', '-qq', '--no-install-recommends', 'redis-server')
  }
  if (!found('redis-server')) {
    console.error(
      'redis-server is missing: install Redis 7 or newer (Debian: apt-get install redis-server), or leave its tests out: npm test -- --without-redis',
    )
    process.exit(1)
  }
}

const child = spawn(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', ...args], { stdio: 'inherit', env })
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
child.on('exit', (code, signal) => process.exit(signal ? 1 : code))
