// Brings the schema up to date from plain numbered SQL files: keys/sql/ first (it stands alone), then server/sql/.
import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { Sql } from './database.ts'

const FOLDERS = ['keys', 'server'].map((area) => ({
  area,
  path: fileURLToPath(new URL(`../${area}/sql/`, import.meta.url)),
}))
/** Any fixed number: two nodes that start together take turns on it. */
export const MIGRATION_LOCK = 7_308_332_025

/**
 * Applies what is missing, each file once, all in one transaction.
 * @param onWait somebody else migrates: this one waits for him.
 * @returns the files applied now, in order; empty when the schema was current.
 * @throws the database's error, with nothing applied.
 */
export async function migrate(sql: Sql, onWait?: () => void): Promise<string[]> {
  return sql.begin(async (tx) => {
    // A start that stalls for a moment is not cut off; one that stands still must not hold its locks for hours.
    await tx`set local idle_in_transaction_session_timeout = '60s'`
    const [lock] = await tx<{ had: boolean }[]>`select pg_try_advisory_xact_lock(${MIGRATION_LOCK}) as had`
    if (!lock!.had) {
      onWait?.()
      // Whoever comes second waits for the first, however long that takes.
      await tx`set local lock_timeout = 0`
      await tx`select pg_advisory_xact_lock(${MIGRATION_LOCK})`
      await tx`set local lock_timeout to default`
    }
    await tx`create table if not exists public.migrations (
      file text primary key, applied_at timestamptz not null default now())`
    const done = new Set((await tx<{ file: string }[]>`select file from migrations`).map((row) => row.file))
    const applied: string[] = []
    for (const { area, path } of FOLDERS) {
      for (const name of (await readdir(path)).filter((each) => each.endsWith('.sql')).sort()) {
        const file = `${area}/${name}`
        if (done.has(file)) continue
        await tx.unsafe(await readFile(path + name, 'utf8'))
        await tx`insert into migrations ${tx({ file })}`
        applied.push(file)
      }
    }
    return applied
  })
}
