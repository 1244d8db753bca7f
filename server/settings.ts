// What a user shows of himself to others. [G-2.3] [G-4.3]
import type { Uuid } from '../proto/ids.ts'
import type { Sql } from './database.ts'

/** All of them; true until switched off. */
export type Settings = { readReceipts: boolean; presence: boolean }

export type SettingsStore = {
  get(userId: Uuid): Promise<Settings>
  /** Changes what is named and answers all; committed when it resolves. */
  change(userId: Uuid, changes: { [Name in keyof Settings]?: boolean | undefined }): Promise<Settings>
  /** Those of the users who do not show their presence. */
  hidden(userIds: Uuid[]): Promise<Set<Uuid>>
}

/** @param onChanged after commit. */
export function openSettings({ sql, onChanged }: { sql: Sql; onChanged(userId: Uuid): void }): SettingsStore {
  const get = async (userId: Uuid): Promise<Settings> => {
    const [row] = await sql<Settings[]>`
      select read_receipts as "readReceipts", presence from settings where user_id = ${userId}`
    return row ?? { readReceipts: true, presence: true }
  }
  return {
    get,

    async change(userId, { readReceipts = null, presence = null }) {
      if (readReceipts === null && presence === null) return get(userId)
      const [row] = await sql<[Settings]>`
        insert into settings as s (user_id, read_receipts, presence)
        values (${userId}, coalesce(${readReceipts}::boolean, true), coalesce(${presence}::boolean, true))
        on conflict (user_id) do update
        set read_receipts = coalesce(${readReceipts}::boolean, s.read_receipts), presence = coalesce(${presence}::boolean, s.presence)
        returning read_receipts as "readReceipts", presence`
      onChanged(userId)
      return row
    },

    async hidden(userIds) {
      const rows = await sql<{ user_id: Uuid }[]>`
        select user_id from settings where user_id = any(${userIds}::uuid[]) and not presence`
      return new Set(rows.map((row) => row.user_id))
    },
  }
}
