// What one batch does about refusals and failures: takes refused sends out and tries again, splits on bad data, repeats on a lost connection.
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { type AppendResult, append, type Entry } from './append.ts'
import { route } from './authorize.ts'
import type { Sql } from './database.ts'
import { isBadData, isLostConnection, isTransient } from './errors.ts'
import type { Committed } from './frames.ts'
import type { RosterDevice, Rosters } from './rosters.ts'

/** What became of one send. */
export type Outcome = {
  messageId: Uuid
  sentAtMs: number
  duplicate: boolean
  /** Full queues. */
  skipped: { userId: Uuid; deviceId: number; registrationId: number }[]
  /** Rows written now, for the fan-out; empty for a duplicate. */
  committed: Committed[]
}

/** An entry in the pipeline with its two ways out; exactly one is called. */
export type Pending = Entry & {
  /** How often its roster changed under it. */
  moves?: number
  resolve(outcome: Outcome): void
  reject(error: unknown): void
}

export type BatchDeps = {
  sql: Sql
  rosters: Rosters
  clock: () => number
  quota: number
  /** A pending member accepted a conversation by what he sent: what is cached of it is stale. */
  onAccepted(conversationId: Uuid, members: Uuid[]): void
  /** These devices may have rows nobody will announce: their sessions look for themselves. */
  onUnknown(deviceKeys: number[]): void
  /** An error nobody expected, in full. */
  report(error: unknown): void
}

/** Attempts of a batch whose connection was lost or whose locks were not to be had, with the pauses between them. */
const RETRY_PAUSES_MS = [50, 200, 500, 1000, 2000]
/** Roster changes under one send before its sender is told to come again. */
const MAX_MOVES = 8
/** A sender to a full queue waits this long: a retry storm would not drain it. */
const FULL_RETRY_MS = 60_000

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Every entry is resolved or rejected when this returns; it never throws. */
export async function commitBatch(entries: Pending[], deps: BatchDeps): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      await commitOnce(entries, deps)
      return
    } catch (error) {
      const open = entries.filter((each) => !settled.has(each))
      if (isBadData(error)) {
        deps.report(error)
        if (open.length === 1) {
          settle(open[0]!, () =>
            open[0]!.reject(new RelayError('INVALID_REQUEST', 'the message holds data that cannot be stored')),
          )
          return
        }
        // One bad row must not take 499 good ones along.
        const half = open.length >> 1
        await commitBatch(open.slice(0, half), deps)
        await commitBatch(open.slice(half), deps)
        return
      }
      const lost = isLostConnection(error)
      if (lost) deps.onUnknown(open.flatMap((each) => each.rows.map((row) => row.device.deviceKey)))
      const retryMs = RETRY_PAUSES_MS[attempt]
      if ((lost || isTransient(error)) && retryMs !== undefined) {
        // The same ids again: what did commit comes back as a duplicate of itself. I2
        await pause(retryMs)
        continue
      }
      for (const each of open) settle(each, () => each.reject(error))
      return
    }
  }
}

const settled = new WeakSet<Pending>()
const settle = (entry: Pending, out: () => void): void => {
  settled.add(entry)
  out()
}

async function commitOnce(entries: Pending[], deps: BatchDeps): Promise<void> {
  for (;;) {
    const open = entries.filter((each) => !settled.has(each))
    if (open.length === 0) return
    const sentAtMs = deps.clock()
    const result = await append(deps.sql, open, sentAtMs, deps.quota)
    if (result.written) {
      open.forEach((entry, i) => {
        if (entry.accepts) deps.onAccepted(entry.send.conversationId, membersOf(entry))
        settle(entry, () => entry.resolve(accepted(entry, sentAtMs, result.sequences[i]!)))
      })
      return
    }
    await takeOut(open, result, deps)
  }
}

const membersOf = ({ roster }: Pending): Uuid[] => [...new Set(roster.devices.map((each) => each.userId))]

function accepted(entry: Pending, sentAtMs: number, sequences: number[]): Outcome {
  const { send, sender, messageId } = entry
  const committed = entry.rows.map(({ device, recipient }, i) => ({
    deviceKey: device.deviceKey,
    delivery: {
      sequence: sequences[i]!,
      messageId,
      conversationId: send.conversationId,
      sentAtMs,
      sender: { userId: sender.userId, deviceId: sender.deviceId, clientMessageId: send.clientMessageId },
      messageType: send.messageType,
      ciphertextType: recipient.ciphertextType,
      withheld: recipient.withheld,
      content: recipient.content,
      iv: recipient.iv,
      replyToMessageId: send.replyToMessageId,
      attachmentUrl: send.attachmentUrl,
      thumbnailUrl: send.thumbnailUrl,
      urgent: send.urgent,
    },
  }))
  const skipped = [...entry.overflow.map(({ device }) => device), ...(entry.unheard ?? [])]
  // In one order, whoever was told nothing of it.
  skipped.sort((a, b) => a.deviceKey - b.deviceKey)
  return { messageId, sentAtMs, duplicate: false, skipped, committed }
}

type Refused = Extract<AppendResult, { written: false }>

/** Settles what was refused for good and re-decides the rest; order within the batch stays. */
async function takeOut(open: Pending[], refused: Refused, deps: BatchDeps): Promise<void> {
  for (const id of refused.moved) deps.rosters.drop(id)
  const fresh = new Map(
    await Promise.all([...refused.moved].map(async (id) => [id, await deps.rosters.load(id)] as const)),
  )
  const known = await skippedBy(
    [...refused.duplicates.values()].map((each) => each.messageId),
    deps.sql,
  )
  for (const [i, entry] of open.entries()) {
    const first = refused.duplicates.get(i)
    if (first) {
      // Its own id: this very batch did commit, on a connection that was lost before it could say so.
      const own = first.messageId === entry.messageId
      if (own) deps.onUnknown(entry.rows.map((row) => row.device.deviceKey))
      const skipped = known.get(first.messageId) ?? []
      settle(entry, () => entry.resolve({ ...first, duplicate: !own, skipped, committed: [] }))
      continue
    }
    try {
      if (refused.gone.has(entry.sender.deviceKey))
        throw new RelayError('UNAUTHENTICATED', 'this device is no longer linked')
      if (refused.moved.has(entry.send.conversationId)) {
        const roster = fresh.get(entry.send.conversationId)
        if (!roster) throw new RelayError('INVALID_REQUEST', 'conversation_id names no conversation of yours')
        // Only those that keep moving: the rest of the batch is innocent.
        entry.moves = (entry.moves ?? 0) + 1
        if (entry.moves > MAX_MOVES)
          throw new RelayError('UNAVAILABLE', 'the conversation keeps changing', { retryAfterMs: 1000 })
        entry.roster = roster
        Object.assign(entry, route(entry.sender, entry.send, roster), { overflow: [], unheard: [] })
      }
      if (refused.over.has(i))
        throw new RelayError('FORBIDDEN', 'they have not accepted this conversation: no more messages until they do')
      if (refused.full.size > 0) spill(entry, refused.full)
    } catch (error) {
      settle(entry, () => entry.reject(error))
    }
  }
}

/**
 * Moves rows aside that find no room; `room` is what full queues still take, less what this entry takes of it. Devices that
 * would be given nothing refuse like others: whoever is blocked sees the queue as full as everybody does. [V-7.1]
 */
function spill(entry: Pending, room: Map<number, number>): void {
  const isFull = (device: RosterDevice): boolean => room.get(device.deviceKey) === 0
  const heard = entry.suppressed.filter((device) => !entry.unheard?.includes(device))
  const devices = [...entry.rows.map((row) => row.device), ...heard]
  const others = devices.filter(({ userId }) => userId !== entry.sender.userId)
  if (entry.roster.kind === 'direct' && others.length > 0 && others.every(isFull))
    throw new RelayError('QUEUE_FULL', 'the recipient has not collected messages for too long', {
      retryAfterMs: FULL_RETRY_MS,
    })
  entry.overflow = [...entry.overflow, ...entry.rows.filter(({ device }) => isFull(device))]
  entry.unheard = [...(entry.unheard ?? []), ...heard.filter(isFull)]
  entry.rows = entry.rows.filter(({ device }) => !isFull(device))
  for (const { device } of entry.rows) {
    const left = room.get(device.deviceKey)
    if (left !== undefined) room.set(device.deviceKey, left - 1)
  }
}

/** The devices the first answers named as skipped, by message. */
export async function skippedBy(messageIds: Uuid[], sql: Sql): Promise<Map<Uuid, Outcome['skipped']>> {
  const all = new Map<Uuid, Outcome['skipped']>()
  if (messageIds.length === 0) return all
  const rows = await sql<{ message_id: Uuid; user_id: Uuid; device_id: number; registration_id: number }[]>`
    select d.message_id, k.user_id, k.device_id, k.registration_id from dead_letters d join keys.devices k using (device_key)
    where d.message_id = any(${messageIds}::uuid[]) and d.reason = 'overflow'`
  for (const row of rows) {
    const device = { userId: row.user_id, deviceId: row.device_id, registrationId: row.registration_id }
    all.set(row.message_id, [...(all.get(row.message_id) ?? []), device])
  }
  return all
}
