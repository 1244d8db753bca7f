// Who receives what is sent to a conversation, cached. A roster may be stale: sends are decided on it, and the append function
// confirms its digest under the locks (docs/decisions/roster-digest.md). Nothing here writes.
import type { Uuid } from '../proto/ids.ts'
import type { Sql } from './database.ts'

/** One device of an active member, or of a pending one. */
export type RosterDevice = { deviceKey: number; userId: Uuid; deviceId: number; registrationId: number }

export type Roster = {
  conversationId: Uuid
  kind: 'direct' | 'group'
  archived: boolean
  /** Who has not accepted this direct conversation yet; null = nobody. [V-6] */
  pendingUser: Uuid | null
  /** Who of a direct conversation blocks the other. [V-7] */
  blockers: Uuid[]
  /** Pairs of members of whom one blocks the other; not part of the digest. */
  apart: Uuid[][]
  /** Names exactly this device set, archived state, pending user and blocks; compared by append_batch. */
  digest: string
  /** Ascending by device key. */
  devices: RosterDevice[]
  /** The same devices by `userId.deviceId`. */
  byAddress: Map<string, RosterDevice>
  byKey: Map<number, RosterDevice>
  /** When it was read, milliseconds of a clock that never steps back. */
  readAtMs: number
}

/** Key of Roster.byAddress. */
export const addressOf = (userId: Uuid, deviceId: number): string => `${userId}.${deviceId}`

type Row = {
  id: Uuid
  kind: 'direct' | 'group'
  archived: boolean
  digest: string
  device_keys: number[] | null
  user_ids: Uuid[] | null
  device_ids: number[] | null
  registration_ids: number[] | null
  pending_user: Uuid | null
  blockers: Uuid[] | null
  apart: string[] | null
}

function fromRow(row: Row, readAtMs: number): Roster {
  const devices = (row.device_keys ?? []).map((key, i) => ({
    deviceKey: Number(key),
    userId: row.user_ids![i]!,
    deviceId: row.device_ids![i]!,
    registrationId: row.registration_ids![i]!,
  }))
  return {
    conversationId: row.id,
    kind: row.kind,
    archived: row.archived,
    pendingUser: row.pending_user,
    blockers: row.blockers ?? [],
    apart: (row.apart ?? []).map((pair) => pair.split(' ')),
    digest: row.digest,
    devices,
    byAddress: new Map(devices.map((each) => [addressOf(each.userId, each.deviceId), each])),
    byKey: new Map(devices.map((each) => [each.deviceKey, each])),
    readAtMs,
  }
}

/** A load that others may join. */
type Waiting = { promise: Promise<Roster | null>; settle(roster: Roster | null): void; fail(error: unknown): void }

/** Rosters of one query: 200 large groups at once take half a second and block the loop (I14). */
const QUERY_MAX_ROSTERS = 20
/** Devices the cache holds at most, over all rosters: about 250 bytes each. I10 */
const CACHE_MAX_DEVICES = 400_000

/**
 * A cache in front of the SQL function roster(). Concurrent loads of one tick share a query.
 */
export class Rosters {
  private readonly sql: Sql
  private readonly cache = new Map<Uuid, Roster>()
  private cachedDevices = 0
  private waiting = new Map<Uuid, Waiting>()
  /** Under way: the ids of each query, without those dropped since, of which it may say what was before. */
  private readonly reads = new Set<Set<Uuid>>()

  constructor(sql: Sql) {
    this.sql = sql
  }

  /** The cached roster, possibly stale; undefined when none is held. */
  cached(conversationId: Uuid): Roster | undefined {
    return this.cache.get(conversationId)
  }

  /** A roster read at most so long ago, for uses that nothing confirms under a lock; null when there is no such conversation. */
  async recent(conversationId: Uuid, maxAgeMs: number): Promise<Roster | null> {
    const held = this.cache.get(conversationId)
    return held && performance.now() - held.readAtMs <= maxAgeMs ? held : this.load(conversationId)
  }

  /** Forgets a roster: its conversation, its members or their devices changed. */
  drop(conversationId: Uuid): void {
    for (const ids of this.reads) ids.delete(conversationId)
    this.forget(conversationId)
  }

  private forget(conversationId: Uuid): void {
    const held = this.cache.get(conversationId)
    if (!held) return
    this.cache.delete(conversationId)
    this.cachedDevices -= held.devices.length
  }

  /** Reads the roster as it is committed now and caches it; null when there is no such conversation. */
  load(conversationId: Uuid): Promise<Roster | null> {
    const pending = this.waiting.get(conversationId)
    if (pending) return pending.promise
    let settle!: (roster: Roster | null) => void
    let fail!: (error: unknown) => void
    const promise = new Promise<Roster | null>((resolve, reject) => {
      settle = resolve
      fail = reject
    })
    if (this.waiting.size === 0) setImmediate(() => this.flush())
    this.waiting.set(conversationId, { promise, settle, fail })
    return promise
  }

  private async flush(): Promise<void> {
    const batch = [...this.waiting]
    this.waiting = new Map()
    for (let at = 0; at < batch.length; at += QUERY_MAX_ROSTERS)
      await this.read(batch.slice(at, at + QUERY_MAX_ROSTERS))
  }

  private async read(batch: [Uuid, Waiting][]): Promise<void> {
    const readAtMs = performance.now()
    const current = new Set(batch.map(([id]) => id))
    this.reads.add(current)
    try {
      const rows = await this.sql<Row[]>`
        select x.id, r.*, (
          select array_agg(b.blocker || ' ' || b.blocked) from (select distinct u from unnest(r.user_ids) u) m
          join blocks b on b.blocker = m.u and b.blocked = any(r.user_ids)) as apart
        from unnest(${batch.map(([id]) => id)}::uuid[]) x(id) cross join lateral roster(x.id) r`
      const found = new Map(rows.map((row) => [row.id, fromRow(row, readAtMs)]))
      for (const [id, { settle }] of batch) {
        const roster = found.get(id) ?? null
        if (roster && current.has(id)) this.hold(roster)
        settle(roster)
      }
    } catch (error) {
      for (const [, { fail }] of batch) fail(error)
    } finally {
      this.reads.delete(current)
    }
  }

  private hold(roster: Roster): void {
    this.forget(roster.conversationId)
    this.cache.set(roster.conversationId, roster)
    this.cachedDevices += roster.devices.length
    for (const oldest of this.cache.keys()) {
      if (this.cachedDevices <= CACHE_MAX_DEVICES) break
      this.forget(oldest)
    }
  }
}
