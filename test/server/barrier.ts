// Holds locks of the real database so that others wait for them, and says when they do: races without sleeping.
import type { Sql, Transaction } from '../../server/database.ts'

/**
 * Runs `hold` in a transaction of its own and keeps it open, so that what it locked stays locked.
 * @param sql a pool other than the one under test.
 * @returns waiting(n): resolves once n other backends of this database wait for a lock, with their pids; release(): commits.
 */
export async function holdLocks(sql: Sql, hold: (tx: Transaction) => Promise<unknown>) {
  let release!: () => void
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  let held!: () => void
  const holding = new Promise<void>((resolve) => {
    held = resolve
  })
  const transaction = sql.begin(async (tx) => {
    await tx`set local idle_in_transaction_session_timeout = 0`
    await hold(tx)
    held()
    await released
  })
  await Promise.race([holding, transaction])
  return {
    async waiting(backends: number): Promise<number[]> {
      for (;;) {
        const rows = await sql<{ pid: number }[]>`select distinct pid from pg_locks
          where not granted and pid in (select pid from pg_stat_activity where datname = current_database())`
        if (rows.length >= backends) return rows.map((row) => row.pid)
      }
    },
    async release() {
      release()
      await transaction
    },
  }
}
