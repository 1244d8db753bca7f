// The core of the SDK in a real browser, on a page served from another origin than the relay: connect, send, receive, reconnect.
import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import { type App, type AppPage, bundle, CHROMIUM, openBrowser, openPage, serveApp } from '../support/browser.ts'
import { INSTALL_MAX_MS, type Obtained, obtain } from '../support/debian.ts'
import { openProxy } from '../support/proxy.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, say, shown, texts } from '../support/sdk.ts'
import { testCrypto } from './browser/crypto.ts'
import type { Words } from './browser/page.ts'

let chromium: Obtained<string>
let browser: Browser
let app: App
let relay: TestRelay
beforeAll(async () => {
  chromium = await obtain(CHROMIUM)
  if (chromium.it === null) return
  app = await serveApp((await bundle('test/client/browser/page.ts')).code)
  relay = await testRelay({ config: { allowedOrigins: [app.origin] } })
  browser = await openBrowser(chromium.it)
}, INSTALL_MAX_MS)
afterAll(async () => {
  await browser?.close()
  await relay?.close()
  await app?.close()
})

const pages: AppPage[] = []
beforeEach(({ skip }) => skip(chromium.it === null, chromium.missing ?? ''))
afterEach(async () => {
  const faults = pages.flatMap((each) => each.faults)
  for (const each of pages.splice(0)) await each.page.context().close()
  expect(faults).toEqual([])
})

/** Calls one of the page's words. */
type Call = <K extends keyof Words>(word: K, ...args: Parameters<Words[K]>) => Promise<Awaited<ReturnType<Words[K]>>>

async function pageOf(from: App): Promise<AppPage & { call: Call }> {
  const opened = await openPage(browser, from)
  pages.push(opened)
  const call = (word: string, ...args: unknown[]) =>
    opened.page.evaluate(
      ([name, given]) =>
        (globalThis as unknown as { sealpost: Record<string, (...a: unknown[]) => unknown> }).sealpost[name]!(...given),
      [word, args] as const,
    )
  return { ...opened, call: call as Call }
}

it('two pages register, connect and talk, with their tokens as subprotocols', async () => {
  const [alice, bob] = [await pageOf(app), await pageOf(app)]
  const { url, realm } = relay
  const [aliceId, bobId] = [await alice.call('join', { url, realm }), await bob.call('join', { url, realm })]
  const conversation = await alice.call('direct', bobId)
  expect(await alice.call('say', conversation, 'hello from a page')).toBe('sent')
  expect(await bob.call('shown', conversation, 'hello from a page')).toBe(aliceId)
  expect(await bob.call('say', conversation, 'hello from the other')).toBe('sent')
  expect(await alice.call('shown', conversation, 'hello from the other')).toBe(bobId)
  for (const each of [alice, bob])
    expect(await each.call('texts', conversation)).toEqual(['hello from a page', 'hello from the other'])

  // [C-1.2]
  for (const { subprotocols } of [alice, bob]) {
    expect(subprotocols).toHaveLength(1)
    const [{ offered, answered } = { offered: '', answered: '' }] = subprotocols
    expect(offered).toMatch(/^sealpost\.v1, bearer\.[\w-]+\.[\w-]+\.[\w-]+$/)
    expect(answered).toBe('sealpost.v1')
    expect(relay.logged.join('\n')).not.toContain(offered!.split('bearer.')[1])
  }
})

it('a page whose connection breaks comes back by itself; what both sides wrote meanwhile arrives once, in order', async () => {
  const proxy = await openProxy(relay.url)
  const node = await joined(relay, { crypto: testCrypto() })
  const alice = await pageOf(app)
  await alice.call('join', { url: proxy.url.replace(/\/$/, ''), realm: relay.realm })
  const conversation = await alice.call('direct', node.userId)
  await alice.call('say', conversation, 'before')
  await shown(node, conversation, 'before')

  await proxy.down()
  await alice.call('becomes', 'offline')
  // At least one try of its own that fails.
  await alice.call('becomes', 'connecting')
  await alice.call('becomes', 'offline')
  expect(await alice.call('write', conversation, 'written offline')).toBe('sending')
  for (const text of ['while away 1', 'while away 2']) await say(node, conversation, text)
  await proxy.up()
  await alice.call('becomes', 'live')
  await alice.call('shown', conversation, 'while away 2')
  await shown(node, conversation, 'written offline')
  await say(node, conversation, 'after')
  await alice.call('shown', conversation, 'after')

  const meanwhile = ['while away 1', 'while away 2']
  expect(await alice.call('texts', conversation)).toEqual(['before', 'written offline', ...meanwhile, 'after'])
  expect(texts(node, conversation)).toEqual(['before', ...meanwhile, 'written offline', 'after'])
  expect(alice.subprotocols.length).toBeGreaterThan(1)
  // What Chromium itself writes of a relay that is not there.
  for (const fault of alice.faults.splice(0))
    expect(fault).toMatch(/^(WebSocket connection to .*|Failed to load resource: net::)ERR_CONNECTION_\w+$/)
  await node.close()
  await alice.page.context().close()
  await proxy.close()
})

it('a page of an origin that is not listed can do nothing', async () => {
  const stranger = await serveApp((await bundle('test/client/browser/page.ts')).code)
  const page = await pageOf(stranger)
  await expect(page.call('join', { url: relay.url, realm: relay.realm })).rejects.toThrow('the relay does not answer')
  expect(page.faults.join('\n')).toContain('blocked by CORS policy')
  page.faults.length = 0
  await stranger.close()
})
