// WebSocket upgrades outside of uWebSockets' cork(), and why: after an upgrade inside of it, cork() at times takes the new WebSocket
// for an HTTP response that wants its connection closed, and closes it (uNetworking/uWebSockets, pull request 1929).

import type uws from 'uWebSockets.js'
import { randomUUID } from 'node:crypto'
import { connect, type Socket } from 'node:net'

/** Before a loan that ended is asked for again, milliseconds. */
const REOPEN_MS = 100

/** Runs upgrades without cork(). */
export type Corkless = {
  /** Once the app listens: makes the request that lends its cork, and again whenever it ends. */
  open(host: string, port: number): void
  /** The app is closing: no more of it. */
  close(): void
  /** Runs an upgrade of this response now. */
  run(response: uws.HttpResponse, upgrade: () => void): void
}

/**
 * Only one socket can be corked at a time: while an HTTP request of our own that is never answered is, cork() of another just runs
 * its callback. Plainly outside of any cork() upgrades work, too, but uWebSockets prints a warning for each.
 */
export function openCorkless(app: uws.TemplatedApp): Corkless {
  const path = `/${randomUUID()}`
  let lender: uws.HttpResponse | null = null
  let closed = false
  let loan: Socket | null = null
  app.get(path, (response) => {
    response.onAborted(() => {
      lender = null
    })
    lender = response
  })
  return {
    open(host, port) {
      loan = connect(port, host === '0.0.0.0' ? '127.0.0.1' : host)
      loan.on('error', () => {})
      // Upgrades in between are served, with the warning.
      loan.on('close', () => {
        if (!closed) setTimeout(() => closed || this.open(host, port), REOPEN_MS).unref()
      })
      loan.unref()
      loan.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
    },
    close() {
      closed = true
      loan?.destroy()
    },
    run(response, upgrade) {
      if (lender) lender.cork(() => response.cork(upgrade))
      else upgrade()
    },
  }
}
