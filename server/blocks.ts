// Who wants nothing of whom. What a block does to sends is in roster() and authorize.ts, to signals in the features. [V-7]
import { invalid, RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { BLOCKS_MAX } from '../proto/limits.ts'
import { lockAudience } from './conversation-change.ts'
import type { Sql, Transaction } from './database.ts'

/** One user a user blocks. */
export type Block = { userId: Uuid; blockedAtMs: number }

export type Blocks = {
  /** Committed when it resolves; again changes nothing. Whether the user exists makes no difference (I13). @throws INVALID_REQUEST for oneself, CONFLICT past the limit. */
  block(blocker: Uuid, blocked: Uuid): Promise<void>
  /** Ends it; none is no error. */
  unblock(blocker: Uuid, blocked: Uuid): Promise<void>
  /** Whether the user blocks the other. */
  has(blocker: Uuid, blocked: Uuid): Promise<boolean>
  /** Whom the user blocks, by user id. */
  list(blocker: Uuid): Promise<Block[]>
}

/** Conversations of the two that nodes are told to look at again, direct ones first; others do so within half a minute. */
const TOLD_MAX = 100

/** @param onChanged after commit, of each conversation the two share: what is cached of it is stale. */
export function openBlocks({
  sql,
  onChanged,
}: {
  sql: Sql
  onChanged(conversationId: Uuid, users: [Uuid, Uuid]): void
}): Blocks {
  async function change(blocker: Uuid, blocked: Uuid, write: (tx: Transaction) => Promise<void>): Promise<void> {
    await sql.begin(async (tx) => {
      // The queues' locks: a send to the blocker was committed before, or sees what comes after. I8
      await lockAudience(tx, [blocker])
      await write(tx)
    })
    const shared = await sql<{ conversation_id: Uuid }[]>`
      select mine.conversation_id from conversation_members mine
      join conversation_members theirs on theirs.conversation_id = mine.conversation_id and theirs.user_id = ${blocked}
      join conversations c on c.conversation_id = mine.conversation_id and c.archived_at is null
      where mine.user_id = ${blocker} order by c.kind limit ${TOLD_MAX}`
    for (const { conversation_id } of shared) onChanged(conversation_id, [blocker, blocked])
  }

  return {
    async block(blocker, blocked) {
      if (blocker === blocked) throw invalid('user_id is your own')
      await change(blocker, blocked, async (tx) => {
        const [{ count }] = await tx<[{ count: number }]>`
          select count(*)::int as count from blocks where blocker = ${blocker} and blocked <> ${blocked}`
        if (count >= BLOCKS_MAX) throw new RelayError('CONFLICT', `a user blocks at most ${BLOCKS_MAX} others`)
        await tx`insert into blocks (blocker, blocked) values (${blocker}, ${blocked}) on conflict do nothing`
        // What either was told of the other's reading stays as it is. [V-7.3]
        await tx`
          insert into block_marks (reader, sender, conversation_id, shown_up_to)
          select x.reader, x.sender, mine.conversation_id, r.shown_up_to
          from (values (${blocker}::uuid, ${blocked}::uuid), (${blocked}::uuid, ${blocker}::uuid)) x(reader, sender)
          join conversation_members mine on mine.user_id = x.reader
          join conversation_members theirs on theirs.conversation_id = mine.conversation_id and theirs.user_id = x.sender
          left join read_marks r on r.conversation_id = mine.conversation_id and r.user_id = x.reader
          on conflict do nothing`
      })
    },

    unblock: (blocker, blocked) =>
      change(blocker, blocked, async (tx) => {
        await tx`delete from blocks where blocker = ${blocker} and blocked = ${blocked}`
        await tx`delete from block_marks where (reader, sender) in ((${blocker}, ${blocked}), (${blocked}, ${blocker}))
          and not exists (select from blocks where blocker = ${blocked} and blocked = ${blocker})`
      }),

    async has(blocker, blocked) {
      const [row] = await sql`select 1 from blocks where blocker = ${blocker} and blocked = ${blocked}`
      return row !== undefined
    },

    async list(blocker) {
      const rows = await sql<{ blocked: Uuid; blocked_at: Date }[]>`
        select blocked, blocked_at from blocks where blocker = ${blocker} order by blocked`
      return rows.map((row) => ({ userId: row.blocked, blockedAtMs: row.blocked_at.getTime() }))
    },
  }
}
