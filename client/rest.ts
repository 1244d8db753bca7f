// Waiting for what only this connection is to be asked again: over when its time is, or when the connection is.
import { type ErrorCode, RelayError } from '../proto/errors.ts'
import { Disconnected } from './connection.ts'
import type { Core } from './core.ts'

/** [S-9.5] Nothing is decided by these. */
export const LATER: readonly ErrorCode[] = ['RATE_LIMITED', 'OVERLOADED', 'UNAVAILABLE']

/**
 * Waits so many milliseconds, and no longer than the connection lives: what was waited for is nobody's any more then, and `close` waits
 * for nothing. Leaves no timer behind.
 * @returns whether the time is over; false = the connection ended, or there was none.
 */
export function rest({ connection, time }: Pick<Core, 'connection' | 'time'>, ms: number): Promise<boolean> {
  if (!isOpen(connection.state)) return Promise.resolve(false)
  return new Promise((resolve) => {
    const cancel = time.after(ms, () => {
      off()
      resolve(true)
    })
    const off = connection.on('state', (state) => {
      if (isOpen(state)) return
      off()
      cancel()
      resolve(false)
    })
  })
}

const isOpen = ({ name }: Core['connection']['state']): boolean => name === 'syncing' || name === 'live'

/**
 * Asks over HTTP, again for as long as the relay says later.
 * @returns why it was refused; null = it was not. @throws Disconnected: the connection ended meanwhile; Unreachable, DeviceGone.
 */
export async function refusalTo(core: Core, method: string, path: string): Promise<ErrorCode | null> {
  for (;;) {
    try {
      await core.account.http.call(method, path)
      return null
    } catch (error) {
      if (!(error instanceof RelayError)) throw error
      if (!LATER.includes(error.code)) return error.code
      if (!(await rest(core, Math.max(error.retryAfterMs, 500))))
        throw new Disconnected('the connection ended meanwhile')
    }
  }
}
