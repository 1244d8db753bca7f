// Who began anew, told to everybody who shares a conversation with him: a to-do in the transaction of the new identity, worked
// off after it in small transactions by whichever node comes first. A user may share hundreds of groups of hundreds. [V-5]
import type { Uuid } from '../proto/ids.ts'
import { lockAudience } from './conversation-change.ts'
import type { Sql, Transaction } from './database.ts'
import { enqueueEvent } from './events.ts'
import type { Committed } from './frames.ts'

export type News = {
  /** Notes that everybody is to be told, in the transaction that makes it true and that holds the user's account. */
  put(tx: Transaction, userId: Uuid, identityKey: Uint8Array, nowMs: number): Promise<void>
  /** After its commit: begins to tell. Returns at once. */
  tell(): void
}

/** clock: Unix milliseconds. report: an error nobody expected. */
export type NewsDeps = {
  sql: Sql
  clock: () => number
  /** After a commit, best effort: the events are in the devices' queues already. */
  fanOut(committed: Committed[]): void
  report(error: unknown): void
}

/** Users told in one transaction: at most ten times as many devices, whose queues wait that long. I14 */
const USERS_PER_SLICE = 100
/** What another node left undone when it ended is found within this time, milliseconds. */
const LOOK_MS = 15_000

/** Tells what is left to tell now, on every call of `tell`, and every few seconds. `stop` ends it after the slice under way. */
export function keepTelling(deps: NewsDeps): News & { stop(): Promise<void> } {
  let running: Promise<void> | null = null
  let again = false
  let stopped = false

  const run = async (): Promise<void> => {
    do {
      again = false
      await tellAll(deps, () => stopped).catch(deps.report)
    } while (again && !stopped)
    running = null
  }
  const tell = (): void => {
    if (stopped) return
    if (running) again = true
    else running = run()
  }
  const timer = setInterval(tell, LOOK_MS)
  tell()
  return {
    put: async (tx, userId, identityKey, nowMs) => {
      // Begun anew twice: those who were told the first are told the second, the others only that.
      await tx`insert into identity_news (user_id, identity_key, changed_at)
        values (${userId}, ${identityKey}, ${new Date(nowMs)})
        on conflict (user_id) do update
        set identity_key = excluded.identity_key, changed_at = excluded.changed_at, told_up_to = null`
    },
    tell,
    async stop() {
      stopped = true
      clearInterval(timer)
      await running
    },
  }
}

async function tellAll(deps: NewsDeps, stopped: () => boolean): Promise<void> {
  const left = await deps.sql<{ user_id: Uuid }[]>`select user_id from identity_news order by changed_at`
  for (const { user_id: userId } of left) {
    // One that fails now, on a lock or a connection, must not keep the others from being told.
    await tellOne(deps, userId, stopped).catch(deps.report)
  }
}

async function tellOne(deps: NewsDeps, userId: Uuid, stopped: () => boolean): Promise<void> {
  while (!stopped()) {
    const committed = await deps.sql.begin((tx) => tellSlice(tx, userId, deps.clock()))
    if (!committed) return
    deps.fanOut(committed)
  }
}

/** @returns null: nobody is left, or somebody else tells them. */
async function tellSlice(tx: Transaction, userId: Uuid, nowMs: number): Promise<Committed[] | null> {
  const [news] = await tx<{ identity_key: Buffer; told_up_to: Uuid | null }[]>`
    select identity_key, told_up_to from identity_news where user_id = ${userId}`
  if (!news) return null
  const { identity_key: identityKey, told_up_to: toldUpTo } = news
  const audience = await nextAudience(tx, userId, toldUpTo)
  const deviceKeys = await lockAudience(tx, audience)
  // Last, after accounts and queues, as a new identity takes them: whoever changed it meanwhile, or told these, has been here.
  const mine = tx`user_id = ${userId} and identity_key = ${identityKey} and told_up_to is not distinct from ${toldUpTo}`
  if (audience.length === 0) {
    await tx`delete from identity_news where ${mine}`
    return null
  }
  const moved = await tx`update identity_news set told_up_to = ${audience.at(-1)!} where ${mine}`
  if (moved.count === 0) return []
  const event = { identityChanged: { userId, identityKey } }
  return enqueueEvent(tx, { conversationId: null, event, deviceKeys, nowMs })
}

const BEFORE_ALL: Uuid = '00000000-0000-0000-0000-000000000000'

/** The next who share a conversation that is not archived, ascending: each conversation gives no more than the slice takes. */
async function nextAudience(tx: Transaction, userId: Uuid, after: Uuid | null): Promise<Uuid[]> {
  const rows = await tx<{ user_id: Uuid }[]>`
    select distinct m.user_id
    from conversation_members own
    join conversations c on c.conversation_id = own.conversation_id and c.archived_at is null
    cross join lateral (
      select other.user_id from conversation_members other
      where other.conversation_id = own.conversation_id and other.state = 'active' and other.user_id <> ${userId}
        and other.user_id > ${after ?? BEFORE_ALL}
      order by other.user_id limit ${USERS_PER_SLICE}) m
    where own.user_id = ${userId} and own.state = 'active'
    order by m.user_id limit ${USERS_PER_SLICE}`
  return rows.map((row) => row.user_id)
}
