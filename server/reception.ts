// Where devices come in, through a socket or an HTTP request: who may, and what an open connection is connected to. [C-1] [C-3] [C-9]
import type { Directory } from '../keys/directory.ts'
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { FRAME_HARD_MAX_BYTES, FRAME_MAX_BYTES } from '../proto/limits.ts'
import type { Caller } from '../proto/route.ts'
import { encode } from './codec.ts'
import { CLOSE, type Connection, type ConnectionEvents } from './connection.ts'
import type { Consumers } from './consumers.ts'
import { toRelayError } from './errors.ts'
import type { Outgoing } from './frames.ts'
import { Places } from './places.ts'
import type { Queue, Start } from './queue.ts'
import { IN_WORK_MAX_BYTES, Line, type RelayDeps } from './relay.ts'
import { Session, type SessionDeps } from './session.ts'
import type { Sessions } from './sessions.ts'
import type { Door } from './socket.ts'
import { Sync } from './sync.ts'

export type ReceptionDeps = RelayDeps & {
  /** @throws RelayError UNAUTHENTICATED. */
  admit(token: string | null): Promise<{ caller: Caller; expiresAtMs: number }>
  hello: { realm: string; queueMessages: number; queueTtlMs: number }
  clock: () => number
  queue: Queue
  sessions: Sessions
  consumers: Consumers
  directory: Directory
  maxConnections: number
  maxUserConnections: number
  /** Nobody new is let in any more. */
  shut(): boolean
}

const RETRY_MS = 1_000
/** What a connection may send before its Hello. I10 */
const EARLY_MAX_FRAMES = 64
const EARLY_MAX_BYTES = 2 * FRAME_MAX_BYTES

/** rest: the device is between two requests, its connection takes signals only. [C-9.8] */
export type Entered = ConnectionEvents & { rest(): void }

export type Reception = {
  /** The door of devices: /v1/ws. */
  door: Door
  /**
   * Connects a device that was let in; its Hello is on its way.
   * @param expiresAtMs when it must have shown another token, Unix milliseconds.
   * @param isConsumer false: it only reads its queue. It displaces nobody, and nothing comes to it by itself.
   */
  enter(connection: Connection, caller: Caller, expiresAtMs: number, isConsumer?: boolean): Entered
  /** What happens to single frames of a device: their answers go to this connection, and nothing else does. [C-9.1] */
  exchange(connection: Connection, caller: Caller): Line
  /** @throws RelayError OVERLOADED: no more connections; RATE_LIMITED: no more of this user; UNAVAILABLE: none at all. */
  checkRoom(userId?: Uuid): void
}

/** Where all devices of this node come in. */
export function openReception(deps: ReceptionDeps): Reception {
  const { sessions, consumers, reach, features, queue, directory, observe, clock } = deps
  let entering = 0
  /** Sockets and polls of each user, those being closed included: one that comes and goes all the time is not let in any more. */
  const places = new Places(deps.maxUserConnections, 'connections of this user')

  const sessionDeps: SessionDeps = {
    queue,
    onDelivered: (session, delivery) => {
      const { userId, deviceId } = session.caller
      observe.metrics.deliveries.inc()
      observe.events.deliver({ userId, deviceId, messageId: delivery.messageId, sequence: delivery.sequence })
    },
    onLeftOut: (kind) => observe.metrics.signalsLeftOut.inc({ kind }),
    report: (error) => observe.log.warn({ err: error }, 'queue read failed'),
  }

  /** @param joined null: it is not the device's consumer, and needs no hints. */
  async function greet(session: Session, joined: Promise<void> | null): Promise<void> {
    const [counts] = await Promise.all([directory.counts(session.caller.deviceKey), joined])
    const { userId, deviceId } = session.caller
    const hello = ({ waiting, databaseEpoch }: Start): Outgoing =>
      encode.hello({
        ...deps.hello,
        nowMs: clock(),
        counts,
        epoch: databaseEpoch,
        queueWaiting: waiting,
        userId,
        deviceId,
      })
    const how = await session.start(hello, joined !== null)
    if (how === 'gone') return session.close(CLOSE.CREDENTIAL_GONE, 'unlinked')
    if (how === 'elsewhere') return session.displaced()
    if (session.state === 'closed' || !joined) return
    consumers.began(session)
    features.connected(session)
    if (session.state === 'live') observe.events.subscribe({ userId, deviceId, how: 'live' })
  }

  function enter(connection: Connection, caller: Caller, expiresAtMs: number, isConsumer = true): Entered {
    const { userId, deviceId } = caller
    const session = new Session(caller, connection, expiresAtMs, sessionDeps)
    const sync = new Sync(session, queue)
    const line = new Line(session, sync, deps)
    let joined: Promise<void> | null = null
    if (isConsumer) {
      // Registered before its first read: nothing committed in between is missed.
      sessions.register(session)
      places.count(userId, 1)
      joined = reach.joined(session)
      observe.metrics.connections.inc()
      observe.events.connect({ userId, deviceId, address: connection.address })
    }
    // Hello is the first frame on every connection: what comes before it is answered after it. [C-3]
    let early: (() => void)[] | null = []
    let earlyBytes = 0
    const afterHello = (bytes: number, act: () => void): void => {
      if (!early) {
        act()
        return
      }
      earlyBytes += bytes
      deps.load.bytes += bytes
      const tooMuch = earlyBytes > EARLY_MAX_BYTES || deps.load.bytes > IN_WORK_MAX_BYTES
      if (tooMuch || early.length >= EARLY_MAX_FRAMES) session.close(CLOSE.FLOODING, 'flooding')
      else early.push(act)
    }
    session.underWay.count(1)
    greet(session, joined)
      .catch((error: unknown) => {
        const refusal = toRelayError(error, (unknown) => observe.log.error({ err: unknown }, 'greeting failed'))
        connection.send(encode.error(0, refusal))
        session.close(refusal.code === 'NOT_FOUND' ? CLOSE.CREDENTIAL_GONE : CLOSE.GOING_AWAY, 'cannot start')
      })
      .finally(() => {
        const waiting = early ?? []
        early = null
        deps.load.bytes -= earlyBytes
        if (session.state !== 'closed') for (const act of waiting) act()
        session.underWay.count(-1)
      })
    return {
      frame: (bytes: Uint8Array) => afterHello(bytes.length, () => line.frame(bytes)),
      text: () => afterHello(0, () => line.text()),
      rest: () => session.rest(),
      sent: ({ kind }: Outgoing) => observe.metrics.framesOut.inc({ kind }),
      drained: () => {
        sync.wake()
        session.pump()
      },
      closed: (code: number) => {
        session.over()
        sync.wake()
        if (!isConsumer) return
        sessions.remove(session)
        places.count(userId, -1)
        consumers.ended(session)
        reach.left(session)
        features.gone(session)
        observe.metrics.connections.dec()
        observe.events.disconnect({ userId, deviceId, code })
      },
    }
  }

  const exchange = (connection: Connection, caller: Caller): Line => {
    const session = new Session(caller, connection, Number.POSITIVE_INFINITY, sessionDeps)
    // Its acks free the slots of the device's connection, where there is one. [C-9.3]
    return new Line(session, new Sync(session, queue), deps, () => sessions.get(caller.deviceKey) ?? session)
  }

  function checkShut(): void {
    if (deps.shut()) throw new RelayError('UNAVAILABLE', 'going away', { retryAfterMs: RETRY_MS })
  }

  function checkRoom(userId?: Uuid): void {
    checkShut()
    if (userId) places.check(userId)
    if (sessions.size + entering >= deps.maxConnections)
      throw new RelayError('OVERLOADED', 'too many connections', { retryAfterMs: RETRY_MS })
  }

  const admit: Door['admit'] = async ({ token, address }) => {
    checkRoom()
    entering++
    try {
      const { caller, expiresAtMs } = await deps.admit(token)
      checkShut()
      places.check(caller.userId)
      places.count(caller.userId, 1)
      const entered = (): void => {
        entering--
        places.count(caller.userId, -1)
      }
      return {
        open: (connection) => {
          entered()
          return enter(connection, caller, expiresAtMs)
        },
        abandoned: entered,
      }
    } catch (error) {
      entering--
      const refusal = toRelayError(error, (unknown) => observe.log.error({ err: unknown }, 'admission failed'))
      if (refusal.code === 'UNAUTHENTICATED') {
        observe.metrics.unauthorized.inc()
        observe.events.unauthorized({ where: 'socket', address, code: refusal.code })
      }
      throw refusal
    }
  }
  return { door: { path: '/v1/ws', maxMessageBytes: FRAME_HARD_MAX_BYTES, admit }, enter, exchange, checkRoom }
}
