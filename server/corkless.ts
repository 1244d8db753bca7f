// WebSocket upgrades outside of uWebSockets' cork(), and why: after an upgrade inside of it, cork() at times takes the new WebSocket
// for an HTTP response that wants its connection closed, and closes it (uNetworking/uWebSockets, pull request 1929).

import type uws from 'uWebSockets.js'
import { randomUUID } from 'node:crypto'
import { connect } from 'node:net'

/** Runs upgrades without cork(). */
export type Corkless = {
  /** Once the app listens: makes the request that lends its cork. */
  open(host: string, port: number): void
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
  app.get(path, (response) => {
    response.onAborted(() => {
      lender = null
    })
    lender = response
  })
  return {
    open(host, port) {
      const socket = connect(port, host === '0.0.0.0' ? '127.0.0.1' : host)
      // Whatever ends it ends the loan, no more.
      socket.on('error', () => {})
      socket.unref()
      socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
    },
    run(response, upgrade) {
      if (lender) lender.cork(() => response.cork(upgrade))
      else upgrade()
    },
  }
}
