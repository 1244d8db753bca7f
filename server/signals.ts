// The features of a node, made of their parts. No rules of its own.
import type { Bus } from './bus/bus.ts'
import type { PresenceStore } from './bus/presence.ts'
import type { Conversations } from './conversations.ts'
import type { Database } from './database.ts'
import { type Features, openFeatures } from './features/feature.ts'
import { presence } from './features/presence.ts'
import { reauthenticate } from './features/reauthenticate.ts'
import { receipts } from './features/receipts.ts'
import { status } from './features/status.ts'
import { typing } from './features/typing.ts'
import type { Observe } from './observe.ts'
import { ReadMarks } from './read-marks.ts'
import type { Rosters } from './rosters.ts'
import type { Sessions } from './sessions.ts'
import type { SettingsStore } from './settings.ts'
import { Statuses } from './statuses.ts'
import type { Time } from './time.ts'
import { visibleTo } from './visibility.ts'

export type SignalParts = {
  database: Database
  bus: Bus
  store: PresenceStore
  sessions: Sessions
  rosters: Rosters
  settings: SettingsStore
  conversations: Conversations
  time: Time
  observe: Observe
  admit: Parameters<typeof reauthenticate>[0]
  /** The relay has too much to do for signals. I12 */
  pressed(): boolean
  /** An error nobody expected. */
  report(error: unknown): void
}

/** Every feature there is. */
export function openSignals(parts: SignalParts): Features {
  const { database, conversations, time, observe } = parts
  const { metrics, events } = observe
  const report = (error: unknown): void => observe.log.warn({ err: error }, 'a signal was left out')
  const statuses = new Statuses(database.reader)
  const marks = new ReadMarks(database.sql)
  const clock = (): number => time.now()
  return openFeatures(
    [
      reauthenticate(parts.admit),
      typing({
        ...parts,
        clock,
        onLeftOut: () => metrics.signalsLeftOut.inc({ kind: 'typing' }),
        membershipOf: (conversationId, userId) => conversations.membershipOf(conversationId, userId),
      }),
      presence({
        ...parts,
        report,
        visibleTo: (viewer, targets) => visibleTo(database.sql, viewer, targets),
        onWatch: ({ caller: { userId, deviceId } }, users) => events.watch({ userId, deviceId, users }),
        meter: (pairs) => metrics.watched.set(pairs),
      }),
      status({ ...parts, report, statuses, meter: (messages) => metrics.statusMessages.set(messages) }),
      receipts({
        ...parts,
        report,
        marks,
        onRead: ({ caller: { userId, deviceId } }, mark) => events.read({ userId, deviceId, ...mark }),
      }),
    ],
    clock,
    parts.report,
  )
}
