// What a request of a connected device can be, besides sends, acks and syncs: one shape for all, so that whoever takes frames in need
// not know them. A feature is one file of this folder.
import { limited, openLocalMeters, type Rate } from '../../keys/meter.ts'
import { RelayError } from '../../proto/errors.ts'
import type { Uuid } from '../../proto/ids.ts'
import type { Hint } from '../bus/bus.ts'
import type { ClientFrame } from '../codec.ts'
import type { Sent, Session } from '../session.ts'

type Kind = ClientFrame['kind']

/** All that the rest of the relay knows of a feature. */
export type Feature<K extends Kind> = {
  kind: K
  /** Requests of one device; beyond it RATE_LIMITED. Absent: the feature limits by itself. */
  rate?: Rate
  /** Does it and answers on the session's connection, exactly once where the protocol has an answer. [C-2.3] @throws to refuse. */
  handle(session: Session, frame: Extract<ClientFrame, { kind: K }>): void | Promise<void>
  /** A session has got its Hello. */
  connected?(session: Session): void
  /** A session is over, and forgotten by `sessions`. Also told of sessions that never connected. */
  gone?(session: Session): void
  /** Acks of this session are committed. @param earlier deliveries it ended of which it did not know the sender. */
  acked?(session: Session, envelopes: Sent[], earlier: Uuid[]): void
  /** A hint came to this node. */
  hear?(hint: Hint): void
  /** The relay ends: no timers from here on. */
  stop?(): void
}

/** One of whatever kind. */
export type AnyFeature = { [K in Kind]: Feature<K> }[Kind]

/** All features of a node, as one. */
export type Features = Required<Pick<AnyFeature, 'connected' | 'gone' | 'acked' | 'hear' | 'stop'>> & {
  /** @throws what the feature refuses with; RATE_LIMITED; INVALID_REQUEST for a frame no feature takes. */
  handle(session: Session, frame: ClientFrame): void | Promise<void>
}

/** Devices remembered per limited feature; past it the one idle longest starts afresh. I10 */
const MAX_DEVICES = 100_000

/** @param clock Unix milliseconds. @param report a feature failed at what it was told: nobody else's business. */
export function openFeatures(features: AnyFeature[], clock: () => number, report: (error: unknown) => void): Features {
  // A device is connected to one node, which can count alone. [C-5]
  const open = openLocalMeters(clock, MAX_DEVICES)
  const byKind = new Map(
    features.map((each) => {
      const meter = each.rate && open({ name: each.kind, rates: [each.rate], whenGone: 'open' })
      return [each.kind, { each, meter }]
    }),
  )
  let stopped = false
  const tell = (each: (feature: AnyFeature) => void): void => {
    for (const feature of features) {
      try {
        each(feature)
      } catch (error) {
        report(error)
      }
    }
  }
  return {
    handle(session, frame) {
      const found = byKind.get(frame.kind)
      if (!found) throw new RelayError('INVALID_REQUEST', 'the frame has no body this relay knows')
      const { each, meter } = found
      const waitMs = meter?.take(`${session.caller.deviceKey}`, 1) ?? 0
      if (waitMs > 0) throw limited('too many requests of this kind', waitMs)
      // Found under the frame's own kind.
      return each.handle(session, frame as never)
    },
    connected: (session) => tell((each) => each.connected?.(session)),
    gone: (session) => tell((each) => each.gone?.(session)),
    acked: (session, envelopes, earlier) => tell((each) => each.acked?.(session, envelopes, earlier)),
    // Other nodes go on: what they still say would set timers, and ask a database that is gone.
    hear: (hint) => stopped || tell((each) => each.hear?.(hint)),
    stop: () => {
      stopped = true
      tell((each) => each.stop?.())
    },
  }
}
