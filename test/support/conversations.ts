// Conversations on a real database, without routes or sockets: changes asked for, their refusals, and steps that meet.
import type { RelayError } from '../../proto/errors.ts'
import type { Uuid } from '../../proto/ids.ts'
import type { ChangeRequest } from '../../server/conversation-change.ts'
import { Conversations } from '../../server/conversations.ts'
import type { Sql, Transaction } from '../../server/database.ts'
import type { Committed } from '../../server/frames.ts'
import { populate } from './population.ts'

export const NOW = Date.UTC(2026, 0, 2, 3, 4, 5, 678)

/** So many users with so many devices each. */
export const makeUsers = async (sql: Sql, count: number, devicesEach = 1): Promise<Uuid[]> =>
  (await populate(sql, count, devicesEach)).map((each) => each.userId)

/** Conversations on this database, with what they fanned out and dropped from caches, in order. */
export function recording(
  sql: Sql,
  strangers: 'ask' | 'open' = 'open',
): { conversations: Conversations; fannedOut: Committed[][]; changed: Uuid[] } {
  const fannedOut: Committed[][] = []
  const changed: Uuid[] = []
  const conversations = new Conversations({
    sql,
    strangers,
    fanOut: (committed) => fannedOut.push(committed),
    onChanged: (conversationId) => changed.push(conversationId),
  })
  return { conversations, fannedOut, changed }
}

/** Ann, creator and admin of every group made here; Bob and Cy, its members; Eve, who is in none. */
export async function openGroups(sql: Sql) {
  const { conversations, changed } = recording(sql)
  const [ann, bob, cy, eve] = (await makeUsers(sql, 4)) as [Uuid, Uuid, Uuid, Uuid]
  const group = async (userIds = [bob, cy]): Promise<Uuid> =>
    (await conversations.createGroup(by(ann), { userIds, name: 'hill', description: 'walks' })).conversationId
  const read = (id: Uuid, reader = ann) => conversations.read(id, reader, { afterRevision: 0, limit: 100 })
  /** The active members' roles by user. */
  const roles = async (id: Uuid, reader = ann) =>
    Object.fromEntries((await read(id, reader)).members.map((each) => [each.userId, each.role]))
  return { conversations, changed, ann, bob, cy, eve, group, read, roles }
}

/** A change asked for by this user. */
export const by = (caller: Uuid, more: Partial<ChangeRequest> = {}): ChangeRequest => ({
  caller,
  signedChange: new Uint8Array(0),
  expectedRevision: null,
  nowMs: NOW,
  ...more,
})

/** The refusal of a promise, as `CODE: message`; 'done' when it was not refused. */
export const refusal = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'done',
    (error: RelayError) => `${error.code}: ${error.message}`,
  )

/** Its code only. */
export const refusalCode = async (promise: Promise<unknown>): Promise<string> => (await refusal(promise)).split(':')[0]!

/**
 * Holds a lock while the given steps run into it: each step begins when all before it wait for a lock, and the lock goes
 * when the last waits too (or ended without). Steps that queue for one row get it in their order.
 */
export async function pileUp<T>(
  sql: Sql,
  lock: (tx: Transaction) => PromiseLike<unknown>,
  steps: (() => Promise<T>)[],
): Promise<PromiseSettledResult<T>[]> {
  const begun: Promise<T>[] = []
  await sql.begin(async (tx) => {
    // However long this process stands still between two questions.
    await tx`set local idle_in_transaction_session_timeout = 0`
    await lock(tx)
    for (const step of steps) {
      const promise = step()
      let running = true
      const ended = () => {
        running = false
      }
      promise.then(ended, ended)
      begun.push(promise)
      for (let waiting = 0; running && waiting < begun.length; ) {
        await tx`select pg_stat_clear_snapshot()`
        const [row] = await tx<{ waiting: number }[]>`
          select count(*) as waiting from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
        waiting = row!.waiting
      }
    }
  })
  return Promise.allSettled(begun)
}
