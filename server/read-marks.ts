// How far each member has read: one mark per member, forward only. The marks of all sessions share statements. [G-4]
import type { Uuid } from '../proto/ids.ts'
import type { Sql } from './database.ts'

/** A user's word that he has read up to this message. */
export type ReadUpTo = { userId: Uuid; conversationId: Uuid; messageId: Uuid }

/** What became of it. */
export type Marked =
  | {
      standing: 'member'
      /** The mark stands there now and did not before; false: it stood there or further on. */
      moved: boolean
      /** It stood there before, at this very message. */
      stands: boolean
      /** Where it stood; null = nowhere. A hint: another mark of the same member may have come between. */
      previous: Uuid | null
      /** Others may know of it. [G-4.3] */
      shown: boolean
    }
  /** former: the user has left. none: the conversation does not exist, or the user was never in it (I13). */
  | { standing: 'former' | 'invited' | 'none' | 'unknown message' }

type Waiting = ReadUpTo & { resolve(marked: Marked): void; reject(error: unknown): void }
type Row = Pick<ReadUpTo, 'messageId'> & {
  state: string | null
  named: boolean
  previous: Uuid | null
  shown: boolean
  moved: boolean
}

/** Marks in one statement. */
const STATEMENT_MAX = 500

export class ReadMarks {
  private readonly sql: Sql
  private queue: Waiting[] = []
  private busy = false

  constructor(sql: Sql) {
    this.sql = sql
  }

  /** Moves a mark forward; committed when it resolves. A mark that stands further on stays. @throws the database's error. */
  move(mark: ReadUpTo): Promise<Marked> {
    return new Promise((resolve, reject) => {
      this.queue.push({ ...mark, resolve, reject })
      if (this.busy) return
      this.busy = true
      setImmediate(() => void this.run())
    })
  }

  private async run(): Promise<void> {
    while (this.queue.length > 0) {
      const batch = this.queue.splice(0, STATEMENT_MAX)
      try {
        const rows = await this.statement(batch)
        batch.forEach((each, i) => {
          each.resolve(markedOf(rows[i]!))
        })
      } catch (error) {
        for (const each of batch) each.reject(error)
      }
    }
    this.busy = false
  }

  // The version check: an update that finds the mark further on than in its snapshot looks again, under the row's lock. One order
  // (distinct on sorts) for all who write several marks, so that nodes do not wait for each other in a circle.
  private async statement(batch: ReadUpTo[]): Promise<Row[]> {
    const list = (pick: (each: ReadUpTo) => Uuid): string => `{${batch.map(pick).join(',')}}`
    return this.sql<Row[]>`
      with asked as materialized (
        select x.i, x.c, x.u, x.m, s.state, r.read_up_to as previous, coalesce(t.read_receipts, true) as shown,
          exists (select from messages g where g.message_id = x.m and g.conversation_id = x.c) as named
        from unnest(${list((each) => each.conversationId)}::text::uuid[], ${list((each) => each.userId)}::text::uuid[],
          ${list((each) => each.messageId)}::text::uuid[]) with ordinality x(c, u, m, i)
        left join conversation_members s on s.conversation_id = x.c and s.user_id = x.u
        left join read_marks r on r.conversation_id = x.c and r.user_id = x.u
        left join settings t on t.user_id = x.u
      ), moved as (
        insert into read_marks as r (conversation_id, user_id, read_up_to, shown_up_to)
        select distinct on (c, u) c, u, m, case when shown then m end from asked where state in ('active', 'pending') and named order by c, u, m desc
        on conflict (conversation_id, user_id) do update
        set read_up_to = excluded.read_up_to, shown_up_to = coalesce(excluded.shown_up_to, r.shown_up_to)
        where r.read_up_to < excluded.read_up_to
        returning conversation_id, user_id, read_up_to
      )
      select a.m as "messageId", a.state, a.previous, a.shown, a.named or a.m <= a.previous as named, v.read_up_to is not null as moved
      from asked a left join moved v on v.conversation_id = a.c and v.user_id = a.u and v.read_up_to = a.m order by a.i`
  }
}

function markedOf({ messageId, state, named, previous, shown, moved }: Row): Marked {
  if (state === null) return { standing: 'none' }
  if (state === 'invited') return { standing: 'invited' }
  if (state !== 'active' && state !== 'pending') return { standing: 'former' }
  // At or before the mark it changes nothing, also when the message is long forgotten. [G-4.1]
  if (!named) return { standing: 'unknown message' }
  return { standing: 'member', moved, stands: previous === messageId, previous, shown }
}
