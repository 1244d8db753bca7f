// `npm run demo` as a stranger meets it: every step holds, failure is exit code 1 with the step and the reason, nothing stays behind.
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest'
import { ownPort } from '../support/ports.ts'
import { processesWith, runScript, until, type Watched } from '../support/processes.ts'
import { testRelay } from '../support/relay.ts'

/** Starts a PostgreSQL from nothing, or the whole demo twice, on a busy machine. */
const OWN_MS = 120_000

let scratch: string
const started: Watched[] = []

beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'sealpost-demo-test-'))
})

afterEach(async () => {
  for (const each of started.splice(0)) {
    each.kill('SIGKILL')
    await each.ended
  }
  await until(() => processesWith(scratch).length === 0)
  await rm(scratch, { recursive: true, force: true })
})

/** The demo, with temporary directories of its own to look into. */
const demo = (args: string[], env: Record<string, string> = {}): Watched => {
  const watched = runScript('scripts/demo.ts', args, { TMPDIR: scratch, ...env })
  started.push(watched)
  return watched
}

const clean = async (): Promise<void> => {
  expect(processesWith(scratch)).toEqual([])
  // Other directories there are tsx's.
  expect((await readdir(scratch)).filter((name) => name.startsWith('sealpost-'))).toEqual([])
}

/** A server on a free port that answers everything alike. */
async function serve(listener: RequestListener) {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  onTestFinished(() => void server.close())
  return { url: `http://127.0.0.1:${port}` }
}

test(
  'at a running relay every step holds, twice, in plain text',
  async () => {
    const relay = await testRelay()
    onTestFinished(() => relay.close())
    for (let i = 0; i < 2; i++) {
      const run = demo([relay.url, '--realm', relay.realm])
      expect(await run.ended, run.stdout() + run.stderr()).toBe(0)
      expect(run.stdout()).toMatch(/\nAll 15 steps held, in \d+\.\d s\.\n/)
      for (const said of ['PQXDH', 'DEVICE_MISMATCH', 'tampered', 'offline', 'repeated', 'acks'])
        expect(run.stdout()).toContain(said)
      expect(run.stdout()).not.toContain('\x1b')
      expect(
        Math.max(
          ...run
            .stdout()
            .split('\n')
            .map((line) => line.length),
        ),
      ).toBeLessThanOrEqual(100)
      expect(run.stderr()).toBe('')
    }
  },
  OWN_MS,
)

test(
  'where no relay runs it starts one, and takes it down: no process, no directory',
  async () => {
    const port = await ownPort()
    const run = demo([], { PORT: String(port) })
    expect(await run.ended, run.stdout() + run.stderr()).toBe(0)
    expect(run.stdout()).toContain(`Nothing answers at http://localhost:${port}`)
    expect(run.stdout()).toContain('All 15 steps held')
    await clean()
  },
  OWN_MS,
)

test('a server that is not a relay fails the first step: exit code 1 and the reason', async () => {
  const other = await serve((_, response) => response.end('<html>Hello</html>'))
  const run = demo([other.url])
  expect(await run.ended).toBe(1)
  expect(run.stdout()).toContain('FAILED')
  expect(run.stdout()).toContain('what answers there is not a relay (HTTP 200 for /readyz)')
  expect(run.stdout()).toMatch(/\nStep 1 did not hold\.\n$/)
  expect(run.stdout()).not.toContain('All 15')
})

test('a step that fails in the middle of the story says which and why, and the rest is not tried', async () => {
  const relay = await testRelay()
  onTestFinished(() => relay.close())
  const run = demo([relay.url, '--realm', 'https://another.world'])
  expect(await run.ended).toBe(1)
  expect(run.stdout()).toMatch(/ 2 {2}Alice and Bob register +FAILED after \d+ ms\n.*identity_proof/)
  expect(run.stdout()).toContain('is its realm another?')
  expect(run.stdout()).toMatch(/\nStep 2 did not hold\.\n$/)
})

test('a relay that takes no work fails the first step', async () => {
  const draining = await serve((_, response) => {
    response.statusCode = 503
    response.end('{"ready":false,"missing":["draining"]}')
  })
  const run = demo([draining.url])
  expect(await run.ended).toBe(1)
  expect(run.stdout()).toContain('takes no work')
})

test.each([
  [['http://a', 'http://b'], /^demo: one relay at a time/],
  [['localhost'], /^demo: localhost is not the URL of a relay; for example http:/],
  [['--nonsense'], /^demo: Unknown option '--nonsense'/],
])('%j is refused in one line', async (args, line) => {
  const run = demo(args)
  expect(await run.ended).toBe(1)
  expect(run.stdout()).toBe('')
  expect(run.stderr()).toMatch(line)
})

test(
  'Ctrl-C while its relay starts, and later, leaves no process and no directory',
  async () => {
    for (const moment of [/ 1 {2}A relay/, / 2 {2}Alice/]) {
      const run = demo(['--own'])
      await run.says(moment)
      run.kill('SIGINT')
      // npm passes a terminal's Ctrl-C on a second time.
      run.kill('SIGINT')
      expect(await run.ended).toBe(130)
      expect(run.stdout()).toContain('Interrupted')
      expect(run.stdout()).not.toContain('FAILED')
      await clean()
    }
  },
  OWN_MS,
)

test(
  'killed with SIGKILL, it leaves no relay, no database and no directory',
  async () => {
    const run = demo(['--own'])
    await run.says(/ 2 {2}Alice/)
    run.kill('SIGKILL')
    await run.ended
    await until(async () => (await readdir(scratch)).every((name) => !name.startsWith('sealpost-')))
    await until(() => processesWith(scratch).length === 0)
  },
  OWN_MS,
)
