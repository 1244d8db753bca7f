// How a started relay ends when that is hard, and the operator's commands beside it. Part of `npm run test:processes`.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { TestDevice } from '../support/keys.ts'
import { processesWith, runScript, until } from '../support/processes.ts'
import { register, starting, up } from '../support/starting.ts'

const own = starting()

test('SIGTERM while it is still starting ends it, too', async () => {
  const relay = own.start()
  await until(() =>
    readFile(join(own.dataDir, 'relay.pid')).then(
      () => true,
      () => false,
    ),
  )
  relay.kill('SIGTERM')
  expect(await relay.ended).toBe(0)
  expect(relay.stderr()).not.toContain('sealpost:')
  expect(processesWith(own.dataDir)).toEqual([])
})

test('a second relay on the same port is refused', async () => {
  const first = own.start()
  const { port } = new URL(await up(first))
  const second = own.start({ PORT: port, SEALPOST_DATA_DIR: join(own.root, 'other') })
  expect(await second.ended).toBe(1)
  expect(second.stderr()).toMatch(
    new RegExp(`^sealpost: port ${port} on 127.0.0.1 is in use; .*PORT=${Number(port) + 1}\n$`),
  )
  expect(processesWith(join(own.root, 'other'))).toEqual([])
})

test('keys:void refuses while the relay runs; stopped, it voids the stock and the relay starts again', async () => {
  const first = own.start()
  expect(await register(await up(first), new TestDevice(), { oneTime: 7 })).toBe(201)
  const command = () => runScript('server/operator.ts', ['void-keys'], { SEALPOST_DATA_DIR: own.dataDir })
  const early = command()
  expect(await early.ended).toBe(1)
  expect(early.stderr()).toMatch(/^sealpost: the relay in .* is running: stop it first/)
  first.kill('SIGINT')
  await first.ended
  const late = command()
  expect(await late.ended).toBe(0)
  expect(late.stdout()).toMatch(/^7 one-time prekeys are void/)
  expect(processesWith(own.dataDir)).toEqual([])
})

test('with registration by invitation, `npm run invite` makes a token beside the running relay', async () => {
  const url = await up(own.start({ SEALPOST_REGISTRATION: 'invite' }))
  const invite = runScript('server/operator.ts', ['invite'], { SEALPOST_DATA_DIR: own.dataDir })
  expect(await invite.ended).toBe(0)
  const invitation = invite.stdout().trim()
  expect(await register(url, new TestDevice())).toBe(403)
  expect(await register(url, new TestDevice(), { invitation })).toBe(201)
  expect(await register(url, new TestDevice(), { invitation })).toBe(403)
})

test('what hangs does not outlive the grace period: exit code 1, and no database process is left', async () => {
  const relay = own.start({ SEALPOST_GRACE_SECONDS: '1' })
  await up(relay)
  const [postmaster] = processesWith(`-D ${join(own.dataDir, 'postgres')} `)
  process.kill(postmaster!, 'SIGSTOP')
  relay.kill('SIGTERM')
  expect(await relay.ended).toBe(1)
  expect(relay.stderr()).toContain('not everything ended within the grace period')
  process.kill(postmaster!, 'SIGCONT')
  await until(() => processesWith(own.dataDir).length === 0)
})

test('a second Ctrl-C ends it at once, and still leaves no database process', async () => {
  const relay = own.start()
  await up(relay)
  const [postmaster] = processesWith(`-D ${join(own.dataDir, 'postgres')} `)
  // A server that does not react keeps the first one from finishing.
  process.kill(postmaster!, 'SIGSTOP')
  relay.kill('SIGINT')
  await until(() => relay.stderr().includes('stopping'))
  await new Promise((resolve) => setTimeout(resolve, 600))
  relay.kill('SIGINT')
  expect(await relay.ended).toBe(1)
  process.kill(postmaster!, 'SIGCONT')
  await until(() => processesWith(own.dataDir).length === 0)
})
