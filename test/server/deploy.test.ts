// compose.yaml, the Dockerfile and HAProxy's configuration go together, and with the relay's variables.
import { readdir, readFile } from 'node:fs/promises'
import { expect, it } from 'vitest'
import { readConfig } from '../../server/config.ts'

const read = (name: string): Promise<string> => readFile(new URL(`../../${name}`, import.meta.url), 'utf8')

/** The relays' environment, with nothing set by the operator. */
async function environment(): Promise<Record<string, string>> {
  const [, block = ''] = /^x-relay:.*?\n {2}environment:\n((?: {4}.*\n)+)/ms.exec(await read('compose.yaml')) ?? []
  const pairs = [...block.matchAll(/^ {4}(\w+): (.*)$/gm)]
  return Object.fromEntries(pairs.map(([, name, value]) => [name!, value!.replace(/\$\{\w+:-(.*?)\}/g, '$1')]))
}

it('a relay understands every variable of compose.yaml', async () => {
  const env = await environment()
  expect(Object.keys(env).length).toBeGreaterThan(7)
  const config = readConfig({ ...env, HOST: '0.0.0.0' })
  expect(config.redis?.urls).toEqual(['redis://redis'])
  expect(config.databaseUrl).toBe('postgres://sealpost:only-for-trying@postgres/sealpost')
  expect(config.trustedProxies.check('172.18.0.5')).toBe(true)
})

it('there is time for HAProxy to notice a drain, and for the drain before it is cut short', async () => {
  const { drain } = readConfig(await environment())
  const cfg = await read('deploy/haproxy.cfg')
  const [, interMs, fall] = /check inter (\d+)s fastinter 500ms downinter 1s fall (\d)/.exec(cfg)!.map(Number)
  expect(drain.pauseMs).toBeGreaterThan(interMs! * 1000 * fall!)
  const [, stopSeconds] = /<?relay[\s\S]*?stop_grace_period: (\d+)s/.exec(await read('compose.yaml'))!.map(Number)
  expect(stopSeconds! * 1000).toBeGreaterThan(drain.graceMs)
})

it('HAProxy finds the relays by the names of their services', async () => {
  const cfg = await read('deploy/haproxy.cfg')
  const servers = [...cfg.matchAll(/server (\S+) "\$\{\w+-(\S+):8080\}"/g)]
  expect(servers.map(([, name, host]) => [name, host])).toEqual([1, 2, 3].map((n) => [`relay-${n}`, `relay-${n}`]))
  const compose = await read('compose.yaml')
  for (const [, name] of servers) expect(compose).toContain(`  ${name}: *relay`)
})

it('docs/operations.md names every key and channel of Redis', async () => {
  const page = await read('docs/operations.md')
  const names = await readdir(new URL('../../server/bus/', import.meta.url))
  const sources = (await Promise.all(names.map((name) => read(`server/bus/${name}`)))).join('\n')
  const keys = [...sources.matchAll(/`sealpost:(\w+):/g)].map(([, key]) => `sealpost:${key}:`)
  // Channels are types in bus.ts: `device:${number}`.
  const [, types = ''] = /export type Channel =([\s\S]*?)\n\n/.exec(sources)!
  const channels = [...types.matchAll(/`(\w+):/g)].map(([, kind]) => `sealpost:${kind}:`)
  expect(keys.length).toBeGreaterThan(3)
  expect(channels.length).toBeGreaterThan(2)
  expect([...keys, ...channels].filter((each) => !page.includes(each))).toEqual([])
})
