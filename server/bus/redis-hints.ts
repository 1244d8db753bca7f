// Hints through Redis: sharded pub/sub, one Redis channel per channel of the bus. Redis keeps nothing of them: who is not there, or
// cut off, misses them (I11). A node's own hints do not go through Redis.
import { randomUUID } from 'node:crypto'
import { type Bus, type Channel, channelsOf, type Hint, type OpenBus } from './bus.ts'
import { decodeHint, encodeHint } from './hint-codec.ts'
import { openLocalHub } from './local.ts'

/** What is used of a connection to Redis. */
export type Publisher = {
  spublish(channel: string, message: string): Promise<unknown>
  on(event: 'ready', listener: () => void): unknown
  off(event: 'ready', listener: () => void): unknown
  readonly status: string
}
export type Subscriber = {
  ssubscribe(channel: string): Promise<unknown>
  sunsubscribe(channel: string): Promise<unknown>
  on(event: 'smessage', listener: (channel: string, message: string) => void): unknown
  /** Of a cluster: its masters are others now, and so are the connections to them. */
  on(event: 'ready' | 'subscribersReady', listener: () => void): unknown
  off(event: string, listener: (...args: never[]) => void): unknown
  readonly status: string
}

export type RedisHintsDeps = {
  publisher: Publisher
  subscriber: Subscriber
  /** A receiver threw. */
  report(error: unknown): void
  /** So many hints did not get out: Redis is away, or does not keep up. */
  onLost(hints: number): void
}

const PREFIX = 'sealpost:'
/** Every node hears of conversations, and of devices that are gone. */
const NODES = `${PREFIX}nodes`
/** Hints on their way to Redis; beyond it they are lost, since memory is not for hints. I10 */
const IN_FLIGHT_MAX = 10_000
const IN_FLIGHT_MAX_BYTES = 16 * 1024 * 1024
/** Channels joined again at a time when Redis is back. */
const REJOIN_SLICE = 500

/** @returns opens one node's end. */
export function openRedisHints({ publisher, subscriber, report, onLost }: RedisHintsDeps): OpenBus {
  return (receive) => {
    const origin = randomUUID()
    const local = openLocalHub(report)(receive)
    const joined = new Set<Channel>()
    /** Joined, and Redis could not be told. */
    const missed = new Set<string>()
    let inFlight = 0
    let inFlightBytes = 0
    let closed = false
    /** Hints were lost: of this node, or of any. What nothing else will ever tell is to be said again when they flow. */
    let lost: 'none' | 'own' | 'any' = 'none'
    let wasReady = false

    const isWanted = (channel: string): boolean =>
      channel === NODES || joined.has(channel.slice(PREFIX.length) as Channel)
    const listen = async (channel: string): Promise<void> => {
      if (subscriber.status !== 'ready') return
      // What fails here is made up for when the connection is ready again, or a cluster has who answers for it.
      await subscriber.ssubscribe(channel).then(
        () => void missed.delete(channel),
        () => void (isWanted(channel) && missed.add(channel)),
      )
    }
    const listenAll = async (channels: string[]): Promise<void> => {
      for (let at = 0; at < channels.length && !closed; at += REJOIN_SLICE)
        await Promise.all(channels.slice(at, at + REJOIN_SLICE).map((each) => isWanted(each) && listen(each)))
    }
    const ready = async (): Promise<void> => {
      missed.clear()
      await listenAll([NODES, ...[...joined].map((each) => PREFIX + each)])
      // What others said meanwhile did not come here.
      if (wasReady) missing('any')
      wasReady ||= subscriber.status === 'ready'
    }
    const again = async (): Promise<void> => {
      if (missed.size === 0 && !wasReady) return
      await listenAll([...missed])
      // Also when nothing was missed here: what was joined is joined anew at the new masters, which had nobody listening until then.
      missing('any')
    }
    const missing = (whose: 'own' | 'any'): void => {
      if (lost !== 'any') lost = whose
      if (whose === 'any') flows()
    }
    const flows = (): void => {
      if (closed || lost === 'none' || publisher.status !== 'ready') return
      const whose = lost
      lost = 'none'
      if (whose === 'any') bus.publish({ kind: 'again' })
      else local.publish({ kind: 'again' })
    }
    const hear = (channel: string, message: string): void => {
      const name = channel.slice(PREFIX.length) as Channel
      if (closed || message.startsWith(origin) || (channel !== NODES && !joined.has(name))) return
      const hint = decodeHint(message.slice(origin.length))
      if (!hint) return
      try {
        receive(hint)
      } catch (error) {
        report(error)
      }
    }
    const send = (channel: string, hint: Hint): void => {
      const isFull = inFlight >= IN_FLIGHT_MAX || inFlightBytes >= IN_FLIGHT_MAX_BYTES
      const failed = (): void => {
        onLost(1)
        // Of others the database or the presence store knows. Said again for each of them it would be more and more for a Redis that
        // does not keep up. I12
        if (hint.kind === 'ownRead') missing('own')
        // Whom this hint was to ask was not asked.
        if (hint.kind === 'again') lost = 'any'
      }
      if (publisher.status !== 'ready' || isFull) {
        failed()
        return
      }
      const text = origin + encodeHint(hint)
      const count = (sign: 1 | -1): void => {
        inFlight += sign
        inFlightBytes += sign * text.length
      }
      count(1)
      publisher.spublish(channel, text).then(
        () => {
          count(-1)
          flows()
        },
        () => {
          count(-1)
          failed()
        },
      )
    }

    subscriber.on('smessage', hear)
    subscriber.on('ready', ready)
    subscriber.on('subscribersReady', again)
    publisher.on('ready', flows)
    void ready()
    const bus: Bus = {
      async join(channel) {
        joined.add(channel)
        await Promise.all([local.join(channel), listen(PREFIX + channel)])
      },
      leave(channel) {
        joined.delete(channel)
        missed.delete(PREFIX + channel)
        local.leave(channel)
        if (subscriber.status === 'ready') subscriber.sunsubscribe(PREFIX + channel).catch(() => {})
      },
      publish(hint) {
        if (closed) return
        local.publish(hint)
        if (hint.kind === 'signal' || hint.kind === 'read')
          for (const userId of hint.userIds) send(`${PREFIX}user:${userId}`, { ...hint, userIds: [userId] })
        else for (const channel of channelsOf(hint) ?? ['nodes']) send(PREFIX + channel, hint)
      },
      async close() {
        closed = true
        subscriber.off('smessage', hear)
        subscriber.off('ready', ready)
        subscriber.off('subscribersReady', again)
        publisher.off('ready', flows)
        await local.close()
      },
    }
    return bus
  }
}
