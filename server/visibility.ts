// Whose presence a user may know: of people with whom he shares a conversation, as long as both show their own. [G-2.1] [G-2.3]
import type { Uuid } from '../proto/ids.ts'
import type { Sql } from './database.ts'

/**
 * Those of the targets whose presence the viewer may know, in one statement: both are active members of a conversation that is not
 * archived, and neither hides, nor blocks the other. Who has not accepted is not active. [V-6.3] [V-7.3] A user may know his own.
 */
export async function visibleTo(sql: Sql, viewer: Uuid, targets: readonly Uuid[]): Promise<Set<Uuid>> {
  const rows = await sql<{ user_id: Uuid }[]>`
    with targets as (select unnest(${[...targets]}::uuid[]) as user_id)
    select distinct theirs.user_id from conversation_members theirs
    join conversation_members mine on mine.conversation_id = theirs.conversation_id and mine.user_id = ${viewer} and mine.state = 'active'
    join conversations c on c.conversation_id = theirs.conversation_id and c.archived_at is null
    where theirs.user_id = any(array(select user_id from targets)) and theirs.state = 'active'
      and not exists (select from settings s where s.user_id = theirs.user_id and not s.presence)
      and not exists (select from settings s where s.user_id = ${viewer} and not s.presence)
      and not exists (select from blocks b where b.blocker = theirs.user_id and b.blocked = ${viewer})
      and not exists (select from blocks b where b.blocker = ${viewer} and b.blocked = theirs.user_id)
    union
    select user_id from targets where user_id = ${viewer}
      and not exists (select from settings s where s.user_id = ${viewer} and not s.presence)`
  return new Set(rows.map((row) => row.user_id))
}
