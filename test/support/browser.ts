// Debian's Chromium, headless, with pages that run a bundle of ours; what goes wrong in a page is kept for the test to see.
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { type Browser, type CDPSession, chromium, type Page } from 'playwright-core'
import { program, type Wanted } from './debian.ts'

/** Chromium, as Debian and others install it. */
export const CHROMIUM: Wanted<string> = {
  what: 'Chromium',
  packages: ['chromium'],
  find: () => program('/usr/bin/chromium', 'chromium', 'chromium-browser', 'google-chrome'),
}

const FLAGS = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
  ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
]

/** Starts it with an empty profile of its own, which goes with it. */
export const openBrowser = (executablePath: string): Promise<Browser> =>
  chromium.launch({ executablePath, args: FLAGS, headless: true })

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** A file of the repository and what it imports, as one script for browsers. @throws when anything in it needs Node. */
export async function bundle(file: string): Promise<{ code: string; sources: string[] }> {
  const { outputFiles, metafile } = await build({
    ...{
      entryPoints: [file],
      absWorkingDir: ROOT,
      bundle: true,
      minify: true,
      write: false,
      metafile: true,
      preserveSymlinks: true,
    },
    ...{ platform: 'browser', format: 'esm', target: 'es2022', logLevel: 'silent' },
  })
  return { code: outputFiles[0]!.text, sources: Object.keys(metafile.inputs) }
}

/** An app's own web server: nothing but an empty page and its script. */
export type App = { origin: string; close(): Promise<void> }

/** Serves the script on a port, and so an origin, of its own. */
export async function serveApp(script: string): Promise<App> {
  const answers: Record<string, [string, string]> = {
    '/': [
      'text/html',
      '<!doctype html><title>app</title><link rel="icon" href="data:,"><script type="module" src="/app.js"></script>',
    ],
    '/app.js': ['text/javascript', script],
  }
  const server: Server = createServer((request, response) => {
    const [type, body] = answers[request.url!] ?? []
    response.writeHead(body === undefined ? 404 : 200, { 'Content-Type': `${type}; charset=utf-8` }).end(body)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const close = async () => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }
  return { origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close }
}

/** A page of an app, in a browser context of its own: nothing is shared with other pages. */
export type AppPage = {
  page: Page
  /** Uncaught errors and what the console calls an error, in order. */
  faults: string[]
  /** Subprotocols of each WebSocket: what the page offered, and what was answered. */
  subprotocols: { offered: string | undefined; answered: string | undefined }[]
}

/** Opens the app and waits until its script has run. */
export async function openPage(browser: Browser, app: App): Promise<AppPage> {
  const context = await browser.newContext()
  const page = await context.newPage()
  const faults: string[] = []
  page.on('pageerror', (error) => faults.push(String(error.stack ?? error)))
  page.on('console', (message) => message.type() === 'error' && faults.push(message.text()))
  const subprotocols = await watchHandshakes(await context.newCDPSession(page))
  await page.goto(app.origin, { waitUntil: 'load' })
  return { page, faults, subprotocols }
}

// Playwright itself tells frames but no headers of WebSockets.
async function watchHandshakes(session: CDPSession): Promise<AppPage['subprotocols']> {
  const seen: AppPage['subprotocols'] = []
  const byId = new Map<string, AppPage['subprotocols'][number]>()
  const protocols = (headers: Record<string, string>) =>
    Object.entries(headers).find(([name]) => name.toLowerCase() === 'sec-websocket-protocol')?.[1]
  session.on('Network.webSocketWillSendHandshakeRequest', ({ requestId, request }) => {
    const handshake = { offered: protocols(request.headers), answered: undefined }
    byId.set(requestId, handshake)
    seen.push(handshake)
  })
  session.on('Network.webSocketHandshakeResponseReceived', ({ requestId, response }) => {
    byId.get(requestId)!.answered = protocols(response.headers)
  })
  await session.send('Network.enable')
  return seen
}
