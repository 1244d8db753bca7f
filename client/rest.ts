// Waiting for what only this connection is to be asked again: over when its time is, or when the connection is.
import type { Core } from './core.ts'

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
