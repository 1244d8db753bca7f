// `npm run cluster` as a person uses it: one command, one address, a relay that is killed, Ctrl-C.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Child, startChild } from '../../scripts/cluster/child.ts'
import { Kept } from '../../scripts/cluster/kept.ts'
import { HAPROXY } from '../../scripts/debian.ts'
import { Client } from '../support/client.ts'
import { INSTALL_MAX_MS, obtain } from '../support/debian.ts'
import { ownPort } from '../support/ports.ts'
import { processesWith, runScript, until } from '../support/processes.ts'

const directory = mkdtempSync(join(tmpdir(), 'sealpost-cluster-'))
const REALM = 'https://cluster.test'

beforeAll(async () => {
  expect((await obtain(HAPROXY)).missing).toBeNull()
}, INSTALL_MAX_MS)
afterAll(() => rmSync(directory, { recursive: true, force: true }))

test('it relays behind one address, starts again what was killed, and leaves nothing behind', async () => {
  const cluster = runScript('scripts/cluster.ts', [], {
    ...{
      PORT: `${await ownPort()}`,
      SEALPOST_DATA_DIR: directory,
      SEALPOST_REALM: REALM,
      SEALPOST_DRAIN_PAUSE_SECONDS: '0',
    },
    DATABASE_URL: '',
  })
  const [said] = await cluster.says(/connect to[\s\S]*Ctrl-C/)
  const pids = [...said.matchAll(/^ {2}(HAProxy|relay-\d|Redis) .* (\d+)$/gm)].map(([, name, pid]) => [
    name,
    Number(pid),
  ])
  expect(pids.map(([name]) => name)).toEqual(['HAProxy', 'relay-1', 'relay-2', 'relay-3', 'Redis'])
  const relay = { url: /connect to +(http:\S+),/.exec(said)![1]!, realm: REALM }

  const client = await Client.register(relay)
  const socket = await client.live()
  const [, home] = await cluster.says(/(relay-\d) +│.*connect/)
  process.kill(pids.find(([name]) => name === home)![1] as number, 'SIGKILL')
  expect(await socket.end()).toBe(1006)
  // Nobody has told the client to wait: the next node takes it.
  const again = await client.live()
  await cluster.says(new RegExp(`${home} +│ ended \\(SIGKILL\\); it is started again`))

  cluster.kill('SIGINT')
  expect(await again.end()).toBe(1001)
  expect(await cluster.ended).toBe(0)
  expect(cluster.stderr()).toBe('')
  await until(() => processesWith(directory).length === 0)
  for (const [name, pid] of pids) expect(() => process.kill(pid as number, 0), `${name}`).toThrow()
}, 60_000)

test('what ends by itself is started again, also when that fails at first; what was stopped is not', async () => {
  const said: string[] = []
  let starts = 0
  const begin = async (): Promise<Child> => {
    if (++starts === 2) throw new Error('not now')
    return startChild({ program: 'sleep', args: ['1000'], onLine: () => {} })
  }
  const kept = new Kept('sleeper', begin, (line) => said.push(line), 1)
  await kept.start()
  const first = kept.pid!
  process.kill(first, 'SIGKILL')
  await until(() => starts === 3 && kept.pid !== null)
  expect(kept.pid).not.toBe(first)
  expect(said).toEqual([
    expect.stringContaining('SIGKILL'),
    'does not start: not now',
    expect.stringMatching(/^runs again/),
  ])
  const last = kept.pid!
  await kept.stop()
  expect(() => process.kill(last, 0)).toThrow()
  expect(starts).toBe(3)
})

test('a port that is taken is one line, before anything was started', async () => {
  const taken = runScript('scripts/cluster.ts', [], { PORT: '1', HOST: '192.0.2.1', SEALPOST_DATA_DIR: directory })
  expect(await taken.ended).toBe(1)
  expect(taken.stderr()).toMatch(/^cluster: port 1 on 192.0.2.1 is in use; .*\n$/)
})
