// Everything a database holds, to show that a request changed nothing.
import type { Sql } from '../../server/database.ts'

/** The same to compare with, once what earlier stories left to tell is told: that goes on after their answers. [V-5] */
export async function rowsAtRest(sql: Sql): Promise<Record<string, string[]>> {
  while ((await sql`select 1 from identity_news`).length > 0);
  return allRows(sql)
}

/** Every row of every table of the relay and the key directory, as JSON text, sorted: equal if and only if nothing changed. */
export async function allRows(sql: Sql): Promise<Record<string, string[]>> {
  const tables = await sql<{ name: string }[]>`
    select format('%I.%I', schemaname, tablename) as name from pg_tables
    where schemaname in ('public', 'keys') order by 1`
  const all: Record<string, string[]> = {}
  for (const { name } of tables) {
    const rows = await sql.unsafe<{ row: string }[]>(`select to_jsonb(t)::text as row from only ${name} t`)
    all[name] = rows.map(({ row }) => row).sort()
  }
  return all
}
