// New devices that wait for what their user's primary has for them: a door without a token, so everything about it is bounded.
// What goes through is sealed for the new device; neither it nor an address is logged, stored or counted by name. [I-5] I16
import type { Meter } from '../keys/meter.ts'
import { invalid, RelayError } from '../proto/errors.ts'
import { PROVISION_MAX_BYTES, PROVISIONING_TTL_MS } from '../proto/limits.ts'
import { type Admission, CLOSE, type Connection } from './connection.ts'
import { isLoopback } from './loopback.ts'
import type { Rendezvous } from './rendezvous.ts'
import type { Door } from './socket.ts'
import { countSource, sourceOf } from './source.ts'

export type ProvisioningDeps = {
  rendezvous: Rendezvous
  /** Unix milliseconds. */
  clock: () => number
  /** Counts those who come, by address. */
  opened: Meter
  /** The relay is on its way down: nobody new may wait. */
  draining(): boolean
  /** Told how many wait here, whenever that changes. Must not throw. */
  onWaiting?(connections: number): void
}

export type Provisioning = {
  /** `GET /v1/provisioning/:address` as a WebSocket. [I-5.2] */
  door: Door
  /**
   * Hands sealed bytes to whoever waits at the address. [I-5.3]
   * @throws RelayError NOT_FOUND (nobody waits, or no longer), TOO_LARGE, INVALID_REQUEST (empty, no address).
   */
  hand(address: string, sealed: Uint8Array): Promise<void>
  /** Ends waits that are over and pings the others: called about once a second. [I-5.2] */
  look(): void
  /** Sends everybody away who waits. [C-8] */
  goAway(): void
}

/** Connections that wait on this node, and of them from one source (source.ts). Behind a proxy all come from the proxy's. I10 */
export const WAITING_MAX = 1_000
export const WAITING_MAX_PER_SOURCE = 100
/** A connection is asked for a sign of life this often, so that proxies keep it. [C-4] */
const PING_MS = 30_000
/** Nothing is expected of who waits; his fifth message ends it. [I-5.2] */
const IGNORED_MAX = 5
const IGNORED_MAX_BYTES = 1024
const RETRY_MS = 10_000

const ADDRESS_BYTES = 16
/** 1000: all is well. */
const DONE = 1000

type Wait = { connection: Connection | null; sinceMs: number; pingedMs: number; over: () => void }

/** @param limits for tests; the numbers above otherwise. */
export function openProvisioning(
  { rendezvous, clock, opened: perAddress, draining, onWaiting }: ProvisioningDeps,
  limits = { waiting: WAITING_MAX, perSource: WAITING_MAX_PER_SOURCE },
): Provisioning {
  const waits = new Set<Wait>()
  const perSource = new Map<string, number>()

  /** Counts one more from there. @returns what takes it back, once. @throws RelayError OVERLOADED. */
  function enter(address: string): () => void {
    const source = sourceOf(address)
    const here = perSource.get(source) ?? 0
    // A proxy on this machine stands for everybody.
    if (waits.size >= limits.waiting || (here >= limits.perSource && !isLoopback(address)))
      throw new RelayError('OVERLOADED', 'too many devices wait to be linked', { retryAfterMs: RETRY_MS })
    perSource.set(source, here + 1)
    return () => {
      const left = perSource.get(source)! - 1
      if (left > 0) perSource.set(source, left)
      else perSource.delete(source)
    }
  }

  async function admit(address: string, remote: string): Promise<Admission> {
    if (draining()) throw new RelayError('UNAVAILABLE', 'going away', { retryAfterMs: RETRY_MS })
    checkAddress(address)
    await countSource(perAddress, remote)
    const leave = enter(remote)
    const nowMs = clock()
    const wait: Wait = { connection: null, sinceMs: nowMs, pingedMs: nowMs, over: () => {} }
    waits.add(wait)
    onWaiting?.(waits.size)
    wait.over = () => {
      if (!waits.delete(wait)) return
      leave()
      onWaiting?.(waits.size)
    }
    const end = await rendezvous
      .wait(address, (sealed) => deliver(wait, sealed))
      .catch((error: unknown) => {
        wait.over()
        throw error
      })
    if (!end) {
      wait.over()
      throw new RelayError('CONFLICT', 'somebody waits at this address')
    }
    const over = () => {
      end()
      wait.over()
    }
    return { open: (connection) => opened(wait, connection, over), abandoned: over }
  }

  return {
    door: {
      path: '/v1/provisioning/:address',
      maxMessageBytes: IGNORED_MAX_BYTES,
      admit: ({ place, address }) => admit(place, address),
    },

    async hand(address, sealed) {
      checkAddress(address)
      if (sealed.length === 0) throw invalid('message is empty')
      if (sealed.length > PROVISION_MAX_BYTES)
        throw new RelayError('TOO_LARGE', `message exceeds ${PROVISION_MAX_BYTES} bytes`)
      if (!(await rendezvous.hand(address, sealed))) throw new RelayError('NOT_FOUND', 'nobody waits at this address')
    },

    look() {
      const nowMs = clock()
      for (const wait of waits) {
        if (nowMs - wait.sinceMs >= PROVISIONING_TTL_MS) wait.connection?.close(CLOSE.GOING_AWAY, 'nothing came')
        else if (nowMs - wait.pingedMs >= PING_MS) {
          wait.pingedMs = nowMs
          wait.connection?.ping()
        }
      }
    },

    goAway() {
      for (const wait of waits) wait.connection?.close(CLOSE.GOING_AWAY, 'going away')
    },
  }
}

function deliver({ connection }: Wait, sealed: Uint8Array): boolean {
  if (!connection?.send({ kind: 'provision', bytes: sealed })) return false
  connection.close(DONE, 'delivered')
  return true
}

function opened(wait: Wait, connection: Connection, over: () => void) {
  wait.connection = connection
  let ignored = 0
  const ignore = (): void => {
    if (++ignored >= IGNORED_MAX) connection.close(CLOSE.MALFORMED, 'nothing is expected here')
  }
  return { frame: ignore, text: ignore, sent() {}, drained() {}, closed: over }
}

function checkAddress(address: string): void {
  const bytes = Buffer.from(address, 'base64url')
  if (bytes.length !== ADDRESS_BYTES || bytes.toString('base64url') !== address)
    throw invalid(`the address is not ${ADDRESS_BYTES} bytes in base64url without padding`)
}
