// The only importer of postgres.js: opens the pools. SQL itself lives beside the feature that needs it.
import postgres from 'postgres'

/** A pool, and inside `begin` a transaction. bigint columns arrive as numbers: none of ours exceeds 2^53 - 1. */
export type Sql = postgres.Sql<{ bigint: number }>
export type Transaction = postgres.TransactionSql<{ bigint: number }>
/** A statement, or a piece of one. */
export type PendingQuery = postgres.PendingQuery<postgres.Row[]>

export type Database = {
  /** Everything but the queue: accounts, conversations, keys. */
  sql: Sql
  /** The append function: a connection per lane, planner tied to index paths (docs/decisions/sequences.md). */
  writer: Sql
  /** Acks, apart from the sends: one that waits for rows holds up no send. The same planner. */
  acker: Sql
  /** Queue reads: at most this many at a time per node. */
  reader: Sql
  /** @param seconds how long statements under way are waited for; 5 unless said. */
  close(seconds?: number): Promise<void>
}

const bigint: postgres.PostgresType<number> = { to: 20, from: [20], serialize: String, parse: Number }

/** An array type by its number in PostgreSQL's catalogue, which never changes: one dimension, elements by their text form. */
const arrayOf = <T>(oid: number, parse: (text: string) => T): postgres.PostgresType<(T | null)[]> => ({
  to: oid,
  from: [oid],
  serialize: (values: (T | null)[]) =>
    `{${values.map((each) => (each === null ? 'NULL' : `"${String(each).replace(/["\\]/g, '\\$&')}"`)).join(',')}}`,
  parse: (text: string) =>
    Array.from(text.matchAll(/"((?:[^"\\]|\\.)*)"|([^{},]+)/gs), ([, quoted, bare]) => {
      if (quoted !== undefined) return parse(quoted.replace(/\\(.)/gs, '$1'))
      return bare === 'NULL' ? null : parse(bare!)
    }),
})
// The driver would ask every new connection for these, and a connection that ends before the answer ends the process.
const ARRAYS = {
  booleans: arrayOf(1000, (text) => text === 't'),
  smallints: arrayOf(1005, Number),
  ints: arrayOf(1007, Number),
  bigints: arrayOf(1016, Number),
  texts: arrayOf(1009, String),
  names: arrayOf(1003, String),
  timestamps: arrayOf(1185, (text) => new Date(text)),
  uuids: arrayOf(2951, String),
}

// A stopped relay must not hold hundreds of device locks; a stuck lock must not hold the relay.
const GUARDS = { idle_in_transaction_session_timeout: 1000, lock_timeout: 2000 }
// Queue tables look empty to the planner right after everything was acked; a full scan then walks every dead row.
const INDEX_ONLY = {
  enable_seqscan: 'off',
  enable_hashjoin: 'off',
  enable_mergejoin: 'off',
  enable_bitmapscan: 'off',
  plan_cache_mode: 'force_generic_plan',
  jit: 'off',
}

/** Longest pause between two tries to reach the database, seconds. The driver's own is 20, which outlasts most outages. */
const RECONNECT_MAX_SECONDS = 0.5

/**
 * Opens the four pools lazily: nothing is connected until the first query.
 * @param url PostgreSQL connection URL; its password is never logged (I16).
 */
export function openDatabase(url: string, sizes = { sql: 8, writer: 2, acker: 3, reader: 8 }): Database {
  const pool = (name: string, max: number, connection: Record<string, string | number>): Sql =>
    postgres<{ bigint: postgres.PostgresType<number> }>(url, {
      max,
      types: { bigint, ...ARRAYS },
      fetch_types: false,
      onnotice: () => {},
      connect_timeout: 5,
      backoff: (tries: number) => Math.min(3 ** tries / 100, RECONNECT_MAX_SECONDS),
      connection: { application_name: `sealpost-${name}`, ...connection },
    })
  const sql = pool('main', sizes.sql, GUARDS)
  const writer = pool('writer', sizes.writer, { ...GUARDS, ...INDEX_ONLY })
  const acker = pool('acker', sizes.acker, { ...GUARDS, ...INDEX_ONLY })
  const reader = pool('reader', sizes.reader, { ...GUARDS, ...INDEX_ONLY })
  return {
    sql,
    writer,
    acker,
    reader,
    close: async (seconds = 5) => {
      await Promise.all([sql, writer, acker, reader].map((each) => each.end({ timeout: seconds })))
    },
  }
}
